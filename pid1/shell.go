package main

import (
	"os"
	"time"

	"github.com/threefoldtech/zinit/common/terminal"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// shellPause is the time between two starts of a supervisor while there is
	// one: seldom, so that what they say does not disturb whoever types, but a
	// machine that nobody looks at recovers by itself.
	shellPause = time.Minute
	// shellShort is the life of a shell that nobody has used: its console has
	// ended its input.
	shellShort = time.Second
)

// emergencyShell is the shell on the console of a machine. There is at most
// one. It is no run: nobody but whoever types there has to do with it.
type emergencyShell struct {
	Open bool
	Pid  int // 0 before it is forked
	// Opened is when it was; Shown are the causes for which there was one.
	Opened time.Duration
	Shown  map[string]bool
}

// emergency opens the shell unless there is one, or says why not.
func (k *keeper) emergency(m ipc.Shell) {
	if k.opt.mode != ipc.ModeVM || k.end.begun || m.Cause != "" && k.shell.Shown[m.Cause] {
		return
	}
	if len(k.shell.Shown) >= maxRuns {
		clear(k.shell.Shown)
	}
	k.shell.Shown[m.Cause] = true
	again := "zinit-server is started again when it ends"
	if m.Cause != "" {
		again = "end it by exit"
	}
	if m.Cause != "" || !k.shell.Open {
		k.log.error("emergency: " + m.Reason)
	}
	if k.shell.Open {
		return
	}
	if !terminal.Is(0) {
		k.log.error("there is no emergency shell: the console is not a terminal")
		return
	}
	for _, r := range k.table.runs {
		if r.Console && r.State != ipc.RunExited {
			k.log.error("there is no emergency shell: the console is in use", "service", r.Tag)
			return
		}
	}
	k.log.warn("this is an emergency shell: " + again)
	k.log.flush()
	k.shell.Open, k.shell.Opened = true, monotonic()
	k.launch(&job{
		kind:  shellJob,
		Spawn: ipc.Spawn{Tag: "the emergency shell", Argv: []string{"/bin/sh"}, Env: os.Environ(), Console: true},
		Files: []int{0, 1, 2},
	})
}

// shellLaunched takes the outcome of its start.
func (k *keeper) shellLaunched(o outcome, first bool) {
	if o.fail != nil {
		k.log.error("there is no emergency shell: " + o.fail.Message)
		k.shell.Open, k.shell.Pid = false, 0
		return
	}
	if first {
		k.shell.Pid = o.pid
		if _, ok := k.table.takeEarly(o.pid, o.since); ok {
			k.shellEnded()
		}
	}
}

// shellEnded has the supervisor tried again, if it is not there: at once after
// somebody has done something, after a pause where nobody is at the console.
func (k *keeper) shellEnded() {
	k.shell.Open, k.shell.Pid = false, 0
	k.sup.Row = 0
	if k.sup.RestartAt > 0 {
		k.sup.RestartAt = monotonic()
		if k.sup.RestartAt-k.shell.Opened < shellShort {
			k.sup.RestartAt += restartMax
		}
	}
}
