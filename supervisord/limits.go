package main

import (
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

func rlimits(l *spec.Limits) []ipc.Rlimit {
	var out []ipc.Rlimit
	for _, r := range []struct {
		resource int
		value    *uint64
	}{
		{unix.RLIMIT_NOFILE, l.NoFile}, {unix.RLIMIT_NPROC, l.NProc}, {unix.RLIMIT_CORE, l.Core},
		{unix.RLIMIT_MEMLOCK, l.MemLock}, {unix.RLIMIT_STACK, l.Stack}, {unix.RLIMIT_AS, l.AS},
	} {
		if r.value != nil {
			most := min(*r.value, unix.RLIM_INFINITY)
			out = append(out, ipc.Rlimit{Resource: r.resource, Soft: most, Hard: most})
		}
	}
	return out
}
