package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
)

const (
	// lastSignal is the highest signal number.
	lastSignal = 31
	// rareSignal is one that other systems do not have, and that ends who has not
	// asked for it.
	rareSignal = unix.SIGEMT
)

// initSignals are for an init alone, which a Mac does not have of zinit.
var initSignals []os.Signal

// The runtime has a handler for all signals but SIGHUP and SIGINT, which may be
// ignored until they are asked for: so children start without ignored ones, and there
// is nothing to be done here.

func restChildSignal() {}

func clearIgnored() {}

func spareInit() {}

// execSelf executes a program in place of this one. It returns only if that
// fails. The ends of children the new program finds by itself. Other signals
// wait for it unless another thread of this one still takes them; those that the
// runtime may let through before it has a handler for them are ignored, so that they
// do not kill.
func execSelf(path string, env []string, sigs *signalSet) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	deadly := []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM}
	signal.Ignore(deadly...)
	defer signal.Notify(sigs.caught, deadly...)
	defer macos.SetMask(macos.SetMask(^uint32(0)))
	var files unix.Rlimit
	lerr := unix.Getrlimit(unix.RLIMIT_NOFILE, &files)
	err := syscall.Exec(path, os.Args, env)
	if lerr == nil {
		// Exec has put the soft limit back to what it was before the runtime
		// raised it.
		unix.Setrlimit(unix.RLIMIT_NOFILE, &files)
	}
	return fmt.Errorf("cannot execute it: %w", err)
}

// takeTerminal makes pid1's own process group the foreground of its terminal
// again. SIGTTOU is blocked on the thread that does it, because the kernel
// would stop who asks from the background.
func takeTerminal() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := macos.SetMask(1 << (unix.SIGTTOU - 1))
	unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, unix.Getpgrp())
	macos.SetMask(old)
}
