package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// failure is what went wrong on the way to a program, in the kernel's terms.
type failure struct {
	stage string
	errno syscall.Errno
	path  string
}

// explain puts a failure into words. It looks at the file again, because one
// error number has several causes: ENOENT of an existing script is its missing
// interpreter, and EACCES may be a directory, a missing x bit or the way there
// (execve(2)).
func explain(sp *ipc.Spawn, f failure) *ipc.SpawnFailed {
	m := &ipc.SpawnFailed{Run: sp.Run, Stage: f.stage, Path: f.path, Errno: int(f.errno)}
	switch f.stage {
	case ipc.StageDir:
		m.Message = fmt.Sprintf("cannot enter directory %s: %v%s", f.path, f.errno, asUser(sp, f.errno))
	case ipc.StageExec:
		m.Message = explainExec(sp, f)
	case ipc.StageFork:
		m.Message = fmt.Sprintf("cannot make a process: %v%s", f.errno, forkHint(f.errno))
	case ipc.StageCgroup:
		m.Message = fmt.Sprintf("cannot enter cgroup %s: %v", f.path, f.errno)
	case ipc.StageCred:
		m.Message = "cannot become another user: " + f.errno.Error()
		if sp.Cred != nil {
			m.Message = fmt.Sprintf("cannot become user %d, group %d: %v", sp.Cred.UID, sp.Cred.GID, f.errno)
		}
		if f.errno == unix.EPERM {
			m.Message += " (zinit-pid1 needs to be " + mayBecome + ")"
		}
	default:
		value, bound := refused(sp, f.stage)
		m.Message = fmt.Sprintf("cannot set %s%s: %v%s", f.stage, value, f.errno, bound)
	}
	return m
}

// refused says to what a limit was to be set, and what it may be set to.
func refused(sp *ipc.Spawn, stage string) (value, bound string) {
	switch {
	case stage == "nice" && sp.Nice != nil:
		value = fmt.Sprintf(" to %d", *sp.Nice)
		// Linux has 20 less the niceness for a priority and in its limit RLIMIT_NICE, 13
		// (getpriority(2), getrlimit(2)).
		var l unix.Rlimit
		if own, err := unix.Getpriority(unix.PRIO_PROCESS, 0); runtime.GOOS == "linux" && err == nil && unix.Getrlimit(13, &l) == nil {
			bound = fmt.Sprintf(" (without CAP_SYS_NICE zinit may set %d or more)", 20-max(own, int(min(l.Cur, 40))))
		}
	case stage == "oom_score_adj" && sp.OOMScoreAdj != nil:
		value = fmt.Sprintf(" to %d", *sp.OOMScoreAdj)
	}
	for _, want := range sp.Rlimits {
		if limitName(want.Resource) != stage {
			continue
		}
		value = " to " + limitText(want.Hard)
		var l unix.Rlimit
		if unix.Getrlimit(want.Resource, &l) != nil {
			continue
		}
		bound = fmt.Sprintf(" (zinit's own hard limit is %s)", limitText(l.Max))
		if most := readNumber("/proc/sys/fs/nr_open"); stage == "nofile" && most > 0 && want.Hard > most {
			bound = fmt.Sprintf(" (/proc/sys/fs/nr_open allows %d)", most)
		}
	}
	return value, bound
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// readNumber reads a file with a number in it, 0 if there is none.
func readNumber(path string) uint64 {
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(readHead(path))), 10, 64)
	return n
}

func forkHint(e syscall.Errno) string {
	switch e {
	case unix.EAGAIN:
		return " (a limit on processes is reached: " + processLimits + ")"
	case unix.ENOMEM:
		return " (memory is short, or the pid namespace has ended)"
	case unix.ENOENT:
		return " (" + programGone + ")"
	case unix.EMFILE, unix.ENFILE:
		return " (look at the limit on open files, ulimit -n)"
	}
	return ""
}

func asUser(sp *ipc.Spawn, e syscall.Errno) string {
	if sp.Cred == nil || e != unix.EACCES {
		return ""
	}
	if sp.Cred.Name != "" {
		return fmt.Sprintf(" (as user %s)", sp.Cred.Name)
	}
	return fmt.Sprintf(" (as user %d, group %d)", sp.Cred.UID, sp.Cred.GID)
}

func explainExec(sp *ipc.Spawn, f failure) string {
	what := "cannot execute " + f.path + ": "
	if f.errno == unix.ENOENT && !strings.Contains(f.path, "/") {
		return what + "it is in no directory of PATH"
	}
	full := f.path
	if !filepath.IsAbs(full) {
		full = filepath.Join(sp.Dir, full)
	}
	var st unix.Stat_t
	seen := unix.Stat(full, &st) == nil
	head := readHead(full)
	switch f.errno {
	case unix.ENOENT, unix.ENOTDIR:
		if interp := interpreter(head); strings.HasSuffix(interp, "\r") {
			return fmt.Sprintf("%s: its interpreter %q does not exist: the file has Windows line ends", f.path, interp)
		} else if interp != "" {
			return fmt.Sprintf("%s: its interpreter %s does not exist", f.path, interp)
		}
		if loader := elfLoader(head); loader != "" {
			return fmt.Sprintf("%s: its loader %s does not exist (is it built for another system?)", f.path, loader)
		}
	case unix.EACCES:
		switch {
		case seen && st.Mode&unix.S_IFMT == unix.S_IFDIR:
			return what + "it is a directory"
		case seen && st.Mode&unix.S_IFMT != unix.S_IFREG:
			return what + "it is not a regular file"
		case seen && st.Mode&0o111 == 0:
			return what + fmt.Sprintf("it has no execute permission (mode %04o)", st.Mode&0o7777)
		case seen && interpreter(head) != "":
			return what + "permission denied for it or its interpreter " + interpreter(head) + asUser(sp, f.errno)
		}
		return what + f.errno.Error() + asUser(sp, f.errno)
	case unix.ENOEXEC:
		if runtime.GOOS == "darwin" && elf(head) != nil {
			return what + "exec format error: it is built for another system (ELF)"
		}
		if m := elfMachine(head); m != "" {
			return what + fmt.Sprintf("exec format error: it is built for %s, this machine is %s", m, runtime.GOARCH)
		}
		if len(head) > 0 && !bytes.HasPrefix(head, []byte("#!")) && bytes.IndexByte(head, 0) < 0 {
			return what + "exec format error: a script needs a first line like #!/bin/sh"
		}
	case unix.EAGAIN:
		return what + f.errno.Error() + forkHint(f.errno)
	}
	return what + f.errno.Error()
}

// readHead reads the first page of a regular file.
func readHead(path string) []byte {
	fd, err := open(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		return nil
	}
	return b[:n]
}

// interpreter is the program of a script's first line, as the kernel reads it: it
// ends at a blank or a tab.
func interpreter(head []byte) string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if f := bytes.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' }); len(f) > 0 {
		return string(f[0])
	}
	return ""
}

// elf returns the byte order of a 64-bit ELF file.
func elf(head []byte) binary.ByteOrder {
	if len(head) < 64 || !bytes.HasPrefix(head, []byte("\x7fELF")) {
		return nil
	}
	if head[5] == 2 {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// elfMachine names what an ELF file is built for (elf(5), e_machine).
func elfMachine(head []byte) string {
	order := elf(head)
	if order == nil {
		return ""
	}
	switch m := order.Uint16(head[18:]); m {
	case 3:
		return "386"
	case 8:
		return "mips"
	case 20:
		return "ppc"
	case 21:
		return "ppc64"
	case 22:
		return "s390x"
	case 40:
		return "arm"
	case 62:
		return "amd64"
	case 183:
		return "arm64"
	case 243:
		return "riscv64"
	case 258:
		return "loong64"
	default:
		return fmt.Sprintf("machine %d", m)
	}
}

// elfLoader is the program interpreter of a dynamic 64-bit ELF file (elf(5),
// PT_INTERP), if the first page holds it.
func elfLoader(head []byte) string {
	order := elf(head)
	if order == nil || head[4] != 2 {
		return ""
	}
	const ptInterp = 3
	at, size := order.Uint64(head[32:]), uint64(order.Uint16(head[54:]))
	for n := order.Uint16(head[56:]); n > 0; n, at = n-1, at+size {
		if at > uint64(len(head)) || uint64(len(head))-at < 56 {
			return ""
		}
		if order.Uint32(head[at:]) != ptInterp {
			continue
		}
		off, length := order.Uint64(head[at+8:]), order.Uint64(head[at+32:])
		if off > uint64(len(head)) || length > uint64(len(head))-off {
			return ""
		}
		return string(bytes.TrimRight(head[off:off+length], "\x00"))
	}
	return ""
}
