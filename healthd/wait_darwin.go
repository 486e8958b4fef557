package main

import "github.com/threefoldtech/zinit/common/macos"

// waitEnd waits for the end of a child, which stays a zombie, so that its group keeps
// its number.
func waitEnd(pid int) { macos.Ended(pid, 0) }
