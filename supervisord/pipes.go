package main

import (
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// logPipes are the pipes of a run under capture, which pid1 keeps, too. One is
// dropped when all of it is stored and the leader of the run has ended, so that both
// are one message.
type logPipes struct {
	service      string
	kept, stored [2]bool // by stream
	over         bool
}

// addPipe takes over the read end of a pipe that pid1 made for a run.
func (s *server) addPipe(name string, fd int) {
	part := strings.Split(name, "/")
	var id uint64
	var err error
	if len(part) > 1 {
		id, err = strconv.ParseUint(part[1], 10, 64)
	}
	run := core.RunID(id)
	switch {
	case err == nil && len(part) == 2 && part[0] == "ready":
		s.notify.add(run, fd, false)
		return
	case err != nil || len(part) != 4 || part[0] != "log":
		s.log.Error("pid1 has a descriptor that nobody knows", "name", name)
		unix.Close(fd)
		return
	}
	stream, service := part[2], part[3]
	which := logs.Stdout
	if stream == logs.Stderr.String() {
		which = logs.Stderr
	}
	p := s.pipes[run]
	if p.kept[which] { // pid1 has told of it as a stored one before its run was spawned
		unix.Close(fd)
		return
	}
	if err := s.logs.Add(service, uint64(run), which, fd); err != nil {
		s.log.Error("cannot capture the output of a service", "service", service, "error", err)
		unix.Close(fd)
		return
	}
	if sp := s.services[service]; sp != nil {
		service = sp.Name // or the whole name of the pipe would stay in memory
	}
	p.service, p.kept[which] = service, true
	s.pipes[run] = p
}

// logEnd says that a log pipe has no writer any more and all of it is stored.
type logEnd struct {
	run    core.RunID
	stream logs.Stream
}

// logEnds collects log pipes that have ended, however many. The capture's
// goroutine adds them and must not wait for the loop, which waits for it.
type logEnds struct {
	mu   sync.Mutex
	list []logEnd
	more chan struct{} // has a token while there may be some
}

func (e *logEnds) add(run uint64, stream logs.Stream) {
	e.mu.Lock()
	e.list = append(e.list, logEnd{core.RunID(run), stream})
	e.mu.Unlock()
	select {
	case e.more <- struct{}{}:
	default:
	}
}

func (e *logEnds) take() []logEnd {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.list
	e.list = nil
	return list
}

// pipesStored notes which pipes have ended.
func (s *server) pipesStored() {
	for _, end := range s.ended.take() {
		if p, known := s.pipes[end.run]; known {
			p.stored[end.stream] = true
			s.dropPipes(end.run, p)
		}
	}
}

// pipesOver notes that the leader of a run has ended.
func (s *server) pipesOver(run core.RunID) {
	if p, known := s.pipes[run]; known {
		p.over = true
		s.dropPipes(run, p)
	}
}

// dropPipes notes what is known of the pipes of a run, and lets pid1 close those of
// which nothing is to come.
func (s *server) dropPipes(run core.RunID, p logPipes) {
	for i, kept := range p.kept {
		if kept && p.stored[i] && p.over {
			s.dropped = append(s.dropped, ipc.LogFd(ipc.RunID(run), logs.Stream(i).String(), p.service))
			p.kept[i] = false
		}
	}
	if p.kept == [2]bool{} {
		delete(s.pipes, run)
		return
	}
	s.pipes[run] = p
}

// dropRunFds closes the readiness channels of a run that has ended.
func (s *server) dropRunFds(run core.RunID) {
	if name, ok := s.notify.remove(run); ok {
		s.dropped = append(s.dropped, name)
	}
}
