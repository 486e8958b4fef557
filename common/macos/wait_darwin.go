package macos

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// End is how a child has ended.
type End struct {
	Pid    int // 0 for none
	Code   int
	Signal int // that it was ended by, 0 for none
	Core   bool
}

// Ended tells of a child that has ended and leaves it a zombie, so that its pid is not
// given to anybody else: of one of them for pid 0. It waits for that, or with
// WNOHANG returns no end. It returns ECHILD where there is no such child.
func Ended(pid, options int) (End, error) {
	// siginfo_t of <sys/signal.h>, for a child, and the kinds of ends.
	var info struct {
		signo, errno, code, pid int32
		uid                     uint32
		status                  int32
		addr, value, band       uint64
		_                       [7]uint64
	}
	const pAll, pPid = 0, 1
	const exited, killed, dumped = 1, 2, 3
	kind := pAll
	if pid != 0 {
		kind = pPid
	}
	for {
		_, _, errno := call(waitidAddr, uintptr(kind), uintptr(pid), uintptr(unsafe.Pointer(&info)),
			uintptr(options|unix.WEXITED|unix.WNOWAIT), 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return End{}, errno
		}
		end := End{Pid: int(info.pid)}
		switch info.code {
		case exited:
			end.Code = int(info.status & 0xff)
		case killed, dumped:
			end.Signal, end.Core = int(info.status&0x7f), info.code == dumped
		}
		return end, nil
	}
}

// Reap ends the life of a zombie.
func Reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != unix.EINTR {
			return
		}
	}
}
