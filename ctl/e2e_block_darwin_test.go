package main

import "github.com/threefoldtech/zinit/common/macos"

// block blocks signals on this thread: those of the bits, from that of signal 1 on.
func block(mask uint32) error {
	macos.SetMask(mask)
	return nil
}
