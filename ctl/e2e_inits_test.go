//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// zinit-pid1 with a main command stands in for tini, dumb-init and catatonit.
// What it does in each situation that an init of a container comes into is
// tested here; `make compare-init` puts them side by side.

// initProgram is an init and what stands before the command that it runs.
type initProgram struct {
	name string
	argv []string
}

var zinitAsInit = initProgram{"zinit", []string{"zinit-pid1", "--container", "--shutdown-timeout=1s", "--"}}

// situation is a main command and what happens to it.
type situation struct {
	name string
	// script is the main command, for sh; command is one that is none.
	script  string
	command []string
	// want is what has to be printed, and the exit code of the init behind it.
	want string
	// meanwhile is done when the script has printed a line "up", which is not
	// counted, or early, before there is a script.
	meanwhile func(*trial)
	early     bool
	// before makes a command of the init and its arguments that executes it.
	before func(argv []string) []string
	// flags are more of them for zinit-pid1.
	flags []string
	// services are beside the main command: text by name.
	services map[string]string
	// terminal gives it one; outside is the init that is not PID 1.
	terminal, outside bool
}

// waits is the end of a script that waits for its signals.
const waits = "; echo up; while :; do sleep 1000 & wait $!; done"

// endWait ends what such a script waits with.
const endWait = "kill $! 2>/dev/null"

var situations = append(forwarded(
	"TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "ALRM", "CONT", "RTMIN+1"),
	situation{name: "exit code 0", script: "true", want: "0"},
	situation{name: "exit code 42", script: "exit 42", want: "42"},
	situation{name: "killed by SIGKILL", script: "kill -KILL $$", want: "137"},
	situation{name: "command is not there", command: []string{"/no/such/program"}, want: "127"},
	situation{name: "command is no program", command: []string{"/etc/passwd"}, want: "126"},
	situation{
		name: "a script without an interpreter", want: "ran word 0", command: []string{"./plain", "word"},
		before: wrapped(`echo 'echo ran $1' >plain; chmod 755 plain; exec "$@"`),
	},
	situation{
		name: "a script whose interpreter is missing", want: "127", command: []string{"./bad"},
		before: wrapped(`echo '#!/no/such/program' >bad; chmod 755 bad; exec "$@"`),
	},
	situation{
		name: "orphans are reaped", want: "reaped 0",
		script: `sh -c 'for i in 1 2 3 4 5; do (true &); done'
			while grep -q ') Z ' /proc/[0-9]*/stat 2>/dev/null; do :; done; echo reaped`,
	},
	situation{
		name: "and where it is not PID 1", want: "reaped 0", outside: true,
		script: `pid=$(sh -c 'sleep 1000 >/dev/null & echo $!')
			parent=$(cut -d' ' -f4 /proc/$pid/stat); kill -KILL $pid
			if [ $parent = $PPID ]; then while [ -e /proc/$pid ]; do :; done; echo reaped; fi`,
	},
	situation{
		name: "a daemon left behind may clean up", want: "cleaned 0",
		script: `mkfifo ready; setsid sh -c 'trap "echo cleaned; exit" TERM; echo >ready; while :; do sleep 0.01; done' & read x <ready`,
	},
	situation{
		name: "stopped by SIGTSTP and continued", want: "stopped on 3",
		script: "trap 'echo on; " + endWait + "; exit 3' CONT" + waits,
		meanwhile: func(t *trial) {
			t.kill(unix.SIGTSTP)
			if t.eventually(func() bool { return t.main().state == 'T' }) {
				t.say("stopped")
			}
			t.kill(unix.SIGCONT)
		},
	},
	situation{
		name: "stopped by itself and continued", want: "on 3", script: "echo up; kill -STOP $$; echo on; exit 3",
		meanwhile: func(t *trial) {
			t.eventually(func() bool { return t.main().state == 'T' })
			t.kill(unix.SIGCONT)
		},
	},
	situation{
		name: "stopped, and ended by SIGTERM", want: "bye 4", script: "trap 'echo bye; exit 4' TERM; echo up; kill -STOP $$",
		meanwhile: func(t *trial) {
			t.eventually(func() bool { return t.main().state == 'T' })
			t.kill(unix.SIGTERM)
		},
	},
	situation{
		name: "ignores SIGTERM", want: "137", script: "trap '' TERM; echo up; while :; do sleep 1000; done",
		meanwhile: func(t *trial) { t.kill(unix.SIGTERM) },
	},
	situation{
		name: "stopped by ptrace, then SIGTERM", want: "137", script: "echo up; exec sleep 1000",
		meanwhile: func(t *trial) {
			release := trace(t, t.main().pid)
			t.kill(unix.SIGTERM)
			if !t.ended() {
				t.say("hangs")
				t.killAll()
			}
			release()
		},
	},
	situation{
		name: "no stdin, stdout and stderr", want: "7", script: "exit 7",
		before: func(argv []string) []string {
			return append([]string{"sh", "-c", `exec "$@" <&- >&- 2>&-`, "sh"}, argv...)
		},
	},
	situation{
		name: "blocked signals are not inherited", want: "0000000000000000 0", script: status("SigBlk"),
		before: carelessly,
	},
	situation{
		name: "ignored signals are not inherited", want: "0000000000000000 0", script: status("SigIgn"),
		before: carelessly,
	},
	situation{
		name: "leaked descriptors are not inherited", want: "0",
		script: "for fd in 9 77; do if [ -e /proc/$$/fd/$fd ]; then echo $fd leaks; fi; done",
		before: carelessly,
	},
	situation{
		name: "terminal: in the foreground", want: "yes 0", terminal: true,
		script: `set -- $(cut -d' ' -f5,8 /proc/$$/stat); test $1 = $2 && echo yes`,
	},
	situation{
		name: "terminal: reads what is typed", want: "got word 0", terminal: true,
		script:    "stty -echo; echo up; read x; echo got $x",
		meanwhile: func(t *trial) { t.typed("word\n") },
	},
	situation{
		name: "terminal: Ctrl-C", want: "interrupted 5", terminal: true,
		script:    "stty -echo; trap 'echo interrupted; " + endWait + "; exit 5' INT" + waits,
		meanwhile: func(t *trial) { t.typed("\x03") },
	},
	situation{
		name: "terminal: a new size", want: "50 132 6", terminal: true,
		script: "stty -echo; trap 'stty size; " + endWait + "; exit 6' WINCH" + waits,
		meanwhile: func(t *trial) {
			unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132})
		},
	},
	situation{
		name: "terminal: job control of a shell", want: "stopped again 0", terminal: true,
		// A shell that reads commands, as a user types them: Ctrl-Z stops the
		// job, fg has it go on.
		script: "stty -echo; echo up; exec sh -i 2>/dev/null",
		meanwhile: func(t *trial) {
			job := func() procEntry { return t.below("sleep 999") }
			t.typed("sleep 999\n")
			if !t.eventually(func() bool { j := job(); return j.state == 'S' && t.foreground(j) }) {
				return
			}
			t.typed("\x1a")
			t.eventually(func() bool { return job().state == 'T' && !t.foreground(job()) })
			t.say("stopped")
			t.typed("fg >/dev/null\n")
			if t.eventually(func() bool { return job().state == 'S' && t.foreground(job()) }) {
				t.say("again")
			}
			t.typed("\x03")
			t.eventually(func() bool { return job().pid == 0 })
			t.typed("exit 0\n")
		},
	},
	situation{
		name: "terminal: end of input", want: "0", terminal: true, script: "stty -echo; echo up; exec cat",
		meanwhile: func(t *trial) { t.typed("\x04") },
	},
)

// forwarded has a situation for each signal: the main command gets that, and
// ends as it likes.
func forwarded(names ...string) []situation {
	var list []situation
	for _, name := range names {
		list = append(list, situation{
			name:      "SIG" + name + " reaches the command",
			script:    "trap 'echo " + name + "; " + endWait + "; exit 3' " + name + waits,
			want:      name + " 3",
			meanwhile: func(t *trial) { t.kill(signalNumber(name)) },
		})
	}
	return list
}

func signalNumber(name string) syscall.Signal {
	if name == "RTMIN+1" {
		return 35 // C libraries have the first two for themselves
	}
	return unix.SignalNum("SIG" + name)
}

// wrapped executes an init by a shell script that does something before.
func wrapped(script string) func([]string) []string {
	return func(argv []string) []string { return append([]string{"sh", "-c", script, "sh"}, argv...) }
}

// carelessly executes an init with signals blocked and ignored, and with open
// descriptors.
func carelessly(argv []string) []string { return []string{"svc", "launch=" + strings.Join(argv, " ")} }

// status prints a field of proc_pid_status(5) of the main command.
func status(field string) string { return "grep ^" + field + ": /proc/$$/status | cut -f2" }

// trial is an init in a situation.
type trial struct {
	stage
	cmd     *exec.Cmd
	done    chan struct{} // closed when the init has ended
	limit   time.Duration
	outside bool
	master  *os.File // of the terminal, or nil

	errors bytes.Buffer // its stderr, complete when it has ended

	mu  sync.Mutex
	out strings.Builder
}

func (t *trial) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.Write(b)
}

func (t *trial) output() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.out.String()
}

// say adds what the outside has seen to what the command prints.
func (t *trial) say(word string) { fmt.Fprintln(t, word) }

func (t *trial) eventually(ok func() bool) bool {
	return eventually(t.limit, func() error {
		if ok() {
			return nil
		}
		select {
		case <-t.done:
			return nil
		default:
			return fmt.Errorf("not yet")
		}
	}) == nil && ok()
}

// init is the process of the init, as seen from outside.
func (t *trial) init() int {
	if t.outside {
		return t.cmd.Process.Pid
	}
	for _, p := range allProcesses() {
		if p.parent == t.cmd.Process.Pid {
			return p.pid
		}
	}
	return 0
}

// main is the process of the main command.
func (t *trial) main() procEntry {
	init := t.init()
	for _, p := range allProcesses() {
		if init != 0 && p.parent == init && !strings.HasPrefix(p.name, "zinit-") {
			return p
		}
	}
	return procEntry{}
}

// below finds a process by its command line.
func (t *trial) below(command string) procEntry {
	for _, p := range t.own() {
		if p.command() == command {
			return p
		}
	}
	return procEntry{}
}

// kill signals the init; pid 0 would be the group of the test.
func (t *trial) kill(sig syscall.Signal) {
	if pid := t.init(); pid > 0 {
		unix.Kill(pid, sig)
	}
}

// release writes a line to a named pipe, as soon as somebody reads it.
func (t *trial) release(pipe string) {
	t.eventually(func() bool {
		f, err := os.OpenFile(filepath.Join(t.cmd.Dir, pipe), os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return false // ENXIO: there is no reader yet
		}
		defer f.Close()
		f.WriteString("\n")
		return true
	})
}

func (t *trial) typed(text string) { t.master.WriteString(text) }

// foreground says whether a process is in the foreground of the terminal.
func (t *trial) foreground(p procEntry) bool {
	pgrp, err := unix.IoctlGetInt(int(t.master.Fd()), unix.TIOCGPGRP)
	return err == nil && p.group == pgrp
}

// ended waits for the end of the init.
func (t *trial) ended() bool {
	select {
	case <-t.done:
		return true
	case <-time.After(t.limit):
		return false
	}
}

// startTrial starts an init. limit is how long it may take.
func startTrial(dir, bin string, init initProgram, s situation, limit time.Duration) (*trial, error) {
	command := s.command
	if command == nil {
		file := filepath.Join(dir, "script")
		if err := os.WriteFile(file, []byte(s.script+"\n"), 0o644); err != nil {
			return nil, err
		}
		command = []string{"sh", file}
	}
	services := filepath.Join(dir, "services")
	for name, text := range s.services {
		if err := errors.Join(os.MkdirAll(services, 0o755), os.WriteFile(filepath.Join(services, name+".toml"), []byte(text), 0o644)); err != nil {
			return nil, err
		}
	}
	argv := append(slices.Insert(slices.Clone(init.argv), 1, s.flags...), command...)
	if s.before != nil {
		argv = s.before(argv)
	}
	if s.terminal {
		argv = append([]string{"setsid", "--ctty"}, argv...)
	}
	if !s.outside {
		prefix := []string{"unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"}
		if os.Getuid() != 0 {
			prefix = append(prefix, "--user", "--map-root-user")
		}
		argv = append(prefix, argv...)
	}
	path := bin + ":" + os.Getenv("PATH")
	t := &trial{
		stage: stage{mark: "ZINIT_STORY=" + dir},
		cmd:   exec.Command("env", argv...), // which looks in the new PATH
		done:  make(chan struct{}), limit: limit, outside: s.outside,
	}
	t.cmd.Dir = dir
	t.cmd.Env = append(os.Environ(), t.mark, "PATH="+path, "ENV=", "PS1=",
		"ZINIT_SOCKET="+dir+"/z.sock", "ZINIT_CONFIG_DIR="+services, "ZINIT_LOG_LEVEL=error")
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	t.cmd.WaitDelay = time.Second
	t.cmd.Stdout, t.cmd.Stderr = t, &t.errors
	if s.terminal {
		master, slave, err := newTerminal()
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		t.master = master
		t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for b := make([]byte, 4096); t.master != nil; {
			n, err := t.master.Read(b) // EIO when nobody has the terminal any more
			t.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	go func() {
		t.cmd.Wait()
		t.killAll() // what a peer leaves, or it would keep the terminal
		<-read
		close(t.done)
	}()
	return t, nil
}

// outcome is what the situation came to.
func (t *trial) outcome(s situation) string {
	if s.meanwhile != nil && !s.early {
		t.eventually(func() bool { return strings.Contains(t.output(), "up") })
	}
	if s.meanwhile != nil {
		s.meanwhile(t)
	}
	ended := t.ended()
	if !ended {
		t.killAll()
		<-t.done
	}
	if t.master != nil {
		t.master.Close()
	}
	var words []string
	for _, word := range strings.Fields(t.output()) {
		if word != "up" {
			words = append(words, word)
		}
	}
	if !ended {
		return strings.Join(append(words, "hangs"), " ")
	}
	return strings.Join(append(words, fmt.Sprint(t.cmd.ProcessState.ExitCode())), " ")
}

// newTerminal opens a pseudo terminal that controls no session.
func newTerminal() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
	}
	return master, slave, err
}

// trace stops a process as a debugger does, and has release wait until it has
// been killed or is let go of.
func trace(t *trial, pid int) (release func()) {
	stopped, released := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(released)
		runtime.LockOSThread() // the tracer is a thread; it ends with the goroutine
		err := unix.PtraceSeize(pid)
		if err == nil {
			err = unix.PtraceInterrupt(pid)
		}
		var status unix.WaitStatus
		if err == nil {
			_, err = unix.Wait4(pid, &status, unix.WALL, nil)
		}
		stopped <- err
		if err == nil {
			unix.Wait4(pid, &status, unix.WALL, nil) // of its end the tracer hears first
		}
	}()
	if err := <-stopped; err != nil {
		t.say(err.Error())
	}
	return func() { <-released }
}

func TestStandsInForOtherInits(t *testing.T) {
	playSituations(t, situations, func(t *testing.T, s situation, got string, _ *trial) {
		if got != s.want {
			t.Errorf("it came to %q, expected %q", got, s.want)
		}
	})
}

// playSituations has zinit in each of them, up to atOnce at a time, and what came
// of it judged.
func playSituations(t *testing.T, list []situation, judge func(t *testing.T, s situation, got string, trial *trial)) {
	bin := livePrograms(t)
	slots := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for _, s := range list {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(s.name, func(t *testing.T) {
				trial, err := startTrial(shortTempDir(t), bin, zinitAsInit, s, patience)
				if err != nil {
					t.Fatal(err)
				}
				judge(t, s, trial.outcome(s), trial)
			})
		})
	}
	running.Wait()
}
