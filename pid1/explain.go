package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
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
		m.Message = fmt.Sprintf("cannot set %s: %v", f.stage, f.errno)
	}
	return m
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
		if interp := interpreter(head); interp != "" {
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

// interpreter is the program of a script's first line.
func interpreter(head []byte) string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return ""
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	if f := bytes.Fields(line); len(f) > 0 {
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
