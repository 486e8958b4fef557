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

// get says false where there is none to be had.
func (p *pipes) get(to *pipe) bool {
	if n := len(*p); n > 0 {
		*to, *p = (*p)[n-1], (*p)[:n-1]
		return true
	}
	return newPipe(to)
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
