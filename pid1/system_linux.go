package main

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// What explanations name of this system.
const (
	asChild       = "it becomes a subreaper and behaves as in a container"
	processLimits = "pids.max of the cgroup, ulimit -u, /proc/sys/kernel/pid_max or threads-max"
	programGone   = "is /proc mounted?"
	mayBecome     = "root, or CAP_SETUID and CAP_SETGID"
)

// lookOnly opens a file for nothing but to look where it is.
const lookOnly = unix.O_PATH

// makePipe makes a pipe whose ends no child inherits.
func makePipe() (ends [2]int, err error) {
	err = unix.Pipe2(ends[:], unix.O_CLOEXEC)
	return ends, err
}

// pipeFor makes what a child has as that descriptor, the write end, and the
// supervisor reads.
func pipeFor(int) (ends [2]int, err error) { return makePipe() }

// adoptOrphans has processes whose parent has ended become children of pid1.
func adoptOrphans(log *logger) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		log.warn("cannot become a subreaper: processes that services leave behind go to init", "error", err)
	}
}

// closeOnExecAll keeps descriptors that pid1 has inherited from its children.
func closeOnExecAll() {
	if unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	// Before Linux 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		for _, fd := range numbers([]byte(e.Name())) {
			if fd > 2 {
				unix.CloseOnExec(fd)
			}
		}
	}
	if err != nil {
		for fd := 3; fd < maxChildFd; fd++ {
			unix.CloseOnExec(fd)
		}
	}
}

// onLocalFS says whether a file is on a file system that answers by itself.
// What is not known to do so goes through the helper, which is only slower.
func onLocalFS(fd int) bool {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC,
		unix.EROFS_SUPER_MAGIC_V1, unix.ISOFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.PROC_SUPER_MAGIC,
		unix.SYSFS_MAGIC, zfsMagic, bcachefsMagic:
		return true
	}
	return false
}

// File systems that linux/magic.h does not list; their own sources do.
const (
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
)
