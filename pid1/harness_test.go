package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// The test binary is four programs: pid1 and its exec helper, which run this
// package's main, a supervisor that hands its end of the link to the test and
// waits to be killed, and who starts that and becomes pid1.
const (
	envRole   = "PID1_TEST_ROLE"
	envSocket = "PID1_TEST_SOCKET"
	envHello  = "PID1_TEST_HELLO_TIMEOUT"
	envAck    = "PID1_TEST_ACK_TIMEOUT"
	envDies   = "PID1_TEST_DIES"
	envTerm   = "PID1_TEST_PATIENCE"
	envChange = "PID1_TEST_CHANGE_TIMEOUT"
	envCrowd  = "PID1_TEST_CROWD"
	envPause  = "PID1_TEST_STOP_PAUSE"
	fakeName  = "fake-supervisor"
	beginName = "begin-supervisor"
	groupName = "in-own-group"
)

func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == helperName:
		main()
	case len(os.Args) > 1 && os.Args[1] == fakeName:
		fakeSupervisor()
	case len(os.Args) > 1 && os.Args[1] == beginName:
		beginSupervisor()
	case len(os.Args) > 2 && os.Args[1] == groupName:
		// What an interactive shell does with a job.
		unix.Setpgid(0, 0)
		unix.Exec("/bin/sh", append([]string{"sh", "-c"}, os.Args[2:]...), os.Environ())
	case os.Getenv(envRole) == "pid1":
		for name, limit := range map[string]*time.Duration{
			envHello: &helloTimeout, envAck: &ackTimeout, envTerm: &shutdownPatience, envChange: &changeTimeout, envPause: &stopPause,
		} {
			if d, err := time.ParseDuration(os.Getenv(name)); err == nil {
				*limit = d
			}
		}
		if n, err := strconv.Atoi(os.Getenv(envCrowd)); err == nil {
			crowd = n
		}
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fakeSupervisor gives the link away. It ends with the code that the test
// sends.
func fakeSupervisor() {
	c, err := net.Dial("unix", os.Getenv(envSocket))
	if err != nil {
		os.Exit(3)
	}
	uc := c.(*net.UnixConn)
	if _, _, err := uc.WriteMsgUnix([]byte(strconv.Itoa(os.Getpid())), unix.UnixRights(keeperFd), nil); err != nil {
		os.Exit(4)
	}
	unix.Close(keeperFd)
	b := make([]byte, 1)
	if _, err := uc.Read(b); err != nil {
		unix.Poll(nil, -1)
	}
	// Not os.Exit, in which the race detector waits for a second.
	syscall.Exit(int(b[0]))
}

// beginSupervisor starts a supervisor and becomes pid1, as zinit-server does.
func beginSupervisor() {
	p, err := ipc.SocketPair()
	if err != nil {
		os.Exit(5)
	}
	server := []string{os.Args[0], fakeName}
	begun := server
	if os.Getenv(envDies) != "" {
		begun = []string{"/bin/false"}
	}
	pid, err := syscall.ForkExec(begun[0], begun, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, uintptr(p[1])}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		os.Exit(6)
	}
	unix.FcntlInt(uintptr(p[0]), unix.F_SETFD, 0)
	flag := fmt.Sprintf("%s%d,%d", begunFlag, pid, p[0])
	unix.Exec(os.Args[0], append([]string{os.Args[0], "--subreaper", flag, "--"}, server...), os.Environ())
}

// patience is how long a test waits for something that has to happen.
const patience = 60 * time.Second

// world is a running pid1 and the place where its supervisors announce
// themselves.
type world struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	socket *net.UnixListener
	stderr *lockedBuffer
	pid    int // as pid1's parent sees it
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// setup changes how pid1 is started.
type setup struct {
	args   []string // default: --subreaper with the fake supervisor
	env    []string
	prefix []string // a command that executes pid1
	files  []*os.File
}

func start(t *testing.T, s setup) *world {
	t.Helper()
	// Not t.TempDir, which an ordinary user may not enter.
	dir, err := os.MkdirTemp("", "pid1-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o755)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, stderr: &lockedBuffer{}, exited: make(chan struct{})}
	addr := &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "announce")}
	if w.socket, err = net.ListenUnix("unix", addr); err != nil {
		t.Fatal(err)
	}
	os.Chmod(addr.Name, 0o777)
	if s.args == nil {
		s.args = []string{"--subreaper", "--", self(t), fakeName}
	}
	argv := append(append(s.prefix, self(t)), s.args...)
	w.cmd = exec.Command(argv[0], argv[1:]...)
	w.cmd.Env = append(os.Environ(), envRole+"=pid1", envSocket+"="+addr.Name)
	w.cmd.Env = append(w.cmd.Env, s.env...)
	w.cmd.Stdout, w.cmd.Stderr = w.stderr, w.stderr
	w.cmd.WaitDelay = time.Second
	w.cmd.ExtraFiles = s.files
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.pid = w.cmd.Process.Pid
	go func() {
		w.cmd.Wait()
		close(w.exited)
	}()
	t.Cleanup(func() {
		if strings.Contains(w.stderr.String(), "DATA RACE") || strings.Contains(w.stderr.String(), "a bug in zinit-pid1") {
			t.Error("pid1 has a bug")
		}
		if t.Failed() {
			t.Logf("pid1 said:\n%s", w.stderr)
		}
		w.socket.Close()
		// And its children, which nobody would end any more.
		below := withDescendants(allChildren(w.pid))
		w.cmd.Process.Kill()
		for _, pid := range below {
			unix.Kill(pid, unix.SIGKILL)
		}
		<-w.exited
	})
	return w
}

// self is the path of the test binary.
func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// gate is a named pipe at which runs wait, by reading a line. The test holds it
// open, so that it does not matter who comes first.
type gate struct {
	*os.File
	t *testing.T
}

func (w *world) gate() gate {
	w.t.Helper()
	path := filepath.Join(w.dir, "gate")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { f.Close() })
	return gate{f, w.t}
}

// open lets n runs go on.
func (g gate) open(n int) {
	g.t.Helper()
	if _, err := g.WriteString(strings.Repeat("\n", n)); err != nil {
		g.t.Fatal(err)
	}
}

// super is one life of the supervisor, played by the test.
type super struct {
	w     *world
	conn  *ipc.Conn
	raw   int // a duplicate of the link's end, for what is no frame
	ctl   *net.UnixConn
	pid   int // as pid1 sees it
	hello ipc.KeeperHello
	runs  map[ipc.RunID]ipc.Run
	fds   map[string]int
	in    chan ipc.Frame
	// kept are frames that came while another was waited for.
	kept []ipc.Frame
}

// supervisor waits for the next supervisor, greets, and reads what pid1 knows.
func (w *world) supervisor() *super {
	w.t.Helper()
	s := w.mute()
	s.send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: "test"})
	for {
		f := s.next()
		switch f.Kind {
		case ipc.KindHello:
			s.decode(f, &s.hello)
		case ipc.KindRun:
			var r ipc.Run
			s.decode(f, &r)
			s.runs[r.Run] = r
		case ipc.KindFd:
			var m ipc.Fd
			s.decode(f, &m)
			s.fds[m.Name] = f.Fds[0]
		case ipc.KindReady:
			return s
		default:
			w.t.Fatalf("pid1 sent a message of kind %d before Ready", f.Kind)
		}
	}
}

// mute waits for the next supervisor and says nothing.
func (w *world) mute() *super {
	w.t.Helper()
	w.socket.SetDeadline(time.Now().Add(patience))
	c, err := w.socket.AcceptUnix()
	if err != nil {
		w.t.Fatalf("no supervisor was started: %v", err)
	}
	b, oob := make([]byte, 32), make([]byte, 64)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		w.t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		w.t.Fatalf("the supervisor announced itself without its link: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		w.t.Fatal(err)
	}
	s := &super{w: w, ctl: c, runs: map[ipc.RunID]ipc.Run{}, fds: map[string]int{}, in: make(chan ipc.Frame, 1024)}
	s.pid, _ = strconv.Atoi(string(b[:n]))
	if s.raw, err = dup(fds[0]); err != nil {
		w.t.Fatal(err)
	}
	if s.conn, err = ipc.NewConn(fds[0]); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(s.in)
		for {
			f, err := s.conn.Read()
			if err != nil {
				return
			}
			s.in <- f
		}
	}()
	w.t.Cleanup(func() { s.drop() })
	return s
}

// drop closes the test's ends without ending the supervisor.
func (s *super) drop() {
	s.conn.Close()
	if s.raw >= 0 {
		unix.Close(s.raw)
		s.raw = -1
	}
	for n, fd := range s.fds {
		unix.Close(fd)
		delete(s.fds, n)
	}
}

// kill ends this supervisor at once.
func (s *super) kill() {
	s.w.t.Helper()
	if err := unix.Kill(s.pid, unix.SIGKILL); err != nil {
		s.w.t.Fatalf("cannot kill the supervisor: %v", err)
	}
	s.drop()
}

func (s *super) send(kind ipc.Kind, body any, fds ...int) {
	s.w.t.Helper()
	if err := s.conn.Send(kind, body, fds...); err != nil {
		s.w.t.Fatalf("cannot send to pid1: %v", err)
	}
}

func (s *super) decode(f ipc.Frame, into any) {
	s.w.t.Helper()
	if err := f.Decode(into); err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *super) next() ipc.Frame {
	s.w.t.Helper()
	select {
	case f, ok := <-s.in:
		if !ok {
			s.w.t.Fatal("pid1 closed the link")
		}
		return f
	case <-time.After(patience):
		s.w.t.Fatal("pid1 said nothing more")
	}
	panic("not reached")
}

// await returns the next message of a kind that fits, and keeps the others in
// their order for later.
func await[M any](s *super, kind ipc.Kind, fits func(M) bool) (M, ipc.Frame) {
	s.w.t.Helper()
	kept := s.kept
	s.kept = nil
	for {
		var f ipc.Frame
		if len(kept) > 0 {
			f, kept = kept[0], kept[1:]
		} else {
			f = s.next()
		}
		if f.Kind == kind {
			var m M
			s.decode(f, &m)
			if fits(m) {
				s.kept = append(s.kept, kept...)
				return m, f
			}
		}
		s.kept = append(s.kept, f)
	}
}

func (s *super) spawned(id ipc.RunID) (ipc.Spawned, []int) {
	s.w.t.Helper()
	m, f := await(s, ipc.KindSpawned, func(m ipc.Spawned) bool { return m.Run == id })
	for _, fd := range f.Fds {
		s.w.t.Cleanup(func() { unix.Close(fd) })
	}
	return m, f.Fds
}

func (s *super) failed(id ipc.RunID) ipc.SpawnFailed {
	s.w.t.Helper()
	m, _ := await(s, ipc.KindSpawnFailed, func(m ipc.SpawnFailed) bool { return m.Run == id })
	return m
}

func (s *super) exited(id ipc.RunID) ipc.Exited {
	s.w.t.Helper()
	m, _ := await(s, ipc.KindExited, func(m ipc.Exited) bool { return m.Run == id })
	s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
	return m
}

func (s *super) emptied(id ipc.RunID) {
	s.w.t.Helper()
	m, _ := await(s, ipc.KindEmptied, func(m ipc.Emptied) bool { return m.Run == id })
	s.send(ipc.KindAck, ipc.Ack{Seq: m.Seq})
}

// sync waits until pid1 has handled everything sent so far.
func (s *super) sync() {
	s.w.t.Helper()
	const bad = ipc.RunID(1) << 62
	s.send(ipc.KindSpawn, ipc.Spawn{Run: bad, Tag: "sync"})
	s.failed(bad)
}

// shell is the order of a shell command.
func shell(id ipc.RunID, script string) ipc.Spawn {
	return ipc.Spawn{Run: id, Tag: fmt.Sprint("run", id), Argv: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}}
}

// output adds a pipe for stdout.
func output(sp ipc.Spawn) ipc.Spawn {
	sp.Pipes = append(sp.Pipes, ipc.Pipe{Name: ipc.LogFd(sp.Run, "stdout", sp.Tag), Fd: 1})
	return sp
}

func (s *super) spawn(sp ipc.Spawn) {
	s.w.t.Helper()
	s.send(ipc.KindSpawn, sp)
}

// readLine reads up to a newline from a nonblocking pipe.
func readLine(t *testing.T, fd int) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(patience.Milliseconds())); err == unix.EINTR {
			continue
		} else if n == 0 || err != nil {
			t.Fatalf("nothing to read after %q: %v", line, err)
		}
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil || n == 0:
			t.Fatalf("the pipe ended after %q: %v", line, err)
		case b[0] == '\n':
			return string(line)
		default:
			line = append(line, b[0])
		}
	}
}

// readAll reads until every writer has closed.
func readAll(t *testing.T, fd int) string {
	t.Helper()
	var text []byte
	for b := make([]byte, 4096); ; {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(patience.Milliseconds())); err == unix.EINTR {
			continue
		} else if n == 0 || err != nil {
			t.Fatalf("the pipe did not end after %q: %v", text, err)
		}
		n, err := unix.Read(fd, b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			t.Fatal(err)
		case n == 0:
			return string(text)
		default:
			text = append(text, b[:n]...)
		}
	}
}

// waitUntil looks again and again for something that no event tells of.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("still waiting for: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
