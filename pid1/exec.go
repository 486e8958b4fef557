package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vmihailenco/msgpack/v5"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// helperName is the argv[0] of the exec helper: zinit-pid1 itself, executed in
// a new child. It applies what Go cannot between fork and execve, reports the
// first thing that is refused, and turns into the program.
const helperName = "zinit-exec"

// helperSpec is what pid1 hands to the helper.
type helperSpec struct {
	Path  string    `msgpack:"path"`
	Spawn ipc.Spawn `msgpack:"spawn"`
}

// places are where the program may be: where pid1 has found it, and, as its user may
// not be able to enter there, those of PATH behind.
func (s *helperSpec) places() []string {
	name := s.Spawn.Argv[0]
	if strings.Contains(name, "/") {
		return []string{s.Path}
	}
	all := candidates(name, envPath(s.Spawn.Env))
	return all[max(slices.Index(all, s.Path), 0):]
}

// goesOn says that execvp(3) looks further after such an error. It is told only if
// nothing else is found.
func goesOn(e syscall.Errno) bool {
	return e == unix.EACCES || e == unix.ENOENT || e == unix.ENOTDIR
}

// step is one thing that the helper does: what it is called if it fails, and
// about which path.
type step struct {
	stage string
	path  string
	do    func() syscall.Errno
}

// execHelper never returns. Its descriptors are in place already; spec and
// status are the two after them.
func execHelper(arg string) {
	// Identity, capabilities and niceness are those of a thread, and execve
	// takes those of the thread that calls it.
	runtime.LockOSThread()
	specFd, err := strconv.Atoi(arg)
	if err != nil {
		os.Exit(127)
	}
	status := specFd + 1
	unix.CloseOnExec(specFd)
	unix.CloseOnExec(status)
	var spec helperSpec
	if err := readSpec(specFd, &spec); err != nil {
		report(status, ipc.StageFork, unix.EPROTO, "")
	}
	// All memory is taken before the first limit is set: from then on, and
	// under RLIMIT_AS above all, there are only system calls.
	steps, err := plan(&spec)
	if err != nil {
		report(status, ipc.StageExec, unix.EINVAL, spec.Path)
	}
	// The runtime has raised the soft limit on open files, remembers the old
	// one for itself and restores it in Exec, even if there is nothing to
	// execute.
	syscall.Exec("", nil, nil)
	for i := range steps {
		if e := steps[i].do(); e != 0 {
			report(status, steps[i].stage, e, steps[i].path)
		}
	}
}

// readSpec decodes what pid1 wrote into the memory file.
func readSpec(fd int, spec *helperSpec) error {
	b, err := readMemoryFile(fd)
	if err != nil {
		return err
	}
	return msgpack.Unmarshal(b, spec)
}

// report tells pid1 what went wrong and ends.
func report(status int, stage string, e syscall.Errno, path string) {
	unix.Write(status, []byte(fmt.Sprintf("%s\x00%d\x00%s", stage, int(e), path)))
	os.Exit(127)
}

// listenEnv replaces the variables of sd_listen_fds(3). LISTEN_PID has to be
// the pid of the program, which the helper is already.
func listenEnv(env, names []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "LISTEN_PID=") && !strings.HasPrefix(kv, "LISTEN_FDS=") && !strings.HasPrefix(kv, "LISTEN_FDNAMES=") {
			out = append(out, kv)
		}
	}
	return append(out,
		fmt.Sprintf("LISTEN_PID=%d", os.Getpid()),
		fmt.Sprintf("LISTEN_FDS=%d", len(names)),
		"LISTEN_FDNAMES="+strings.Join(names, ":"))
}

// limitName is the name of a resource as the configuration has it.
func limitName(resource int) string {
	switch resource {
	case unix.RLIMIT_NOFILE:
		return "nofile"
	case unix.RLIMIT_NPROC:
		return "nproc"
	case unix.RLIMIT_CORE:
		return "core"
	case unix.RLIMIT_MEMLOCK:
		return "memlock"
	case unix.RLIMIT_STACK:
		return "stack"
	case unix.RLIMIT_AS:
		return "as"
	}
	return fmt.Sprintf("resource limit %d", resource)
}
