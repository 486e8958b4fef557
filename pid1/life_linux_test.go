package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

func TestExitsWithoutASupervisorAreNotLost(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	gate := w.gate()
	const n = 20
	for id := ipc.RunID(1); id <= n; id++ {
		s.spawn(shell(id, fmt.Sprintf("read x < %s; exit %d", gate.Name(), id)))
		s.spawned(id)
	}
	s.kill()
	// A supervisor that has not said hello is told, but gives no orders and
	// acknowledges nothing.
	mute := w.mute()
	gate.open(n)
	for range n {
		await(mute, ipc.KindExited, func(ipc.Exited) bool { return true })
	}
	mute.kill()

	s = w.supervisor()
	for id := ipc.RunID(1); id <= n; id++ {
		r := s.runs[id]
		if r.State != ipc.RunExited || r.Exited == nil || r.Exited.Code != int(id) || !r.Emptied {
			t.Errorf("run %d is told as %+v", id, r)
		}
		s.send(ipc.KindForget, ipc.Forget{Run: id})
	}
	s.sync()
	s.kill()
	if s = w.supervisor(); len(s.runs) != 0 {
		t.Errorf("%d forgotten runs are told of", len(s.runs))
	}
}

func TestSignalOrdersAreCounted(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	s.spawn(shell(1, "trap '' USR1; exec sleep 1000"))
	s.spawned(1)
	for range 3 {
		s.send(ipc.KindSignal, ipc.Signal{Run: 1, Sig: int(unix.SIGCONT), Scope: ipc.ScopeGroup})
	}
	s.sync()
	s.kill()
	if s = w.supervisor(); s.runs[1].Signals != 3 {
		t.Errorf("pid1 counted %d signals, want 3", s.runs[1].Signals)
	}
}

func TestSupervisorRestartBacksOff(t *testing.T) {
	w := start(t, setup{})
	var gaps []time.Duration
	for i := range 8 {
		s := w.supervisor()
		if s.hello.Restarts != i {
			t.Fatalf("restart %d calls itself %d", i, s.hello.Restarts)
		}
		if i > 0 {
			gaps = append(gaps, time.Duration(s.hello.Down))
			if s.hello.LastEnd != "exit code 0" {
				t.Errorf("the last end is told as %q", s.hello.LastEnd)
			}
		}
		s.exit(0) // an exit without Halt is a crash, too
	}
	// At once, then 10 ms, doubling.
	pause := restartMin
	for i, g := range gaps[1:] {
		if g < pause {
			t.Errorf("pause %d was %v, want at least %v", i+1, g, pause)
		}
		pause *= 2
	}
}

func TestRestartPauses(t *testing.T) {
	k := &keeper{log: &logger{queue: make(chan record, 64)}}
	s := &k.sup
	s.Argv = []string{"zinit-server"}
	die := func(life time.Duration) time.Duration {
		s.Ended = monotonic()
		s.Started = s.Ended - life
		now := monotonic()
		k.restartLater()
		return (s.RestartAt - now).Round(5 * time.Millisecond)
	}
	want := []time.Duration{0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000}
	for i, ms := range want {
		if got := die(time.Second); got != ms*time.Millisecond {
			t.Errorf("pause %d is %v, want %d ms", i, got, ms)
		}
	}
	if got := die(goodLife); got != 0 {
		t.Errorf("after a good life the pause is %v", got)
	}
	if got := die(time.Second); got != restartMin {
		t.Errorf("after that it is %v, want %v", got, restartMin)
	}
}

func TestAnOutageBeginsWithTheLastThatGreeted(t *testing.T) {
	k := &keeper{log: &logger{queue: make(chan record, 64)}}
	s := &k.sup
	s.Argv = []string{"zinit-server"}
	for i, life := range []struct {
		greeted    bool
		ends, away time.Duration
	}{{true, 5, 5}, {false, 15, 5}, {false, 25, 5}, {true, 35, 35}, {false, 45, 35}} {
		s.Greeted, s.Ended = life.greeted, life.ends*time.Second
		if k.restartLater(); s.AwaySince != life.away*time.Second {
			t.Errorf("after the end of %d there is none since %v, want %v", i+1, s.AwaySince, life.away*time.Second)
		}
	}
}

func TestHangingSupervisorIsKilled(t *testing.T) {
	w := start(t, setup{env: []string{envAck + "=200ms"}})
	s := w.supervisor()
	s.spawn(shell(1, "exit 3"))
	m, _ := await(s, ipc.KindExited, func(ipc.Exited) bool { return true })
	s.closed() // no Ack
	s.drop()
	s = w.supervisor()
	if end := s.hello.LastEnd; !strings.HasPrefix(end, "hung for ") || !strings.HasSuffix(end, ", killed by SIGKILL") {
		t.Errorf("the hanging supervisor ended with %q", end)
	}
	if r := s.runs[1]; r.Exited == nil || r.Exited.Seq != m.Seq {
		t.Errorf("the exit is told again as %+v", r)
	}
}

func TestSupervisorThatSaysNothingIsKilled(t *testing.T) {
	w := start(t, setup{env: []string{envHello + "=200ms"}})
	waitUntil(t, "the second supervisor is killed as the first", func() bool {
		return strings.Count(w.stderr.String(), "the supervisor says nothing: killing it") == 2
	})
}

// TestWhenASupervisorHangs tells pid1 the time, of which a supervisor that is
// slow to start may have too little.
func TestWhenASupervisorHangs(t *testing.T) {
	const nobody = 1<<22 + 1 // no pid is as large (proc(5), pid_max)
	const began = 1000 * time.Second
	for _, test := range []struct {
		name    string
		greeted bool
		unacked []time.Duration // when messages were told, from its start on
		ends    time.Duration   // from its start on, 0 = never
	}{
		{"says nothing", false, nil, helloTimeout},
		{"owes nothing", true, nil, 0},
		{"owes a message", true, []time.Duration{3 * time.Second}, 3*time.Second + ackTimeout},
		{"owes messages", true, []time.Duration{9 * time.Second, 7 * time.Second}, 7*time.Second + ackTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, fd, err := ipc.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			defer conn.Close()
			k := &keeper{log: &logger{queue: make(chan record, 64)}, table: newTable()}
			k.sup.Pid, k.sup.conn, k.sup.Started = nobody, conn, began
			k.sup.Greeted, k.sup.told = test.greeted, test.greeted
			for _, at := range test.unacked {
				k.table.told(k.table.number(), began+at)
			}
			// It is asked whenever it wants to be, and not again when nothing is due.
			now := began
			for wake := k.due(now); !k.sup.condemned && wake != 0; wake = k.due(now) {
				now = wake
			}
			switch {
			case k.sup.condemned != (test.ends != 0):
				t.Errorf("killed: %v", k.sup.condemned)
			case k.sup.condemned && now != began+test.ends:
				t.Errorf("killed after %v, want %v", now-began, test.ends)
			}
		})
	}
}

func TestNonsenseEndsTheSupervisor(t *testing.T) {
	w := start(t, setup{})
	for name, say := range map[string]func(*super){
		"orders before the hello": func(s *super) { s.spawn(shell(1, "true")) },
		"wrong role":              func(s *super) { s.send(ipc.KindHello, ipc.Hello{Protocol: 1, Role: ipc.RoleClient}) },
		"wrong protocol":          func(s *super) { s.send(ipc.KindHello, ipc.Hello{Protocol: 99, Role: ipc.RoleSupervisor}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := w.mute()
			say(s)
			s.closed()
			s.drop()
		})
	}
	if s := w.supervisor(); len(s.runs) != 0 {
		t.Errorf("an order was obeyed: %+v", s.runs)
	}
}

// Whatever a supervisor says, pid1 and its children live, no descriptor is lost,
// and the next supervisor is told of everything.
func TestGarbageOnTheLink(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	s.spawn(output(shell(1, "exec sleep 1000")))
	m, _ := s.spawned(1)
	count := func() int {
		t.Helper()
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	s.sync()
	before := count()

	// What cannot be read, or not be decoded, ends the supervisor.
	frame := func(payload string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(payload)))) + payload
	}
	bad := map[string]string{
		"oversized":             "\xff\xff\xff\xff",
		"no msgpack":            frame("\xc1"),
		"a length that lies":    frame("\x92\x10\xdf\xff\xff\xff\xff"),
		"deeply nested":         frame(strings.Repeat("\x91", 1000)),
		"descriptors announced": frame("\x93\x10\x80\x40"),
		"text":                  "hello, I am the supervisor",
		"another type":          frame("\x92\x10\x81\xa3run\x90"),
	}
	for name, bytes := range bad {
		if _, err := unix.Write(s.raw, []byte(bytes)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.closed()
		s.drop()
		s = w.supervisor()
		if r := s.runs[1]; r.Spawned == nil || r.Spawned.Pid != m.Pid || r.Exited != nil {
			t.Fatalf("%s: run 1 is told as %+v", name, r)
		}
	}

	// What is understood and makes no sense does nothing.
	for _, f := range []struct {
		kind ipc.Kind
		body any
	}{
		{ipc.KindSpawn, ipc.Spawn{}},
		{ipc.KindSpawn, ipc.Spawn{Run: 2, Argv: []string{""}}},
		{ipc.KindSpawn, ipc.Spawn{Run: 2, Argv: []string{"a\x00b"}}},
		{ipc.KindSpawn, ipc.Spawn{Run: 2, Argv: []string{"true"}, Fds: []ipc.FdUse{{Name: "nobody", Fd: 1 << 30}}}},
		{ipc.KindSpawn, ipc.Spawn{Run: 2, Argv: []string{"true"}, Pipes: []ipc.Pipe{{Name: "a", Fd: -1}}}},
		{ipc.KindSignal, ipc.Signal{Run: 9, Sig: 9, Scope: ipc.ScopeAll}},
		{ipc.KindSignal, ipc.Signal{Run: 1, Sig: 0, Scope: ipc.ScopeAll}},
		{ipc.KindSignal, ipc.Signal{Run: 1, Sig: -9, Scope: ipc.ScopeGroup}},
		{ipc.KindSignal, ipc.Signal{Run: 1, Sig: 9, Scope: "everybody"}},
		{ipc.KindMain, ipc.Main{Run: 1, Pid: 1}},
		{ipc.KindMain, ipc.Main{Run: 1, Pid: -1}},
		{ipc.KindMain, ipc.Main{Run: 1, Pid: s.pid}},
		{ipc.KindAck, ipc.Ack{Seq: 1 << 63}},
		{ipc.KindForget, ipc.Forget{Run: 1}},
		{ipc.KindStore, ipc.Store{Name: "nothing came with it"}},
		{ipc.KindDrop, ipc.Drop{Name: strings.Repeat("x", 10_000)}},
		{200, map[string]string{"who": "knows"}},
	} {
		s.send(f.kind, f.body)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	s.send(200, map[string]string{}, slices.Repeat([]int{int(null.Fd())}, ipc.MaxFds)...)
	s.send(ipc.KindStore, ipc.Store{Name: strings.Repeat("x", 10_000)}, int(null.Fd()))
	s.sync()
	s.kill()
	s = w.supervisor()
	if r := s.runs[1]; len(s.runs) != 1 || r.Spawned == nil || r.Spawned.Pid != m.Pid || r.Exited != nil {
		t.Errorf("the runs are told as %+v", s.runs)
	}
	s.sync()
	if after := count(); after != before {
		t.Errorf("pid1 has %d descriptors, had %d", after, before)
	}
}

func TestSignalsFromOutsideAreRequests(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGPWR, unix.SIGQUIT, unix.SIGTSTP, unix.SIGCONT, unix.SIGABRT, 37, 39} {
		unix.Kill(w.pid, sig)
		m := s.requested(sig)
		s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
	}
	// Nobody has a use for these where there is no main command.
	for _, sig := range []unix.Signal{unix.SIGPIPE, unix.SIGURG, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, unix.SIGALRM, unix.SIGPROF, unix.SIGIO, 36, 64} {
		unix.Kill(w.pid, sig)
	}
	s.sync()

	unix.Kill(w.pid, unix.SIGTERM)
	first := s.requested(unix.SIGTERM)
	unix.Kill(w.pid, unix.SIGTERM) // not acknowledged: the same request
	unix.Kill(w.pid, unix.SIGUSR1)
	s.requested(unix.SIGUSR1)
	s.kill()
	s = w.supervisor()
	again := s.requested(unix.SIGTERM)
	if again.Seq != first.Seq {
		t.Errorf("the request is told again as %d, was %d", again.Seq, first.Seq)
	}
	s.send(ipc.KindAck, ipc.Ack{Seq: first.Seq})
	s.sync()
	unix.Kill(w.pid, unix.SIGTERM)
	if m := s.requested(unix.SIGTERM); m.Seq == first.Seq {
		t.Error("a second SIGTERM was taken for the first")
	}
	for _, f := range s.kept {
		if f.Kind == ipc.KindRequested {
			var m ipc.Requested
			s.decode(f, &m)
			if m.Signal != int(unix.SIGUSR1) {
				t.Errorf("signal %d was requested", m.Signal)
			}
		}
	}
}

func TestShutdownThatNobodyTakesEndsEverything(t *testing.T) {
	w := start(t, setup{env: []string{envTerm + "=300ms"}})
	s := w.supervisor()
	s.spawn(shell(1, "exec sleep 1000"))
	m, _ := s.spawned(1)
	unix.Kill(w.pid, unix.SIGTERM)
	s.requested(unix.SIGTERM)
	if code := w.wait(); code != 1 {
		t.Errorf("pid1 exited with %d, want 1", code)
	}
	if unix.Kill(m.Pid, 0) != unix.ESRCH {
		t.Error("a service is left")
	}
}

func TestHaltEndsWhatIsLeft(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	// One that ends by SIGTERM, a daemon in a session of its own, and one in
	// the middle of a stop.
	s.spawn(output(shell(1, `setsid sleep 1000 & echo $!; exec sleep 1000`)))
	_, fds := s.spawned(1)
	readLine(t, fds[0])
	s.spawn(shell(2, `kill -STOP $$`))
	s.spawned(2)
	begin := time.Now()
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: 42})
	s.closed()
	s.exit(0) // as a supervisor does at the end of its link
	if code := w.wait(); code != 42 {
		t.Errorf("pid1 exited with %d, want 42", code)
	}
	if took := time.Since(begin); took >= termGrace {
		t.Errorf("it took %v although all ended at once", took)
	}
	readAll(t, fds[0]) // ends when nobody holds it
}

func TestHaltKillsWhatDoesNotEnd(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	s.spawn(output(shell(1, `trap '' TERM; (trap '' TERM; echo ready; while :; do sleep 1000; done) & while :; do sleep 1000; done`)))
	_, fds := s.spawned(1)
	readLine(t, fds[0])
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: 137})
	if code := w.wait(); code != 137 {
		t.Errorf("pid1 exited with %d, want 137", code)
	}
	readAll(t, fds[0])
}

// TestASupervisorThatIsAloneIsLeftToItsEnd stops it, which a signal of pid1's end would undo.
func TestASupervisorThatIsAloneIsLeftToItsEnd(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	var kept [2]int
	if err := unix.Pipe2(kept[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	s.send(ipc.KindStore, ipc.Store{Name: "kept"}, kept[1])
	unix.Close(kept[1])
	s.sync()
	unix.Kill(s.pid, unix.SIGSTOP)
	state := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
		if err != nil {
			t.Fatal(err)
		}
		return procStatus(string(b))["State"]
	}
	for !strings.HasPrefix(state(), "T") {
	}
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: 5})
	readAll(t, kept[0]) // pid1 lets go of it when it has signalled whom it wants to
	if now := state(); !strings.HasPrefix(now, "T") {
		t.Errorf("it was signalled: its state is %s", now)
	}
	unix.Kill(s.pid, unix.SIGCONT)
	s.exit(0)
	if code := w.wait(); code != 5 {
		t.Errorf("pid1 exited with %d, want 5", code)
	}
}

func TestSupervisorThatWasThereBeforeIsJoined(t *testing.T) {
	w := start(t, setup{args: []string{beginName}})
	s := w.supervisor()
	if s.hello.Restarts != 0 || s.hello.Mode != ipc.ModeStandalone {
		t.Errorf("the first supervisor is greeted with %+v", s.hello)
	}
	s.spawn(output(shell(1, "exec sleep 1000")))
	m, _ := s.spawned(1)
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", w.pid))
	if err != nil {
		t.Fatal(err)
	}
	_, flag, _ := strings.Cut(string(cmdline), begunFlag)
	var begun, link int
	if _, err := fmt.Sscanf(flag, "%d,%d", &begun, &link); err != nil || begun != s.pid {
		t.Fatalf("pid1 was told of supervisor %d, and %d is there: %v", begun, s.pid, err)
	}
	w.forkersLack(t, link)

	first := s.pid
	s.kill()
	s = w.supervisor()
	if s.hello.Restarts != 1 || s.runs[1].Spawned == nil || s.runs[1].Spawned.Pid != m.Pid {
		t.Errorf("the second supervisor is told %+v and %+v", s.hello, s.runs)
	}
	// What was so once is of no interest to the program that replaces it.
	w.change()
	s.spawn(shell(2, "exit 4"))
	if ex := s.exited(2); ex.Code != 4 {
		t.Errorf("run 2 ended with %+v", ex)
	}
	if s.pid == first {
		t.Errorf("the second supervisor is the first")
	}
}

func TestSupervisorThatHasEndedMeanwhileIsReplaced(t *testing.T) {
	w := start(t, setup{args: []string{beginName}, env: []string{envDies + "=1"}})
	if s := w.supervisor(); s.hello.Restarts != 1 {
		t.Errorf("the supervisor is greeted with %+v", s.hello)
	}
}

func TestMissingSupervisorIsAnExit(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "zinit-server")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{dir + "/none": 127, plain: 126} {
		w := start(t, setup{args: []string{"--subreaper", "--", path}})
		if code := w.wait(); code != want {
			t.Errorf("%s: exit code %d, want %d", path, code, want)
		}
		if !strings.Contains(w.stderr.String(), "cannot execute "+path) {
			t.Errorf("%s: pid1 said %s", path, w.stderr)
		}
	}
}

func TestOrphansAreReaped(t *testing.T) {
	w := start(t, setup{})
	s := w.supervisor()
	// 20 times 500: they are children of a shell which does not wait for them,
	// and of pid1 when that has ended.
	s.spawn(output(shell(1, `i=0
		while [ $i -lt 20 ]; do
			sh -c 'i=0; while [ $i -lt 500 ]; do (exit 3) & i=$((i+1)); done'
			i=$((i+1))
		done
		echo done; exec sleep 1000`)))
	m, fds := s.spawned(1)
	readLine(t, fds[0])
	s.sync()
	// All orphans have ended or are about to; the last is gone with its zombie
	// when nobody but the run and the supervisor is a child of pid1.
	waitUntil(t, "no child of pid1 but two", func() bool { return len(allChildren(w.pid)) == 2 })
	if kids := allChildren(w.pid); !slices.Contains(kids, m.Pid) || !slices.Contains(kids, s.pid) {
		t.Errorf("pid1 has the children %v, want %d and %d", kids, m.Pid, s.pid)
	}
}

func TestPid1InANamespace(t *testing.T) {
	args := []string{"unshare", "--pid", "--fork", "--mount-proc"}
	if os.Getuid() != 0 {
		args = []string{"unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"}
		if err := exec.Command(args[0], append(args[1:], "true")...).Run(); err != nil {
			t.Skip("an ordinary user may not make a pid namespace here")
		}
	}
	w := start(t, setup{prefix: args, args: []string{"--container", "--config-dir", "/x", "--", "main", "arg"}, env: []string{"PATH=" + fakeServer(t) + ":" + os.Getenv("PATH")}})
	s := w.supervisor()
	if s.hello.Pid != 1 || s.hello.Mode != ipc.ModeContainer || strings.Join(s.hello.Main, " ") != "main arg" {
		t.Fatalf("hello is %+v", s.hello)
	}
	s.spawn(output(shell(1, `kill -TERM 1; kill -HUP 1; kill -PIPE 1; exec sleep 1000`)))
	_, fds := s.spawned(1)
	s.requested(unix.SIGTERM)
	s.requested(unix.SIGHUP)
	s.spawn(shell(2, `(setsid sleep 1000 &) ; exit 9`))
	if ex := s.exited(2); ex.Code != 9 {
		t.Errorf("run 2 ended with %+v", ex)
	}
	// Signals of the C library, while the first thread handles others.
	s.spawn(shell(3, `i=0; while [ $i -lt 2000 ]; do kill -PIPE 1; kill -32 1; kill -34 1; i=$((i+1)); done; exit 4`))
	if ex := s.exited(3); ex.Code != 4 {
		t.Errorf("run 3 ended with %+v", ex)
	}
	s.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltPoweroff, Code: 17})
	if code := w.wait(); code != 17 {
		t.Errorf("pid1 exited with %d, want 17", code)
	}
	readAll(t, fds[0])
}

// ordinary starts pid1 as an ordinary user.
func ordinary(t *testing.T) setup {
	t.Helper()
	if os.Getuid() != 0 {
		return setup{}
	}
	// The test binary may be where only root may go.
	dir, err := os.MkdirTemp("", "pid1-bin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	b, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	bin := dir + "/pid1"
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return setup{
		prefix: []string{"setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", "--no-new-privs", bin, "--subreaper", "--", bin, fakeName},
		args:   []string{},
	}
}

func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("all tests of this run are an ordinary user's")
		return
	}
	w := start(t, ordinary(t))
	s := w.supervisor()
	for _, path := range []string{"direct", "helper"} {
		sp := cleanSpawn(1)
		if path == "helper" {
			sp.Run, sp.Umask = 2, new(uint32)
		}
		got := seen(t, s, sp)
		checkClean(t, path, got)
		if got["Uid"] != strings.Repeat("12345\t", 3)+"12345" {
			t.Errorf("%s: uid is %q", path, got["Uid"])
		}
	}
	sp := shell(3, "true")
	sp.Cred = &ipc.Cred{UID: 0, GID: 0}
	s.spawn(sp)
	if m := s.failed(3); m.Stage != ipc.StageCred || m.Errno != int(unix.EPERM) || !strings.Contains(m.Message, "cannot become user 0, group 0") {
		t.Errorf("an ordinary user became root: %+v", m)
	}
	s.spawn(output(shell(4, "(trap '' TERM; echo $(exec sh -c 'echo $PPID'); exec sleep 1000) & exit 4")))
	_, fds := s.spawned(4)
	pid, _ := strconv.Atoi(readLine(t, fds[0]))
	if ex := s.exited(4); ex.Code != 4 || !ex.Left {
		t.Errorf("run 4 ended with %+v", ex)
	}
	s.send(ipc.KindSignal, ipc.Signal{Run: 4, Sig: 9, Scope: ipc.ScopeAll})
	s.emptied(4)
	if unix.Kill(pid, 0) != unix.ESRCH {
		t.Error("a process is left")
	}
}

// wait returns the exit code of pid1.
func (w *world) wait() int {
	w.t.Helper()
	select {
	case <-w.exited:
	case <-time.After(patience):
		w.t.Fatal("pid1 did not exit")
	}
	return w.cmd.ProcessState.ExitCode()
}

// exit ends this supervisor with a code.
func (s *super) exit(code byte) {
	s.ctl.Write([]byte{code})
	s.drop()
}

// closed waits until pid1 ends the link.
func (s *super) closed() {
	s.w.t.Helper()
	for {
		select {
		case _, ok := <-s.in:
			if !ok {
				return
			}
		case <-time.After(patience):
			s.w.t.Fatal("pid1 did not close the link")
		}
	}
}

func (s *super) requested(sig syscall.Signal) ipc.Requested {
	s.w.t.Helper()
	m, _ := await(s, ipc.KindRequested, func(m ipc.Requested) bool { return m.Signal == int(sig) })
	return m
}

// procStatus reads fields of /proc/PID/status from its text.
func procStatus(text string) map[string]string {
	m := map[string]string{}
	for _, l := range strings.Split(text, "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}
