package main

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// plan lists the steps in their order. What may need privileges comes before
// they are given up. The directory is entered with the identity of the
// service, to whom it may be open when it is not to pid1. The limits come
// after the score and the niceness, and no_new_privs last but for the program.
func plan(spec *helperSpec) ([]step, error) {
	sp := &spec.Spawn
	env := sp.Env
	if len(sp.ListenNames) > 0 {
		env = listenEnv(env, sp.ListenNames)
	}
	places := spec.places()
	paths, err := syscall.SlicePtrFromStrings(places) // ends with nil
	if err != nil {
		return nil, err
	}
	argv, err := syscall.SlicePtrFromStrings(sp.Argv)
	if err != nil {
		return nil, err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return nil, err
	}
	shell := &[]byte("/bin/sh\x00")[0]
	script := append([]*byte{shell, nil}, argv[1:]...)
	var steps []step
	add := func(stage, path string, do func() syscall.Errno) {
		steps = append(steps, step{stage, path, do})
	}
	if sp.CgroupLast && sp.Cgroup != "" {
		file, text := []byte(sp.Cgroup+"/cgroup.procs\x00"), []byte("0")
		add(ipc.StageCgroup, sp.Cgroup, func() syscall.Errno { return write(file, text) })
	}
	if sp.OOMScoreAdj != nil {
		file, text := []byte("/proc/self/oom_score_adj\x00"), []byte(strconv.Itoa(*sp.OOMScoreAdj))
		add("oom_score_adj", "", func() syscall.Errno { return write(file, text) })
	}
	if sp.Nice != nil {
		add("nice", "", func() syscall.Errno {
			return raw(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(*sp.Nice))
		})
	}
	if sp.Umask != nil {
		add("umask", "", func() syscall.Errno {
			unix.RawSyscall(unix.SYS_UMASK, uintptr(*sp.Umask&0o777), 0, 0)
			return 0
		})
	}
	for i := range sp.Rlimits {
		l := &sp.Rlimits[i]
		lim := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		add(limitName(l.Resource), "", func() syscall.Errno {
			_, _, e := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(lim)), 0, 0, 0)
			return e
		})
	}
	if c := sp.Cred; c != nil && !ownIdentity(c.UID, c.GID, c.Groups) {
		steps = append(steps, becomeUser(c, len(sp.AmbientCaps) > 0)...)
	}
	if len(sp.AmbientCaps) > 0 {
		add("capabilities", "", raiseCaps(sp.AmbientCaps))
	}
	if sp.Dir != "" {
		dir, err := syscall.BytePtrFromString(sp.Dir)
		if err != nil {
			return nil, err
		}
		add(ipc.StageDir, sp.Dir, func() syscall.Errno {
			return raw(unix.SYS_CHDIR, uintptr(unsafe.Pointer(dir)), 0, 0)
		})
	}
	if sp.NoNewPrivs {
		add("no_new_privs", "", func() syscall.Errno {
			return raw(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
		})
	}
	empty := &unix.Sigset_t{}
	add(ipc.StageExec, spec.Path, nil)
	last := &steps[len(steps)-1]
	last.do = func() (first syscall.Errno) {
		unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(empty)), 0, 8, 0, 0)
		for i := range places {
			e := raw(unix.SYS_EXECVE, uintptr(unsafe.Pointer(paths[i])), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])))
			if e == unix.ENOEXEC && sp.Shell {
				script[1] = paths[i]
				raw(unix.SYS_EXECVE, uintptr(unsafe.Pointer(shell)), uintptr(unsafe.Pointer(&script[0])), uintptr(unsafe.Pointer(&envp[0])))
			}
			if !goesOn(e) {
				last.path = places[i]
				return e
			}
			if i == 0 {
				first = e
			}
		}
		return first
	}
	return steps, nil
}

// raw is a system call of this thread alone, without the scheduler's notice.
func raw(trap, a1, a2, a3 uintptr) syscall.Errno {
	for {
		if _, _, e := unix.RawSyscall6(trap, a1, a2, a3, 0, 0, 0); e != unix.EINTR {
			return e
		}
	}
}

func becomeUser(c *ipc.Cred, keepCaps bool) []step {
	var groups unsafe.Pointer
	if len(c.Groups) > 0 {
		groups = unsafe.Pointer(&c.Groups[0])
	}
	steps := []step{
		{ipc.StageCred, "", func() syscall.Errno {
			return raw(unix.SYS_SETGROUPS, uintptr(len(c.Groups)), uintptr(groups), 0)
		}},
		{ipc.StageCred, "", func() syscall.Errno {
			return raw(unix.SYS_SETRESGID, uintptr(c.GID), uintptr(c.GID), uintptr(c.GID))
		}},
		{ipc.StageCred, "", func() syscall.Errno {
			return raw(unix.SYS_SETRESUID, uintptr(c.UID), uintptr(c.UID), uintptr(c.UID))
		}},
	}
	if keepCaps {
		steps = append([]step{{"capabilities", "", func() syscall.Errno {
			return raw(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0)
		}}}, steps...)
	}
	return steps
}

// raiseCaps puts capabilities into the ambient set, which survives execve of
// an ordinary program (capabilities(7), Linux 4.3). They have to be permitted
// and inheritable first.
func raiseCaps(caps []int) func() syscall.Errno {
	return func() syscall.Errno {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if e := raw(unix.SYS_CAPGET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
			return e
		}
		for _, c := range caps {
			if c < 0 || c > 63 {
				return unix.EINVAL
			}
			data[c/32].Inheritable |= 1 << (c % 32)
			data[c/32].Effective |= 1 << (c % 32)
		}
		if e := raw(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&hdr)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
			return e
		}
		for _, c := range caps {
			if e := raw(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c)); e != 0 {
				return e
			}
		}
		return 0
	}
}

func write(path, text []byte) syscall.Errno {
	fd, _, e := unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&path[0])), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return e
	}
	_, _, e = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
	unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return e
}
