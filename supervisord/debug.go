package main

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// part is one part of all that the supervisor holds, for people who look for a
// bug. Only "part" and "name" mean the same in all of them.
type part map[string]any

func debugState(c *client, ctx context.Context, r ipc.Request) (any, error) {
	var out []part
	err := c.s.in(ctx, func() { out = c.s.dump() })
	if err == nil {
		fds, _ := countFds(os.Getpid())
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		out[0]["fds"], out[0]["goroutines"], out[0]["heap_bytes"] = fds, runtime.NumGoroutine(), m.HeapAlloc
	}
	return items(c, r, out, err)
}

// dump returns the parts, that of the server first.
func (s *server) dump() []part {
	now := s.now()
	server := part{
		"part": "server", "info": s.info(), "now": now, "inbox": len(s.inbox),
		"store":  part{"path": s.store.path, "bytes": s.store.size, "live_bytes": s.store.live, "unsaved": s.unsaved},
		"events": part{"last": s.history.last(), "kept": len(s.history.kept())},
		"pipes":  len(s.pipes), "notify_sockets": len(s.notify.sockets), "events_due": len(s.events),
	}
	if at, ok := s.core.NextWake(); ok {
		server["next_wake_in"] = time.Duration(at - now).String()
	}
	out := []part{
		server,
		{"part": "keeper", "hello": s.keeper.hello},
		{"part": "core", "global": s.core.Global(), "shutting_down": s.core.ShuttingDown()},
	}
	for w := range s.waiters {
		result := map[string]string{}
		for name, o := range w.result {
			result[name] = o.String()
		}
		out = append(out, part{"part": "waiter", "names": w.names, "changed": len(w.changed), "result": result})
	}
	for _, n := range s.core.Names() {
		v, _ := s.core.View(now, n)
		view, _ := s.viewOf(n)
		out = append(out, part{"part": "service", "name": n, "view": view, "record": v.Record})
	}
	return out
}

func (o outcome) String() string {
	switch o {
	case pending:
		return "pending"
	case reached:
		return "reached"
	case missed:
		return "missed"
	}
	return "?"
}

const (
	// maxProcessDepth is how many levels of processes an item holds: each takes
	// two levels of a frame, of which there are 16.
	maxProcessDepth = 5
	// maxProcesses is how many an item holds, each with so many bytes of its
	// command line, to stay within a frame.
	maxProcesses = 1000
	maxCommand   = 512
)

func debugProcs(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	o, err := c.s.ownersOf(ctx, []string{p.Name})
	if err != nil {
		return nil, err
	}
	processes, err := o.processes()
	if err != nil {
		return nil, err
	}
	return items(c, r, processTrees(processes[p.Name], commandOf), nil)
}

// forest is the processes of a service by their parents.
type forest struct {
	children map[int][]int
	command  func(pid int) string
	room     int // in this item
	// cut are the processes of which children are still to come.
	cut []int
}

// processTrees makes trees of processes that are sorted by pid. What is too
// deep or too much for one item follows in a later one.
func processTrees(processes []process, command func(pid int) string) []ipc.Process {
	f := &forest{children: map[int][]int{}, command: command}
	member := map[int]bool{}
	for _, p := range processes {
		member[p.pid] = true
	}
	var roots []int
	for _, p := range processes {
		if member[p.ppid] {
			f.children[p.ppid] = append(f.children[p.ppid], p.pid)
		} else {
			roots = append(roots, p.pid)
		}
	}
	var out []ipc.Process
	for _, root := range roots {
		for f.cut = []int{root}; len(f.cut) > 0; {
			pid := f.cut[0]
			f.cut = f.cut[1:]
			f.room = maxProcesses
			out = append(out, f.tree(pid, 1))
		}
	}
	return out
}

// tree takes a process and its children out of the forest.
func (f *forest) tree(pid, depth int) ipc.Process {
	f.room--
	p := ipc.Process{Pid: pid, Command: f.command(pid)}
	for len(f.children[pid]) > 0 {
		if depth == maxProcessDepth || f.room == 0 {
			p.More = true
			f.cut = append(f.cut, pid)
			break
		}
		child := f.children[pid][0]
		f.children[pid] = f.children[pid][1:]
		p.Children = append(p.Children, f.tree(child, depth+1))
	}
	return p
}
