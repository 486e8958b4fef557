package logs

const (
	// fastPipe is what the pipe of a service that writes fast is enlarged to.
	fastPipe = 1 << 20
	// maxEnlarged bounds the number of enlarged pipes, and so the memory that
	// they can hold and their part of an ordinary user's pipe-user-pages-soft
	// (16,384 pages by default, 256 for each of them).
	maxEnlarged = 16
	// fullTurns is how many turns in a row must find the pipe full.
	fullTurns = 16
)

// watchSpeed enlarges a pipe that was found full again and again: its writer
// waits for us, and larger turns are cheaper.
func (c *Capture) watchSpeed(p *pipe, moved int) {
	if p.enlarged {
		return
	}
	if moved < pipeSize {
		p.full = 0
		return
	}
	if p.full++; p.full < fullTurns || c.enlarged == maxEnlarged {
		return
	}
	p.full = 0
	if enlarge(p.fd, fastPipe) == nil {
		p.enlarged = true
		c.enlarged++
	}
}
