package macos

import (
	"bytes"
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Process is a line of the process table.
type Process struct {
	Pid, Ppid, Pgid int
	// Zombie says that it has ended, Ending that it is about to.
	Zombie, Ending bool
	// Start is when it was started, in microseconds since 1970: with the pid, no
	// other process has it.
	Start uint64
	// Uid and Gid are whom it runs as, Name is its program, cut after 16 bytes.
	Uid, Gid uint32
	Name     string
}

// Processes returns all there are, zombies too.
func Processes() ([]Process, error) { return processes("kern.proc.all") }

// InGroup returns those of a process group.
func InGroup(pgid int) ([]Process, error) { return processes("kern.proc.pgrp", pgid) }

func processes(name string, args ...int) ([]Process, error) {
	table, err := unix.SysctlKinfoProcSlice(name, args...)
	if err != nil {
		return nil, err
	}
	all := make([]Process, 0, len(table))
	for i := range table {
		all = append(all, processOf(&table[i]))
	}
	return all, nil
}

// Find returns one process.
func Find(pid int) (Process, error) {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err == unix.EIO { // what it says of none
		err = unix.ESRCH
	}
	if err != nil {
		return Process{}, err
	}
	return processOf(k), nil
}

func processOf(k *unix.KinfoProc) Process {
	const zombie, ending = 5, 0x2000 // SZOMB and P_WEXIT, <sys/proc.h>
	name, _, _ := bytes.Cut(k.Proc.P_comm[:], []byte{0})
	return Process{
		Pid: int(k.Proc.P_pid), Ppid: int(k.Eproc.Ppid), Pgid: int(k.Eproc.Pgid),
		Zombie: k.Proc.P_stat == zombie, Ending: k.Proc.P_flag&ending != 0,
		Start: uint64(k.Proc.P_starttime.Sec)*1e6 + uint64(k.Proc.P_starttime.Usec),
		Uid:   k.Eproc.Ucred.Uid, Gid: k.Eproc.Ucred.Groups[0], Name: string(name),
	}
}

// Command returns the command line of a process and its environment. It may be asked
// for one's own processes, by root for all; of programs of the system the environment
// is not told.
func Command(pid int) (command, environ []string, err error) {
	b, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil {
		return nil, nil, err
	}
	command, environ = splitArgs(b)
	return command, environ, nil
}

// Usage is what a process has used.
type Usage struct {
	// CPU is its processor time, ChildrenCPU that of the children that it has waited
	// for; Resident is its memory in bytes.
	CPU, ChildrenCPU time.Duration
	Resident         int64
}

// UsageOf measures one's own processes; root may ask for all.
func UsageOf(pid int) (Usage, error) {
	// struct rusage_info_v1 of <sys/resource.h>.
	var r struct {
		uuid                                                   [16]byte
		user, system, idleWakeups, wakeups, pageins, wired     uint64
		resident, footprint, started, ended                    uint64
		childUser, childSystem, childIdleWakeups, childWakeups uint64
		childPageins, childElapsed                             uint64
	}
	const v1 = 1 // RUSAGE_INFO_V1
	if _, _, errno := call(pidrusageAddr, uintptr(pid), v1, uintptr(unsafe.Pointer(&r)), 0, 0, 0); errno != 0 {
		return Usage{}, errno
	}
	hz, err := unix.SysctlUint64("hw.tbfrequency") // of what the kernel calls absolute time
	if err != nil {
		return Usage{}, err
	}
	duration := func(ticks uint64) time.Duration { return time.Duration(float64(ticks) / float64(hz) * 1e9) }
	return Usage{
		CPU: duration(r.user + r.system), ChildrenCPU: duration(r.childUser + r.childSystem),
		Resident: int64(r.resident),
	}, nil
}

// CountFds counts the open descriptors of one's own processes; root may ask for all.
func CountFds(pid int) (int, error) {
	const listFds, size = 1, 8 // PROC_PIDLISTFDS, struct proc_fdinfo
	room, _, _ := call(pidinfoAddr, uintptr(pid), listFds, 0, 0, 0, 0)
	if int32(room) <= 0 {
		return 0, unix.EPERM // or it has ended
	}
	b := make([]byte, room)
	n, _, _ := call(pidinfoAddr, uintptr(pid), listFds, 0, uintptr(unsafe.Pointer(&b[0])), room, 0)
	return int(max(int32(n), 0)) / size, nil
}

// SocketID returns the number that the kernel has for a socket of this process: it is
// the same for all descriptors of it.
func SocketID(fd int) (uint64, error) {
	const socketInfo = 3 // PROC_PIDFDSOCKETINFO
	// struct socket_fdinfo of <sys/proc_info.h> has less than 1 KiB; soi_so comes
	// after a proc_fileinfo and a vinfo_stat.
	const soiSo = 24 + 136
	b := make([]byte, 1024)
	if n := fdInfo(fd, socketInfo, b); n < soiSo+8 {
		return 0, unix.EBADF
	}
	return binary.NativeEndian.Uint64(b[soiSo:]), nil
}

// PathOf returns the path of an open file of this process. Of one that was removed it
// may not be told.
func PathOf(fd int) (string, error) {
	const vnodePathInfo = 2 // PROC_PIDFDVNODEPATHINFO
	// struct vnode_fdinfowithpath has the path after a proc_fileinfo and a vnode_info.
	const vipPath, maxPath = 24 + 152, 1024
	b := make([]byte, vipPath+maxPath)
	n := fdInfo(fd, vnodePathInfo, b)
	if n <= vipPath || b[vipPath] == 0 {
		return "", unix.ENOENT
	}
	path, _, _ := bytes.Cut(b[vipPath:n], []byte{0})
	return string(path), nil
}

// fdInfo asks of a descriptor of this process, and returns how much it was told.
func fdInfo(fd, flavor int, b []byte) int {
	n, _, _ := call(pidfdinfoAddr, uintptr(unix.Getpid()), uintptr(fd), uintptr(flavor), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0)
	return int(max(int32(n), 0))
}

// BootID tells one run of the kernel from another.
func BootID() string {
	id, _ := unix.Sysctl("kern.bootsessionuuid")
	return id
}
