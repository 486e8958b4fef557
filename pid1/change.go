package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// compatFlag asks a program whether it can go on with the state on its
	// stdin, and compatAnswer is how it says so.
	compatFlag   = "--compat"
	compatAnswer = "zinit-pid1 can go on\n"
	// stateEnv names the descriptor of the state to go on with.
	stateEnv = "ZINIT_PID1_STATE"
)

// changeTimeout is how long the program on disk may take for its answer, and
// after that how long spawns may be under way. A variable so that tests need
// not wait.
var changeTimeout = 10 * time.Second

// change is the replacement of pid1 by the program on disk, which SIGUSR2 asks
// for. It keeps its pid, its children and its descriptors over execve; all else
// it hands over as a state. It comes in three steps, each of which may end it
// with pid1 going on as before: the program is asked, with the state of the
// moment, whether it can go on from there; new spawns are held back until those
// under way have ended; then, in one turn of the keeper, the link is put to
// rest, the state is written, and pid1 executes.
type change struct {
	program string
	agreed  bool          // it can go on
	until   time.Duration // the end of patience with spawns under way
}

// state is what pid1 hands over. stateVersion is raised when a program that
// knows another would misread it; what may be left out needs no new one.
type state struct {
	Version int
	Zinit   string // the version of the writer
	Pid     int
	Mode    ipc.Mode
	Null    int
	// Runs, Seq, Unacked and Requests are of the table.
	Runs     map[ipc.RunID]*run
	Seq      uint64
	Unacked  map[uint64]time.Duration
	Requests map[int]request
	Store    fdStore
	Waiting  []*job
	// AckCheckAt is of the keeper. Link is the link of a supervisor that is
	// there.
	AckCheckAt time.Duration
	Supervisor supervisor
	Shell      emergencyShell
	Link       *ipc.Suspended
}

// Of these versions a state is read; it is written in the last one. In version 2 a
// supervisor may leave to pid1 what the environments of its orders have in common.
const (
	oldestState  = 1
	stateVersion = 2
)

// stateMagic begins a state, before a checksum of what follows.
const stateMagic = "zinit-pid1"

func (s *state) encode() ([]byte, error) {
	body, err := msgpack.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the state: %w", err)
	}
	head := binary.BigEndian.AppendUint32([]byte(stateMagic), crc32.ChecksumIEEE(body))
	return append(head, body...), nil
}

// decodeState reads a state, and refuses what this program cannot go on from.
func decodeState(b []byte) (*state, error) {
	sum, ok := bytes.CutPrefix(b, []byte(stateMagic))
	if !ok || len(sum) < 4 || binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(sum[4:]) {
		return nil, errors.New("it is no state of a zinit-pid1, or damaged")
	}
	var head struct{ Version int }
	if err := msgpack.Unmarshal(sum[4:], &head); err != nil {
		return nil, err
	}
	if head.Version < oldestState || head.Version > stateVersion {
		return nil, fmt.Errorf("it has version %d, zinit-pid1 %s reads %d to %d", head.Version, version.Version, oldestState, stateVersion)
	}
	var s state
	if err := msgpack.Unmarshal(sum[4:], &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// readState reads the state in an open file.
func readState(fd int) (*state, error) {
	b, err := readMemoryFile(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot read the state: %w", err)
	}
	s, err := decodeState(b)
	if err != nil {
		return nil, fmt.Errorf("cannot use the state: %w", err)
	}
	return s, nil
}

// compat answers whether this program can go on with the state on stdin.
func compat() {
	if _, err := readState(0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Stdout.WriteString(compatAnswer)
	os.Exit(0)
}

// ask has a program on disk answer whether it can go on with a state.
func (l *launcher) ask(program string, state []byte) error {
	memory, err := memoryFile("state", state)
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	attr := &syscall.ProcAttr{
		Files: []uintptr{uintptr(memory), w.Fd(), w.Fd()}, Env: os.Environ(),
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	l.forks <- struct{}{}
	kill, err := forkStranger(program, []string{program, compatFlag}, attr)
	<-l.forks
	w.Close()
	if err != nil {
		return fmt.Errorf("cannot execute it: %w", err)
	}
	defer kill()
	r.SetReadDeadline(time.Now().Add(changeTimeout))
	var answer []byte
	for b := make([]byte, 1024); len(answer) < len(b); {
		n, err := r.Read(b)
		answer = append(answer, b[:n]...)
		if string(answer) == compatAnswer {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("it does not answer within %s", changeTimeout)
		}
		if err != nil {
			break
		}
	}
	if len(answer) == 0 {
		return errors.New("it ends without an answer: is it a zinit-pid1?")
	}
	return fmt.Errorf("it says %q", trimmed(string(answer), 512))
}

// beginChange asks the program on disk.
func (k *keeper) beginChange() {
	if k.change != nil {
		return
	}
	k.change = &change{program: programPath()}
	program := k.change.program
	b, err := k.state(nil).encode()
	if err != nil {
		k.refuse(err)
		return
	}
	go func() { k.launcher.answers <- k.launcher.ask(program, b) }()
}

// programPath is the path that pid1 was started by: what is there now, even if
// the file that runs has been replaced.
func programPath() string {
	if path := os.Args[0]; filepath.IsAbs(path) && unix.Access(path, unix.X_OK) == nil {
		return path
	}
	return runningFile()
}

// answered takes the answer of the program on disk.
func (k *keeper) answered(err error) {
	if err != nil {
		k.refuse(err)
		return
	}
	k.change.agreed = true
	k.change.until = monotonic() + changeTimeout
}

// refuse ends a change: pid1 goes on as before.
func (k *keeper) refuse(err error) {
	k.log.error("pid1 is not replaced and goes on as before", "program", k.change.program, "error", err,
		"try", "install a zinit-pid1 that can take over, and send SIGUSR2 again")
	k.change = nil
	k.launchWaiting()
}

// held says whether new spawns have to wait for a change.
func (k *keeper) held() bool { return k.change != nil && k.change.agreed }

// dueChange makes the last step of a change as soon as nothing is under way.
func (k *keeper) dueChange(at func(time.Duration) bool) {
	if !k.held() {
		return
	}
	if k.quiet() {
		if err := k.execute(); err != nil {
			k.refuse(err)
			return
		}
	}
	if at(k.change.until) {
		k.refuse(fmt.Errorf("a spawn, or the start or end of a supervisor, has been under way for %s", changeTimeout))
	}
}

// quiet says whether no goroutine and no moment between two states has anything
// that the state could not hold.
func (k *keeper) quiet() bool {
	s := &k.sup
	up := s.Pid > 0 && s.conn != nil && s.told && !s.condemned
	if k.end.begun || k.forking > 0 || !up && (s.Pid > 0 || s.conn != nil) {
		return false
	}
	for _, r := range k.table.runs {
		if r.State == ipc.RunSpawning && r.Spawned.Pid != 0 {
			return false // the exec helper has not executed yet
		}
	}
	return true
}

// state is what there is to hand over.
func (k *keeper) state(link *ipc.Suspended) *state {
	return &state{
		Version: stateVersion, Zinit: version.Version, Pid: k.pid, Mode: k.opt.mode, Null: k.null,
		Runs: k.table.runs, Seq: k.table.seq, Unacked: k.table.unacked, Requests: k.table.requests,
		Store: k.store, Waiting: k.waiting,
		AckCheckAt: k.ackCheckAt, Supervisor: k.sup, Shell: k.shell, Link: link,
	}
}

// fds are all descriptors that the state names.
func (s *state) fds() []int {
	if s == nil {
		return nil
	}
	fds := []int{s.Null}
	for _, fd := range s.Store {
		fds = append(fds, fd)
	}
	for _, j := range s.Waiting {
		fds = append(fds, j.Opened...)
	}
	if s.Link != nil {
		fds = append(fds, s.Link.Fds()...)
	}
	return fds
}

// execute replaces pid1. It returns nil if something came in between, which is
// to be handled first, and an error if it cannot be done.
func (k *keeper) execute() error {
	k.log.flush()
	conn := k.sup.conn
	if conn != nil {
		if !k.rest(conn) {
			return nil
		}
		defer func() {
			conn.Resume()
			go k.readLink(conn)
		}()
	}
	k.signalled(k.sigs.take())
	if !k.quiet() {
		return nil
	}
	var link *ipc.Suspended
	if conn != nil {
		s, err := conn.State()
		if err != nil {
			return nil // closed: its reader will say so
		}
		link = &s
	}
	s := k.state(link)
	b, err := s.encode()
	if err != nil {
		return err
	}
	memory, err := memoryFile("state", b)
	if err != nil {
		return fmt.Errorf("cannot write the state: %w", err)
	}
	defer unix.Close(memory)
	fds := append(s.fds(), memory)
	defer inherit(fds, false)
	if err := inherit(fds, true); err != nil {
		return err
	}
	env := append(os.Environ(), stateEnv+"="+strconv.Itoa(memory))
	if k.sigs.waiting() {
		return nil
	}
	return execSelf(k.change.program, env, k.sigs)
}

// rest puts the link to rest, and handles what was read of it. It says whether
// the link is still there.
func (k *keeper) rest(conn *ipc.Conn) bool {
	conn.Suspend()
	for {
		m := <-k.inbound
		if m.conn == conn && m.err == ipc.ErrSuspended {
			return true
		}
		k.received(m)
		if m.conn == conn && m.err != nil {
			return false
		}
	}
}

// inherit makes descriptors survive an execve, or not.
func inherit(fds []int, yes bool) error {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return fmt.Errorf("cannot hand over descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// inherited is the state of the program that this process was before, nil if it
// was none.
func inherited(pid int) (*state, error) {
	value, ok := os.LookupEnv(stateEnv)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(stateEnv)
	fd, err := strconv.Atoi(value)
	if err != nil {
		return nil, nil
	}
	s, err := readState(fd)
	unix.Close(fd)
	if err == nil && s.Pid != pid {
		err = fmt.Errorf("it is that of process %d", s.Pid)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// takeOver goes on with an inherited state, and says whether there is one.
func (k *keeper) takeOver(s *state, err error) bool {
	if err != nil {
		// It could before. Whose the children are nobody knows now, and a
		// supervisor would start all services again beside them.
		k.log.error("what runs is not known any more: ending all of it, to start afresh", "error", err)
		k.signalLeft(unix.SIGKILL)
	}
	if s == nil {
		return false
	}
	unix.Close(k.null)
	k.opt.mode, k.null = s.Mode, s.Null
	k.table.restore(s)
	for pid := range k.table.pids {
		k.children.know(pid)
	}
	k.children.know(s.Supervisor.Pid)
	k.children.know(s.Shell.Pid)
	k.store, k.waiting = s.Store, s.Waiting
	if s.Shell.Shown != nil {
		k.shell = s.Shell
	}
	if k.sup = s.Supervisor; s.Link != nil {
		k.ackCheckAt = s.AckCheckAt
		if k.sup.conn, err = ipc.Restore(*s.Link); err != nil {
			k.log.error("the link to the supervisor is lost: killing it", "error", err)
			k.killSupervisor()
		} else {
			k.sup.told = true
			go k.readLink(k.sup.conn)
		}
	}
	k.log.info("pid1 has been replaced, and keeps what runs", "version", version.Version, "before", s.Zinit, "runs", len(s.Runs))
	for _, r := range s.Runs {
		if len(r.Owed) > 0 {
			k.owe(r)
		}
	}
	for _, r := range k.table.left {
		k.recheck(r)
	}
	k.launchWaiting()
	return true
}

// restore fills an empty table.
func (t *table) restore(s *state) {
	for id, r := range s.Runs {
		t.runs[id] = r
		switch {
		case r.State == ipc.RunRunning:
			t.pids[r.Spawned.Pid] = r
		case r.State == ipc.RunExited && !r.Emptied:
			t.left[id] = r
		}
	}
	for seq, told := range s.Unacked {
		t.unacked[seq] = told
	}
	for sig, r := range s.Requests {
		t.requests[sig] = r
	}
	t.seq = s.Seq
}
