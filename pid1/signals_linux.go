package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/threads"
)

const (
	// lastSignal is the highest signal number.
	lastSignal = 64
	// rareSignal is one that other systems do not have, and that ends who has not
	// asked for it.
	rareSignal = unix.SIGSTKFLT
)

// initSignals are for an init alone: SIGPWR, and SIGRTMIN+3 to +5.
var initSignals = []os.Signal{unix.SIGPWR, unix.Signal(37), unix.Signal(38), unix.Signal(39)}

// restChildSignal gives SIGCHLD its default action: then the kernel does not even
// deliver it.
func restChildSignal() { setAction(int(unix.SIGCHLD), &sigaction{}) }

// sigaction is the kernel's struct of rt_sigaction(2) on 64-bit Linux, which
// has room for the restorer field of amd64.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const sigIgn = 1 // SIG_IGN

// setAction sets what a signal does, behind the back of the runtime, and
// returns what it did; nil only asks.
func setAction(sig int, act *sigaction) (old sigaction) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	return old
}

// clearIgnored sees to it that children start without ignored signals. What was
// ignored is default again as soon as it is notified, but for the three signals
// of the C library that the runtime leaves alone.
func clearIgnored() {
	for _, sig := range []int{32, 33, 34} {
		if setAction(sig, nil).handler == sigIgn {
			setAction(sig, &sigaction{})
		}
	}
}

// spareInit keeps the three signals of the C library, which have their default action,
// from ending an init. Linux drops such a signal to an init where it is not blocked, but
// where it is in the first thread and not in another, it takes that one's process for
// any other (complete_signal in kernel/signal.c). In a handler of the runtime all
// signals are blocked: now all but these.
func spareInit() {
	const three = 7 << (32 - 1)
	for sig := 1; sig <= lastSignal; sig++ {
		if act := setAction(sig, nil); act.handler > sigIgn {
			act.mask &^= three
			setAction(sig, &act)
		}
	}
}

// execSelf executes a program in place of this one. It returns only if that
// fails. The ends of children the new program finds by itself. Other signals
// wait for it unless another thread of this one still takes them; but some the Go
// runtime lets through before it has a handler for them, so the best that can be
// done is to see that they do not kill.
func execSelf(path string, env []string, _ *signalSet) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i]--
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return err
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM, unix.SIGPROF} {
		was := setAction(int(sig), &sigaction{handler: sigIgn})
		defer setAction(int(sig), &was)
	}
	defer threads.SetSlack(threads.SetSlack(childSlack)) // by which the next one knows it
	var files unix.Rlimit
	lerr := unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	err := syscall.Exec(path, os.Args, env)
	if lerr == nil {
		// Exec has put the soft limit back to what it was before the runtime
		// raised it, and for that it is needed no more.
		unix.Prlimit(0, unix.RLIMIT_NOFILE, &files, nil)
	}
	return fmt.Errorf("cannot execute it: %w", err)
}

// takeTerminal makes pid1's own process group the foreground of its terminal
// again. SIGTTOU is blocked on the thread that does it, because the kernel
// would stop who asks from the background.
func takeTerminal() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ttou, old unix.Sigset_t
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &old)
	unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, unix.Getpgrp())
	unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}
