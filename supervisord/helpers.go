package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// Helpers are programs that serve the supervisor. zinit-pid1 runs them as it
// runs services, and keeps the socket to which they connect, so that they
// outlive a supervisor and find the next one by themselves. They hold nothing
// that lasts: one that is not needed any more is killed, one that has died is
// started again.

const (
	// helperRun is set in the run ids of helpers. They belong to no service, and
	// need no counter that is saved: an order that was lost is given again, as
	// another run.
	helperRun = ipc.RunID(1) << 63
	// helperGoodLife is the life of a helper after which its death is an
	// accident and not the next of a row; then it is started again at once, else
	// after a pause.
	helperGoodLife = 10 * time.Second
	helperPauseMin = 10 * time.Millisecond
	helperPauseMax = 5 * time.Second
)

func isHelper(run ipc.RunID) bool { return run&helperRun != 0 }

// helper is one such program. It belongs to the loop.
type helper struct {
	name core.Helper
	role string // in its hello
	// run is 0 while there is no process, and not one ordered either.
	run     ipc.RunID
	started time.Time
	row     int         // deaths in a row
	again   *time.Timer // until the next start, nil if none is due
	// ending says that it was killed because nobody needs it, missing why its
	// program was not found.
	ending  bool
	missing string
	conn    *ipc.Conn // nil while it is not connected
	// onFrame takes what it says.
	onFrame func(ipc.Frame) error
}

// listenHelpers opens the socket of the helpers, or takes over the one that pid1
// has kept.
func (s *server) listenHelpers() error {
	fd, ok := s.keeper.take("listen/helpers")
	if !ok {
		if err := os.Remove(s.helperSocket()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot replace the stale socket of the helpers: %w", err)
		}
		var err error
		if fd, err = ipc.Listen(s.helperSocket(), 0o600); err != nil {
			return err
		}
		if err := s.keeper.store("listen/helpers", fd); err != nil {
			return err
		}
	}
	l, err := ipc.NewListener(fd)
	if err != nil {
		return err
	}
	go s.acceptHelpers(l)
	return nil
}

func (s *server) helperSocket() string { return s.paths.RuntimeDir + "/helpers.sock" }

func (s *server) acceptHelpers(l *ipc.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go s.readHelper(c)
	}
}

// What the connection of a helper brings to the loop.
type (
	helperCame struct {
		conn  *ipc.Conn
		hello ipc.Hello
	}
	helperSaid struct {
		conn  *ipc.Conn
		frame ipc.Frame
	}
	helperGone struct{ conn *ipc.Conn }
)

// readHelper hands on what a helper says, until its end. Only our own user and
// root are listened to.
func (s *server) readHelper(c *ipc.Conn) {
	defer c.Close()
	c.Stall, c.NoFds = stall, true
	peer, err := c.Peer()
	if err != nil || peer.Uid != 0 && peer.Uid != os.Geteuid() {
		return
	}
	f, err := c.Read()
	var hello ipc.Hello
	if err != nil || f.Kind != ipc.KindHello || f.Decode(&hello) != nil {
		return
	}
	s.inbox <- helperCame{c, hello}
	for {
		f, err := c.Read()
		if err != nil {
			s.inbox <- helperGone{c}
			return
		}
		s.inbox <- helperSaid{c, f}
	}
}

// adoptHelpers takes over the helpers that run, and ends what is left of those
// that do not. The runs of services remain in the list.
func (s *server) adoptHelpers() {
	s.keeper.runs = slices.DeleteFunc(s.keeper.runs, func(r ipc.Run) bool {
		if !isHelper(r.Run) {
			return false
		}
		s.helperRuns[r.Run] = true
		if r.Exited != nil {
			r.Exited.Left = r.Exited.Left && !r.Emptied
			s.helperEnded(*r.Exited)
		} else if h := s.helpers[core.Helper(r.Tag)]; h != nil && h.run == 0 {
			h.run, h.started = r.Run, time.Now()
		} else {
			s.killHelper(r.Run)
		}
		return true
	})
}

// needHelpers starts the helpers that are needed, and ends those that are not.
func (s *server) needHelpers() {
	for _, h := range s.helpers {
		needed := s.core.Needs(h.name)
		switch {
		case needed && h.run == 0 && h.again == nil && h.missing == "":
			s.startHelper(h)
		case !needed && h.run != 0 && !h.ending:
			h.ending = true
			s.killHelper(h.run)
		case !needed && h.again != nil:
			h.again.Stop()
			h.again = nil
		}
	}
}

// send tells a helper something, if it is there.
func (h *helper) send(kind ipc.Kind, body any, fds ...int) {
	if h.conn != nil {
		h.conn.Send(kind, body, fds...)
	}
}

func (s *server) startHelper(h *helper) {
	path, err := findHelper(string(h.name))
	if err != nil {
		h.missing = err.Error()
		s.log.Error("a helper is missing", "error", err)
		s.events = append(s.events, core.HelperDown{Helper: h.name, Why: err.Error()})
		return
	}
	h.run, h.started, h.ending = helperRun|ipc.RunID(s.now()), time.Now(), false
	s.helperRuns[h.run] = true
	s.keeper.send(ipc.KindSpawn, ipc.Spawn{
		Run: h.run, Tag: string(h.name), Env: ownEnviron(),
		Argv: []string{path, "--socket", s.helperSocket(), "--run", strconv.FormatUint(uint64(h.run), 10)},
	})
}

func (s *server) killHelper(run ipc.RunID) {
	s.keeper.send(ipc.KindSignal, ipc.Signal{Run: run, Sig: int(unix.SIGKILL), Scope: ipc.ScopeAll})
}

// findHelper returns the path of a program that serves the supervisor: beside
// zinit-server, else in PATH.
func findHelper(name string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		if path := filepath.Join(filepath.Dir(self), name); unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither in %s nor in PATH", name, filepath.Dir(self))
	}
	return path, nil
}

// helperEnded takes the end of the process of a helper. What it leaves in its
// session, the probes of zinit-healthd, goes with it.
func (s *server) helperEnded(m ipc.Exited) {
	s.acks = append(s.acks, ack{seq: m.Seq})
	why := fmt.Sprintf("exit code %d", m.Code)
	if m.Signal != 0 {
		why = "killed by " + spec.SignalName(m.Signal)
	}
	if m.Left {
		s.killHelper(m.Run)
	} else {
		s.forgetHelper(m.Run)
	}
	s.helperDied(m.Run, why)
}

// helperDied plans the next start of a helper: at once, then after a pause that
// doubles while it keeps dying young.
func (s *server) helperDied(run ipc.RunID, why string) {
	for _, h := range s.helpers {
		if h.run != run {
			continue
		}
		h.run = 0
		if h.ending {
			h.row = 0
			return
		}
		if time.Since(h.started) >= helperGoodLife {
			h.row = 0
		}
		pause := time.Duration(0)
		if h.row > 0 {
			pause = min(helperPauseMin<<min(h.row-1, 16), helperPauseMax)
		}
		h.row++
		s.log.Warn("a helper has ended: starting it again", "helper", h.name, "end", why, "in", pause)
		if pause > 0 {
			h.again = time.AfterFunc(pause, func() { s.inbox <- func() { h.again = nil } })
		}
	}
}

// forgetHelper ends the life of a run of which nothing is left.
func (s *server) forgetHelper(run ipc.RunID) {
	s.keeper.send(ipc.KindForget, ipc.Forget{Run: run})
	delete(s.helperRuns, run)
}

// onHelper takes what the connection of a helper brings.
func (s *server) onHelper(m any) {
	switch m := m.(type) {
	case helperCame:
		for _, h := range s.helpers {
			if h.role == m.hello.Role && h.run == m.hello.Run && !h.ending {
				s.greetHelper(h, m)
				return
			}
		}
		m.conn.Close()
	case helperSaid:
		for _, h := range s.helpers {
			if h.conn == m.conn {
				if err := h.onFrame(m.frame); err != nil {
					s.log.Error("bad message from a helper", "helper", h.name, "error", err)
				}
			}
		}
	case helperGone:
		for _, h := range s.helpers {
			if h.conn == m.conn {
				h.conn = nil
				s.step(core.HelperDown{Helper: h.name, Why: string(h.name) + " is not there"})
				s.moved, s.allMoved = true, true
			}
		}
	}
}

// greetHelper begins to work with a helper that has connected.
func (s *server) greetHelper(h *helper, m helperCame) {
	if err := m.hello.Check(h.role); err != nil {
		s.log.Error("cannot work with a helper: ending it", "helper", h.name, "error", err)
		m.conn.Close()
		s.killHelper(h.run)
		return
	}
	if h.conn != nil {
		h.conn.Close()
	}
	h.conn = m.conn
	s.resultAck = 0 // that of another, or told again
	h.send(ipc.KindHello, ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: version.Version})
	s.step(core.HelperUp{Helper: h.name})
	s.moved, s.allMoved = true, true
}
