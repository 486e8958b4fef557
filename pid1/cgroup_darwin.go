package main

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// checks are what a run has to pass before anything is made for it: it must not ask
// for what macOS does not have.
type checks struct{}

func (checks) check(sp *ipc.Spawn) *ipc.SpawnFailed {
	for _, c := range []struct {
		wanted bool
		stage  string
	}{
		{sp.Cgroup != "", ipc.StageCgroup},
		{sp.OOMScoreAdj != nil, "oom_score_adj"},
		{sp.NoNewPrivs, "no_new_privs"},
		{len(sp.AmbientCaps) > 0, "capabilities"},
	} {
		if c.wanted {
			return unsupported(c.stage)
		}
	}
	for _, l := range sp.Rlimits {
		// The kernel takes it for a wish as to what is resident, and does not mind it.
		if l.Resource == unix.RLIMIT_AS {
			return unsupported(limitName(l.Resource))
		}
	}
	return nil
}

func unsupported(stage string) *ipc.SpawnFailed {
	return &ipc.SpawnFailed{Stage: stage, Errno: int(unix.ENOTSUP), Message: fmt.Sprintf("cannot set %s: macOS does not have it", stage)}
}

// A run with a cgroup is refused by checks, so what follows has none to work on.

func openCgroup(*ipc.Spawn) (fd int, fail *ipc.SpawnFailed) { return -1, nil }

func intoCgroup(*syscall.SysProcAttr, int) {}

func cgroupMembers(string) []int { return nil }

func killCgroup(string) {}
