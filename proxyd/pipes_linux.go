package main

import "golang.org/x/sys/unix"

const (
	// pipeSize is what a pipe holds, in bytes, as much as an ordinary user may
	// have: a quarter of it costs half as much time again for each gigabyte.
	pipeSize = 1 << 20
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

// get says false where there are no descriptors for one, or no memory: all
// pipes of an ordinary user together are limited, and one beyond that holds two
// pages (pipe(7)), which is slower than copying.
func (p *pipes) get(to *pipe) bool {
	if n := len(*p); n > 0 {
		*to, *p = (*p)[n-1], (*p)[:n-1]
		return true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return false
	}
	got := pipe{fds[0], fds[1]}
	if _, err := unix.FcntlInt(uintptr(got.w), unix.F_SETPIPE_SZ, pipeSize); err != nil {
		got.close()
		return false
	}
	*to = got
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
