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

func (p *pipes) get() (pipe, error) {
	if n := len(*p); n > 0 {
		got := (*p)[n-1]
		*p = (*p)[:n-1]
		return got, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return noPipe, err
	}
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // smaller is slower and works
	return pipe{fds[0], fds[1]}, nil
}

// put gives back a pipe that is empty.
func (p *pipes) put(done pipe) {
	if len(*p) >= maxSpare {
		done.close()
		return
	}
	*p = append(*p, done)
}

func (p pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}
