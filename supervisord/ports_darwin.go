package main

import (
	"slices"

	"github.com/threefoldtech/zinit/common/macos"
)

// findHolder returns who listens on one of these TCP ports, if anybody does.
func findHolder(ports []uint16) (holder, bool) {
	all, _ := macos.Listeners()
	for _, l := range all {
		if slices.Contains(ports, l.Port) {
			return holder{port: l.Port, pid: l.Pid, command: programName(l.Pid)}, true
		}
	}
	return holder{}, false
}
