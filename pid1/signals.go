package main

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

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
	signal.Notify(s.caught, append([]os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE,
		unix.SIGTSTP, unix.SIGUSR1, unix.SIGUSR2}, initSignals...)...)
	restChildSignal()
	go s.collect()
	return s
}

// catchOthers makes the other signals harmless, and collects all of them where a
// main command has a use for them. SIGURG is left to the runtime, which interrupts
// goroutines with it, and SIGCHLD is of no use: childWatch waits for children.
func (s *signalSet) catchOthers(all bool) {
	for n := 1; n <= lastSignal; n++ {
		switch sig := syscall.Signal(n); sig {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGURG, unix.SIGCHLD:
		case unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, rareSignal, unix.SIGSYS,
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
