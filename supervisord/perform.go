package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// maxUnforgotten bounds the runs that pid1 has to remember because what has
// become of them cannot be saved: a part of what it can.
const maxUnforgotten = 1 << 14

// forgetSaved has pid1 forget the runs whose end is saved at last.
func (s *server) forgetSaved() {
	if s.unsaved {
		return
	}
	for _, run := range s.unforgotten {
		s.keeper.send(ipc.KindForget, ipc.Forget{Run: ipc.RunID(run)})
	}
	s.unforgotten = nil
}

// perform does one action of the core.
func (s *server) perform(a core.Action) {
	switch a := a.(type) {
	case core.Spawn:
		if a.Service.Health != nil {
			s.health.missing = "" // it may be there by now
		}
		s.prepare(a)
	case core.Signal:
		scope := ipc.ScopeGroup
		if a.Scope == core.ScopeAll {
			scope = ipc.ScopeAll
		}
		s.keeper.send(ipc.KindSignal, ipc.Signal{Run: ipc.RunID(a.Run), Sig: a.Signal, Scope: scope})
	case core.Forget:
		s.dropRunFds(a.Run)
		if s.unsaved && len(s.unforgotten) < maxUnforgotten {
			s.unforgotten = append(s.unforgotten, a.Run)
		} else {
			s.keeper.send(ipc.KindForget, ipc.Forget{Run: ipc.RunID(a.Run)})
			s.acks = slices.DeleteFunc(s.acks, func(o ack) bool { return o.run == a.Run }) // of which it tells no more
		}
		failpoint.Hit("forgotten", func() { s.keeper.conn.Flush() })
		s.over = append(s.over, a.Run)
	case core.SetMain:
		s.keeper.send(ipc.KindMain, ipc.Main{Run: ipc.RunID(a.Run), Pid: a.Pid})
	case core.Changed:
		s.changed = append(s.changed, a)
	case core.Shell:
		s.keeper.send(ipc.KindShell, ipc.Shell{Cause: fmt.Sprintf("%s/%d", a.Service, a.Run), Reason: a.Reason})
	case core.Warn:
		s.log.Warn(a.Message, "service", a.Service)
	case core.Halt:
		s.halting = &a
	case core.SetProbes:
		s.setProbes(a)
	case core.SetProbe:
		s.setProbe(a.Probe)
	case core.DropProbe:
		s.health.send(ipc.KindDropProbe, ipc.DropProbe{Service: a.Service})
	case core.SetGate:
		s.proxyd.send(ipc.KindGate, gateOrder(a))
	case core.TellProxies:
		s.tellProxies()
	case core.HealthChanged:
		s.onHealthChanged(a)
	}
}

// onChanged tells the log and those who wait, when what is to be done is under way.
func (s *server) onChanged(a core.Changed) {
	s.moved = true
	for w := range s.waiters {
		w.note(a)
	}
	if a.Removed {
		s.logs.Remove(a.Service)
		s.endFollows()
		s.log.Info("removed", "service", a.Service)
		return
	}
	args := []any{"service", a.Service, "state", a.To.String()}
	if a.Pid != 0 {
		args = append(args, "pid", a.Pid)
	}
	switch {
	case a.To == core.StateFailed && a.Reason != nil && (a.Reason.End == nil || !s.onlyMain()):
		s.log.Warn("failed", append(args, "reason", a.Reason.Message)...)
	default:
		s.log.Debug("changed", args...)
	}
}

// haltNow says that all output is out, too.
type haltNow core.Halt

// halt is the last order: everything is down.
func (s *server) halt(a core.Halt) {
	if !s.onlyMain() {
		s.log.Info("all services are down", "exit", a.Code)
	}
	runs := make([]uint64, 0, len(s.pipes))
	for run := range s.pipes {
		runs = append(runs, uint64(run))
	}
	go func() {
		s.logs.Drain(runs...)
		s.logs.Flush(2 * time.Second) // a disk that hangs does not hold up the end
		s.attached.finish()
		s.cgroups.close()
		s.inbox <- haltNow(a)
	}()
}

// prepared is a Spawn with everything looked up, or why that is not possible.
type prepared struct {
	run    core.RunID
	order  ipc.Spawn
	notify bool // it wants a notify socket
	err    error
	code   int
	config bool
	taken  holder // of a port that the service needs
}

// maxPrepared bounds the orders that are made at the same time, and with them
// the threads that a slow file system can hold.
const maxPrepared = 8

// prepare makes the order for pid1. What may block on a file system, reading
// environment files, secrets and the user database, is done beside the loop. The
// core sends no signal to a run before it was spawned, so nothing can overtake the
// order.
func (s *server) prepare(a core.Spawn) {
	b := builder{
		action: a, env: s.environment(a.Service), runtimeDir: s.paths.RuntimeDir,
		cgroups: s.cgroups, cgroup: s.cgroups.reserve(a),
		mainCommand: a.Role == core.RoleMain && a.Service.Name == mainService && len(s.keeper.hello.Main) > 0,
	}
	if a.Role == core.RoleMain {
		b.listeners, b.deaf = s.passed(a.Service.Name)
	}
	if b.mayBlock() {
		go func() {
			s.preparing <- struct{}{}
			p := b.build()
			<-s.preparing
			s.inbox <- p
		}()
		return
	}
	s.onPrepared(b.build())
}

// onPrepared sends the order, or tells the core that there is none to send.
func (s *server) onPrepared(p prepared) {
	if p.err == nil && p.notify {
		p.err = s.notify.listen(p.run, p.order.Cred, s.keeper)
	}
	if p.err != nil {
		ev := core.SpawnFailed{Run: p.run, Message: p.err.Error(), Code: p.code, Config: p.config, Port: p.taken.port, Pid: p.taken.pid, Command: p.taken.command}
		s.events = append(s.events, ev)
		return
	}
	if err := s.keeper.spawn(p.order); err != nil {
		if errors.Is(err, ipc.ErrTooLarge) {
			err = fmt.Errorf("cannot execute it: command and environment may have %d bytes together, and have more", ipc.MaxFrame)
		}
		s.events = append(s.events, core.SpawnFailed{Run: p.run, Message: err.Error(), Code: 126})
		return
	}
	s.ordered = true
}

// builder turns a spawn of the core into an order for pid1. It touches nothing
// of the server, so that it may run beside the loop.
type builder struct {
	action     core.Spawn
	env        *environ // what it has beside its own
	runtimeDir string
	cgroups    *cgroups
	cgroup     string // to be made, "" for none
	// listeners are handed to the service; deaf says why one of them is not
	// there.
	listeners []passedListener
	deaf      string
	// mainCommand says that it is a container's: it is found by execvp(3) and reads
	// zinit's stdin, as under another init.
	mainCommand bool
}

// mayBlock says that something has to be read for it, or limits to be written.
func (b builder) mayBlock() bool {
	sp := b.action.Service
	return b.cgroup != "" && len(cgroupLimits(sp.Limits)) > 0 || len(sp.EnvFile) > 0 || len(sp.Ports) > 0 || sp.User != "" || sp.Group != "" || slices.ContainsFunc(sp.Env, isSecret)
}

func (b builder) build() prepared {
	p := prepared{run: b.action.Run}
	sp := b.action.Service
	fail := func(err error, config bool) prepared {
		p.err, p.code, p.config = err, 126, config
		return p
	}
	if len(sp.Ports) > 0 && b.action.Role != core.RoleStop {
		if h, taken := findHolder(sp.Ports); taken {
			p.taken = h
			return fail(errors.New(h.String()), false)
		}
	}
	if b.action.Role == core.RoleMain && sp.Lifecycle.Ready == spec.ReadyHealth {
		if _, err := findHelper(string(core.HelperHealth)); err != nil {
			return fail(fmt.Errorf("cannot check its health: %w", err), false)
		}
	}
	p.order = ipc.Spawn{Run: ipc.RunID(b.action.Run), Tag: tagOf(sp.Name, b.action.Role), Umask: sp.Umask, Shell: b.mainCommand, Stdin: b.mainCommand}
	env := b.env
	cred, account, err := lookupUser(sp.User, sp.Group)
	if err != nil {
		return fail(err, false)
	}
	p.order.Cred = cred
	if account != nil {
		env.set("HOME", account.HomeDir)
		env.set("USER", account.Username)
		env.set("LOGNAME", account.Username)
	}
	if config, err := env.addFrom(sp); err != nil {
		return fail(err, config)
	}
	if b.action.Role == core.RoleStop {
		env.set("MAINPID", strconv.Itoa(b.action.MainPid))
	}
	p.notify = b.action.Role == core.RoleMain && sp.Lifecycle.Ready == spec.ReadyNotify
	if p.notify {
		env.set("NOTIFY_SOCKET", b.runtimeDir+"/notify/"+strconv.FormatUint(uint64(b.action.Run), 10))
		if w := sp.Lifecycle.Watchdog; w > 0 {
			env.set("WATCHDOG_USEC", strconv.FormatInt(w.Microseconds(), 10))
		}
	}
	if p.order.Argv, err = commandFor(sp, b.action.Role).Expand(env.get); err != nil {
		return fail(fmt.Errorf("cannot expand its command: %w", err), true)
	}
	if p.order.Dir, err = spec.ExpandString(sp.Dir, env.get); err != nil {
		return fail(fmt.Errorf("cannot expand dir: %w", err), true)
	}
	if b.deaf != "" {
		return fail(errors.New(b.deaf), false)
	}
	const firstListener = 3 // sd_listen_fds(3)
	for i, l := range b.listeners {
		p.order.Fds = append(p.order.Fds, ipc.FdUse{Name: l.stored, Fd: firstListener + i})
		p.order.ListenNames = append(p.order.ListenNames, l.proxy)
	}
	if l := sp.Lifecycle; l.Ready == spec.ReadyFd && l.ReadyFd >= firstListener && l.ReadyFd < firstListener+len(b.listeners) {
		return fail(fmt.Errorf("ready_fd = %d is one of the listeners that it gets (mode = pass): choose %d or more",
			l.ReadyFd, firstListener+len(b.listeners)), true)
	}
	p.order.Env, p.order.Based = env.own, true
	p.order.Rlimits = rlimits(sp.Limits)
	p.order.Nice, p.order.OOMScoreAdj = sp.Limits.Nice, sp.Limits.OOMScoreAdj
	p.order.NoNewPrivs = sp.Limits.NoNewPrivs
	if p.order.AmbientCaps, err = capabilityNumbers(sp.Limits.Capabilities); err != nil {
		return fail(err, true)
	}
	if b.cgroup != "" {
		if p.order.Cgroup, err = b.cgroups.make(b.cgroup, sp.Limits); err != nil {
			return fail(err, false)
		}
		p.order.CgroupLast = len(cgroupLimits(sp.Limits)) > 0
	}
	if sp.Console && b.action.Role == core.RoleMain {
		p.order.Console = true
		return p
	}
	for fd, stream := range []string{1: "stdout", 2: "stderr"} {
		if stream != "" {
			p.order.Pipes = append(p.order.Pipes, ipc.Pipe{Name: ipc.LogFd(p.order.Run, stream, sp.Name), Fd: fd})
		}
	}
	if b.action.Role == core.RoleMain && sp.Lifecycle.Ready == spec.ReadyFd {
		p.order.Pipes = append(p.order.Pipes, ipc.Pipe{Name: readyName(b.action.Run), Fd: sp.Lifecycle.ReadyFd})
	}
	return p
}

// commandFor is what a run of that role executes.
func commandFor(sp *spec.Service, role core.Role) spec.Command {
	switch role {
	case core.RolePre:
		return sp.Lifecycle.PreStart
	case core.RoleStop:
		return sp.Lifecycle.StopExec
	case core.RoleMain:
	}
	return sp.Exec
}

// lookupUser resolves user and group, each a name or a number. It returns nil
// for a service that has neither.
func lookupUser(name, group string) (*ipc.Cred, *user.User, error) {
	if name == "" && group == "" {
		return nil, nil, nil
	}
	cred := &ipc.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	var account *user.User
	if name != "" {
		id, numeric := strconv.ParseUint(name, 10, 32)
		if numeric == nil {
			cred.UID = uint32(id)
			account, _ = user.LookupId(name) // a number needs no entry
		} else if account, _ = user.Lookup(name); account == nil {
			return nil, nil, fmt.Errorf("cannot find user %s: there is no such name in /etc/passwd", name)
		}
		switch {
		case account != nil:
			uid, _ := strconv.ParseUint(account.Uid, 10, 32)
			gid, _ := strconv.ParseUint(account.Gid, 10, 32)
			cred.UID, cred.GID, cred.Name = uint32(uid), uint32(gid), account.Username
			ids, err := account.GroupIds()
			if err != nil {
				return nil, nil, fmt.Errorf("cannot find the groups of user %s: %w", name, err)
			}
			for _, s := range ids {
				if g, err := strconv.ParseUint(s, 10, 32); err == nil {
					cred.Groups = append(cred.Groups, uint32(g))
				}
			}
		case group == "":
			return nil, nil, fmt.Errorf("cannot tell the group of user %s, which has no entry in /etc/passwd: set group as well", name)
		}
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if err == nil {
			group = g.Gid
		}
		id, perr := strconv.ParseUint(group, 10, 32)
		if perr != nil {
			return nil, nil, fmt.Errorf("cannot find group %s: there is no such name in /etc/group", group)
		}
		cred.GID = uint32(id)
	}
	if !slices.Contains(cred.Groups, cred.GID) {
		cred.Groups = append(cred.Groups, cred.GID)
	}
	return cred, account, nil
}

// spawnExitCode is what a shell exits with when it cannot run a command.
func spawnExitCode(m ipc.SpawnFailed) int {
	if m.Stage == ipc.StageExec && unix.Errno(m.Errno) == unix.ENOENT {
		return 127
	}
	return 126
}
