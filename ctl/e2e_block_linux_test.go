package main

import "golang.org/x/sys/unix"

// block blocks signals on this thread: those of the bits, from that of signal 1 on.
func block(mask uint32) error {
	var blocked unix.Sigset_t
	blocked.Val[0] = uint64(mask)
	return unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, nil)
}
