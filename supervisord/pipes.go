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

// logPipe is a pipe under capture, which pid1 keeps, too. It is dropped when all of
// it is stored and the leader of its run has ended, so that both are one message.
type logPipe struct {
	service      string
	stored, over bool
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
	if _, known := s.pipes[logEnd{run, which}]; known { // pid1 has told of it as a stored one before its run was spawned
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
	s.pipes[logEnd{run, which}] = logPipe{service: service}
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
		if p, known := s.pipes[end]; known {
			p.stored = true
			s.dropPipe(end, p)
		}
	}
}

// pipesOver notes that the leader of a run has ended.
func (s *server) pipesOver(run core.RunID) {
	for _, stream := range []logs.Stream{logs.Stdout, logs.Stderr} {
		end := logEnd{run, stream}
		if p, known := s.pipes[end]; known {
			p.over = true
			s.dropPipe(end, p)
		}
	}
}

// dropPipe notes what is known of a pipe, and lets pid1 close one of which
// nothing is to come.
func (s *server) dropPipe(end logEnd, p logPipe) {
	if !p.stored || !p.over {
		s.pipes[end] = p
		return
	}
	s.dropped = append(s.dropped, ipc.LogFd(ipc.RunID(end.run), end.stream.String(), p.service))
	delete(s.pipes, end)
}

// dropRunFds closes the readiness channels of a run that has ended.
func (s *server) dropRunFds(run core.RunID) {
	if name, ok := s.notify.remove(run); ok {
		s.dropped = append(s.dropped, name)
	}
}
