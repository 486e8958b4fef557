package macos

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetMask sets which signals are blocked on this thread, as bits from that of signal
// 1 on, and returns which were.
func SetMask(mask uint32) (old uint32) {
	const sigSetmask = 3 // SIG_SETMASK, <sys/signal.h>
	call(sigmaskAddr, sigSetmask, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&old)), 0, 0, 0)
	return old
}

// InitGroups gives this process that group and the groups of a user, of whom the
// kernel asks the directory of users for those that it has no room for.
func InitGroups(user string, gid int) error {
	name, err := unix.BytePtrFromString(user)
	if err != nil {
		return err
	}
	if _, _, errno := call(initgroupsAddr, uintptr(unsafe.Pointer(name)), uintptr(gid), 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
