package main

import (
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/terminal"
	"github.com/threefoldtech/zinit/common/threads"
)

// forkExec forks with an empty signal mask and that timer slack: the child gets
// those of the thread that forks, which has the mask that pid1 was started with.
func forkExec(path string, argv []string, attr *syscall.ProcAttr, slack time.Duration) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer threads.SetSlack(threads.SetSlack(slack))
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &unix.Sigset_t{}, nil); err != nil {
		return 0, err
	}
	return syscall.ForkExec(path, argv, attr)
}

// memoryFile returns a file in memory, close-on-exec and at its beginning.
func memoryFile(name string, data []byte) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, err
		}
		off += max(n, 0)
	}
	return fd, nil
}

// intoCgroup has a child cloned into a cgroup.
func intoCgroup(attr *syscall.SysProcAttr, cgroup int) {
	attr.UseCgroupFD, attr.CgroupFD = true, cgroup
}

// forkStranger starts a program that is reaped like any child that is nobody's, so
// its pid means nothing here: kill does so by its descriptor.
func forkStranger(program string, argv []string, attr *syscall.ProcAttr) (kill func(), err error) {
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	if _, err = forkExec(program, argv, attr, childSlack); err != nil {
		return nil, err
	}
	return func() {
		unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		unix.Close(pidfd)
	}, nil
}

// ownTerminal says whether stdin is the controlling terminal of pid1.
func ownTerminal() bool {
	sid, err := unix.IoctlGetInt(0, unix.TIOCGSID)
	own, err2 := unix.Getsid(0)
	return err == nil && err2 == nil && sid == own
}

// freeTerminal says whether stdin is a terminal that controls no session, as
// the console of an init is.
func freeTerminal() bool {
	if !terminal.Is(0) {
		return false
	}
	_, err := unix.IoctlGetInt(0, unix.TIOCGSID)
	return err == unix.ENOTTY
}

// maxGroups is how many groups the kernel keeps of a process (NGROUPS_MAX).
const maxGroups = 65536
