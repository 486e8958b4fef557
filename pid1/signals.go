package main

import (
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest signal number of Linux.
const lastSignal = 64

// signalSet collects signals between two turns of the keeper. Each is there
// once however often it came, so a flood of one never displaces another.
type signalSet struct {
	pending atomic.Uint64
	wake    chan struct{}
}

// catchSignals makes all signals that can be caught harmless and collects
// them. It is the first thing main does: a Go program that is PID 1 exits on
// a signal that it has not asked for, and on SIGPIPE of a broken console. It
// never ignores one, because children would inherit that. SIGURG is left to
// the runtime, which interrupts goroutines with it.
func catchSignals() *signalSet {
	s := &signalSet{wake: make(chan struct{}, 1)}
	c := make(chan os.Signal, 256)
	for n := 1; n <= lastSignal; n++ {
		switch sig := syscall.Signal(n); sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGURG:
		default:
			signal.Notify(c, sig)
		}
	}
	go s.collect(c)
	return s
}

func (s *signalSet) collect(c <-chan os.Signal) {
	for sig := range c {
		n, ok := sig.(syscall.Signal)
		if !ok || discarded(n) {
			continue
		}
		s.pending.Or(1 << (n - 1))
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// take returns what has come since the last call, in ascending order.
func (s *signalSet) take() []int {
	bits := s.pending.Swap(0)
	var sigs []int
	for n := 1; bits != 0; n, bits = n+1, bits>>1 {
		if bits&1 != 0 {
			sigs = append(sigs, n)
		}
	}
	return sigs
}

// discarded says which signals mean nothing to zinit nor to a main command:
// those of a broken pipe and of terminal job control.
func discarded(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGPIPE, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT:
		return true
	}
	return false
}

// clearInheritedSignals sees to it that children start with an empty signal
// mask and without ignored signals, whatever the parent of pid1 left behind.
// It says whether the exec helper has to do it for each child.
//
// The Go runtime gives its children the mask that it found at its start, so a
// mask can only be cleared by executing again. What was ignored is default
// again as soon as it is notified, but for the three signals of the C library
// that the runtime leaves alone.
func clearInheritedSignals() (helper bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, sig := range []int{32, 33, 34} {
		defaultIgnored(sig)
	}
	var mask unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, nil, &mask); err != nil || mask == (unix.Sigset_t{}) {
		return false
	}
	var empty unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &empty, nil); err != nil {
		return true
	}
	// By its path first, because the name of the process comes from it.
	if path, err := os.Executable(); err == nil {
		syscall.Exec(path, os.Args, os.Environ())
	}
	syscall.Exec(selfExe, os.Args, os.Environ())
	return true
}

// sigaction is the kernel's struct of rt_sigaction(2) on 64-bit Linux, which
// has room for the restorer field of amd64.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// defaultIgnored gives a signal its default action if it is ignored.
func defaultIgnored(sig int) {
	const sigIgn = 1
	var old, def sigaction
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	if e == 0 && old.handler == sigIgn {
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&def)), 0, 8, 0, 0)
	}
}
