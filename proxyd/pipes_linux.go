package main

import "golang.org/x/sys/unix"

const (
	// pipeSize is what a pipe is asked to hold, in bytes: fewer turns for each
	// gigabyte. An ordinary user beyond a limit gets smaller ones (pipe(7)).
	pipeSize = 256 << 10
	// maxSpare bounds the pipes that are kept for later.
	maxSpare = 64
)

// pipe is what bytes go through between two sockets. A connection has one for
// a direction only while bytes are under way there, so idle ones cost two
// descriptors and no more.
type pipe struct{ r, w int }

var noPipe = pipe{-1, -1}

// pipes are empty pipes for use.
type pipes []pipe

// get says false where there are no descriptors for one.
func (p *pipes) get(to *pipe) bool {
	if n := len(*p); n > 0 {
		*to, *p = (*p)[n-1], (*p)[:n-1]
		return true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return false
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // smaller is slower and works
	*to = pipe{fds[0], fds[1]}
	return true
}

// put gives back a pipe that is empty.
func (p *pipes) put(done pipe) {
	if len(*p) >= maxSpare {
		done.close()
		return
	}
	*p = append(*p, done)
}

// drop closes the spare pipes, for want of descriptors.
func (p *pipes) drop() {
	for _, spare := range *p {
		spare.close()
	}
	*p = (*p)[:0]
}

func (p pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}
