package main

import (
	"context"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// cpuWindow is the time over which the use of the processor is measured.
const cpuWindow = 200 * time.Millisecond

// owners tells whose a process is: it is in the cgroup or the session of a run,
// or descends from one that is. All of /proc is read once for all services, in the
// goroutine of the client.
type owners struct {
	names []string // of the services asked for, sorted
	pids  map[string]int
	// leaders and sessions hold, by number, the service to which a process and
	// all of its descendants belong, or all of a session.
	leaders, sessions map[int]string
	oneshot           map[string]bool
}

// ownersOf finds the runs of services, of all of them for no names.
func (s *server) ownersOf(ctx context.Context, names []string) (*owners, error) {
	o := &owners{pids: map[string]int{}, leaders: map[int]string{}, sessions: map[int]string{}, oneshot: map[string]bool{}}
	runs := map[string][]*core.Run{}
	cgroups := map[string][]string{}
	var refused *ipc.Error
	err := s.in(ctx, func() {
		if o.names, refused = s.known(names); refused != nil {
			return
		}
		for _, n := range o.names {
			v, _ := s.core.View(s.now(), n)
			o.pids[n], runs[n], o.oneshot[n] = v.Pid, v.Runs, v.Spec.Oneshot
			for _, r := range v.Runs {
				if path := s.cgroups.path(r.ID); path != "" {
					cgroups[n] = append(cgroups[n], path)
				}
			}
		}
	})
	if err := cmpError(refused, err); err != nil {
		return nil, err
	}
	slices.Sort(o.names)
	for name, list := range runs {
		for _, r := range list {
			o.add(name, r)
		}
	}
	for name, paths := range cgroups {
		for _, path := range paths {
			for _, pid := range members(path) {
				o.leaders[pid] = name
			}
		}
	}
	// A console service may be in the session that zinit was started from.
	if own, err := unix.Getsid(s.keeper.hello.Pid); err == nil {
		delete(o.sessions, own)
	}
	return o, nil
}

func (o *owners) add(name string, r *core.Run) {
	if r.Pid == 0 {
		return
	}
	o.sessions[r.Pid] = name // pid1 makes one for each run
	if !r.Exited {
		o.leaders[r.Pid] = name
		// What named itself by MAINPID= may have a session of its own.
		if st, err := readStat(r.Pid); err == nil {
			o.sessions[st.session] = name
		}
	}
}

// processes returns those of each service.
func (o *owners) processes() (map[string][]process, error) {
	all, err := readProcesses()
	if err != nil {
		return nil, err
	}
	byPid := make(map[int]process, len(all))
	for _, p := range all {
		byPid[p.pid] = p
	}
	owner := make(map[int]string, len(all)) // "" is known to be nobody's
	out := map[string][]process{}
	for _, p := range all {
		var path []int
		name := ""
		for at := p; ; at = byPid[at.ppid] {
			if known, ok := owner[at.pid]; ok {
				name = known
				break
			}
			path = append(path, at.pid)
			if name = o.leaders[at.pid]; name == "" {
				name = o.sessions[at.session]
			}
			// Processes that were read at different times may seem to be each
			// other's parents.
			if name != "" || byPid[at.ppid].pid == 0 || slices.Contains(path, at.ppid) {
				break
			}
		}
		for _, pid := range path {
			owner[pid] = name
		}
		if name != "" {
			out[name] = append(out[name], p)
		}
	}
	return out, nil
}

// process is a line of the process table.
type process struct {
	pid int
	stat
}

// usage is what a service has used at a moment.
type usage struct {
	at  time.Time
	cpu time.Duration
}

// measure adds up the processor time of processes.
func measure(processes []process) usage {
	u := usage{at: time.Now()}
	for _, p := range processes {
		u.cpu += processorTime(p) + p.childrenCPU
	}
	return u
}

func stats(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	o, err := c.s.ownersOf(ctx, p.Names)
	if err != nil {
		return nil, err
	}
	processes, err := o.processes()
	if err != nil {
		return nil, err
	}
	before := map[string]usage{}
	for name, list := range processes {
		before[name] = measure(list)
	}
	t := time.NewTimer(cpuWindow)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if processes, err = o.processes(); err != nil {
		return nil, err
	}
	out := []ipc.Stats{}
	for _, name := range o.names {
		list := processes[name]
		if len(list) == 0 && len(p.Names) == 0 {
			continue
		}
		out = append(out, summarize(name, o.pids[name], list, before[name]))
	}
	return items(c, r, out, nil)
}

// summarize adds up what a service uses, and has used since before.
func summarize(name string, pid int, list []process, before usage) ipc.Stats {
	now := measure(list)
	s := ipc.Stats{Name: name, Pid: pid, CPUTimeMS: now.cpu.Milliseconds(), Processes: len(list)}
	if !before.at.IsZero() && now.cpu > before.cpu {
		s.CPUPercent = math.Round(1000*float64(now.cpu-before.cpu)/float64(now.at.Sub(before.at))) / 10
	}
	fds := 0
	s.Fds = &fds
	for _, p := range list {
		s.MemoryBytes += p.resident
		n, err := countFds(p.pid)
		if os.IsPermission(err) {
			s.Fds = nil // another user's: a sum of some would mislead
		}
		fds += n
	}
	return s
}
