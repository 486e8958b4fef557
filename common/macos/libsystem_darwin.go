package macos

import (
	"syscall"
	_ "unsafe" // for linkname
)

// Functions of libSystem that golang.org/x/sys/unix does not have. macOS promises
// these and not its system calls, so they are called as that package calls others:
// their addresses are in libsystem_darwin.s.

//go:cgo_import_dynamic libc_waitid waitid "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_pthread_sigmask pthread_sigmask "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_initgroups initgroups "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_proc_pidinfo proc_pidinfo "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_proc_pidfdinfo proc_pidfdinfo "/usr/lib/libSystem.B.dylib"
//go:cgo_import_dynamic libc_proc_pid_rusage proc_pid_rusage "/usr/lib/libSystem.B.dylib"

var waitidAddr, sigmaskAddr, initgroupsAddr, pidinfoAddr, pidfdinfoAddr, pidrusageAddr uintptr

// call calls one of them. It has failed where it returns -1, and then errno is its.
//
//go:linkname call syscall.syscall6
func call(fn, a1, a2, a3, a4, a5, a6 uintptr) (r1, r2 uintptr, errno syscall.Errno)
