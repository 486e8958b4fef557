package main

import (
	"os"
	"os/signal"
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
	caught  chan os.Signal
}

// catchSignals makes signals harmless and collects them. It is the first thing main
// does: a Go program that is PID 1 exits on a signal that it has not asked for, and on
// SIGPIPE of a broken console. It never ignores one, because children would inherit
// that. These are the ones that somebody may send to an init as it starts; each takes
// the runtime two switches of threads, so the others follow by catchOthers.
func catchSignals() *signalSet {
	s := &signalSet{wake: make(chan struct{}, 1), caught: make(chan os.Signal, 256)}
	signal.Notify(s.caught, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE, unix.SIGTSTP,
		unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR, unix.Signal(37), unix.Signal(38), unix.Signal(39))
	setAction(int(unix.SIGCHLD), &sigaction{})
	go s.collect()
	return s
}

// catchOthers makes the other signals harmless, and collects all of them where a
// main command has a use for them. SIGURG is left to the runtime, which interrupts
// goroutines with it. SIGCHLD has its default action, which is that the kernel does
// not even deliver it: childWatch waits for children.
func (s *signalSet) catchOthers(all bool) {
	for n := 1; n <= lastSignal; n++ {
		switch sig := syscall.Signal(n); sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGURG, unix.SIGCHLD:
		case unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGSYS,
			unix.SIGCONT, unix.SIGTTIN, unix.SIGTTOU: // which would end pid1, or stop it
			signal.Notify(s.caught, sig)
		default:
			if all {
				signal.Notify(s.caught, sig)
			}
		}
	}
}

func (s *signalSet) collect() {
	for sig := range s.caught {
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

// take returns what has come since the last call, in ascending order. Of a stop
// and a continuation only the second is left, as with signals that the kernel
// keeps (signal(7)); which of them came first is not known.
func (s *signalSet) take() []int {
	bits := s.pending.Swap(0)
	if bits&(1<<(unix.SIGCONT-1)) != 0 {
		bits &^= 1 << (unix.SIGTSTP - 1)
	}
	var sigs []int
	for n := 1; bits != 0; n, bits = n+1, bits>>1 {
		if bits&1 != 0 {
			sigs = append(sigs, n)
		}
	}
	return sigs
}

// waiting says whether something has come since then.
func (s *signalSet) waiting() bool { return s.pending.Load() != 0 }

// discarded says which signals mean nothing to zinit nor to a main command:
// those that the kernel sends to whoever writes to a broken pipe, or uses a
// terminal from the background.
func discarded(sig syscall.Signal) bool {
	switch sig {
	case unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU:
		return true
	}
	return false
}

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
