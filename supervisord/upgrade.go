package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

// An upgrade is a deliberate crash: the supervisor exits, pid1 starts the
// program that is on the disk by now, and that one takes over as after any
// other death. It is asked first whether it could. A supervisor that has to be
// undone would be undone in the same way, by putting the old file back.

// compat is what a zinit-server can take over, as --compat prints it.
type compat struct {
	Version string `json:"version"`
	// State are the formats of the saved state that it reads, Keeper the
	// protocols of pid1 that it speaks.
	State  []int `json:"state_formats"`
	Keeper []int `json:"keeper_protocols"`
}

func ownCompat() compat {
	c := compat{Version: version.Version, State: readFormats}
	for p := ipc.MinProtocol; p <= ipc.Protocol; p++ {
		c.Keeper = append(c.Keeper, p)
	}
	return c
}

func printCompat(w io.Writer) error { return json.NewEncoder(w).Encode(ownCompat()) }

const (
	// compatPatience bounds how long the new program may take to answer.
	compatPatience = 5 * time.Second
	// maxCompat bounds the answer, in bytes.
	maxCompat = 4 << 10
)

// askSuccessor asks the program that pid1 would start now what it can take
// over.
//
// The supervisor forks it itself, though else only pid1 does: nothing of it is
// to be remembered, so a run would be a burden. Should this supervisor die
// meanwhile, pid1 kills what is left of its process group and reaps it.
func askSuccessor(ctx context.Context, program string) (compat, error) {
	ctx, cancel := context.WithTimeout(ctx, compatPatience)
	defer cancel()
	type answer struct {
		c   compat
		err error
	}
	done := make(chan answer, 1)
	go func() { // a file system that does not answer holds up this goroutine alone
		c, err := runCompat(ctx, program)
		done <- answer{c, err}
	}()
	select {
	case a := <-done:
		return a.c, a.err
	case <-time.After(compatPatience + time.Second):
		return compat{}, fmt.Errorf("%s cannot be read: its file system does not answer", program)
	}
}

func runCompat(ctx context.Context, program string) (compat, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return compat{}, explainProgram(program, err)
	}
	// Reading first, because a fork that hangs in execve would stop the whole
	// program at its next garbage collection.
	if f, err := os.Open(path); err == nil {
		f.Read(make([]byte, 4096))
		f.Close()
	}
	var out, words limited
	cmd := exec.CommandContext(ctx, path, "--compat")
	cmd.Stdout, cmd.Stderr = &out, &words
	cmd.WaitDelay = 100 * time.Millisecond // what it has forked may hold its pipes
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return compat{}, fmt.Errorf("%s did not say within %s what it can take over", path, compatPatience)
	case errors.As(err, &exit):
		text, _, _ := strings.Cut(strings.TrimSpace(string(words)), "\n")
		return compat{}, fmt.Errorf("%s cannot say what it can take over: %v %s", path, err, text)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return compat{}, explainProgram(path, err)
	}
	var c compat
	if err := json.Unmarshal(out, &c); err != nil || c.Version == "" {
		return compat{}, fmt.Errorf("%s is no zinit-server that says what it can take over: its answer to --compat is %q", path, shorten(out))
	}
	return c, nil
}

// limited keeps the beginning of what is written to it. It is no bytes.Buffer, whose
// ReadFrom would take all.
type limited []byte

func (l *limited) Write(b []byte) (int, error) {
	*l = append(*l, b[:min(len(b), maxCompat-len(*l))]...)
	return len(b), nil
}

// explainProgram says in words why a program cannot be executed.
func explainProgram(program string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%s does not exist", program)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is not executable", program)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%s is no program for this machine", program)
	case errors.Is(err, unix.ETXTBSY):
		return fmt.Errorf("%s is being written: put it there with another name, then rename it", program)
	}
	return fmt.Errorf("%s cannot be executed: %w", program, err)
}

// refuses says why a program with those abilities cannot take over, "" if it
// can.
func (c compat) refuses(protocol int) string {
	switch {
	case !slices.Contains(c.State, stateFormat):
		return fmt.Sprintf("version %s reads the formats %v of the saved state, and the present one is %d", c.Version, c.State, stateFormat)
	case !slices.Contains(c.Keeper, protocol):
		return fmt.Sprintf("version %s speaks the protocols %v with zinit-pid1, and the one that runs speaks %d", c.Version, c.Keeper, protocol)
	}
	return ""
}

// upgrade replaces this supervisor by the program on the disk, once what it
// returns is answered. With an error nothing has changed.
func (s *server) upgrade(ctx context.Context) (ipc.Upgraded, error) {
	program := os.Args[0] // by which pid1 has started us, and would again
	c, err := askSuccessor(ctx, program)
	if err != nil {
		return ipc.Upgraded{}, err
	}
	if why := c.refuses(s.keeper.hello.Protocol); why != "" {
		return ipc.Upgraded{}, fmt.Errorf("%s cannot take over: %s", program, why)
	}
	u := ipc.Upgraded{From: version.Version, To: c.Version, ServerRestarts: s.keeper.hello.Restarts}
	var unsaved bool
	if err := s.in(ctx, func() { unsaved = s.unsaved }); err != nil {
		return u, err
	}
	if unsaved {
		return u, errors.New("the state cannot be saved (see the log), and nobody could take it over")
	}
	return u, nil
}

// leave ends this supervisor. It runs in the loop; what waits to be saved and
// acknowledged is, first.
func (s *server) leave(u ipc.Upgraded) {
	why := "upgrade from " + u.From + " to " + u.To
	if u.From == u.To {
		why = "replaced on request, version " + u.To
	}
	s.log.Info(why + ": services are not touched")
	s.after = append(s.after, func() {
		s.keeper.send(ipc.KindLeave, ipc.Leave{Why: why})
		s.keeper.conn.Flush()
		failpoint.Hit("leaving")
		os.Exit(0) // pid1 starts the other
	})
}

// upgradeBySignal is upgrade where nobody waits for an answer.
func (s *server) upgradeBySignal() {
	u, err := s.upgrade(context.Background())
	if err != nil {
		s.log.Error("not upgraded: this zinit-server goes on", "error", err)
		return
	}
	s.inbox <- func() { s.leave(u) }
}

func upgrade(c *client, ctx context.Context, r ipc.Request) (any, error) {
	u, err := c.s.upgrade(ctx)
	if err != nil {
		return nil, ipc.Errorf(ipc.ErrFailed, "not upgraded, zinit-server %s goes on: %v", version.Version, err)
	}
	if err := c.conn.Send(ipc.KindResponse, ipc.Response{ID: r.ID, Result: u}); err != nil {
		return nil, err
	}
	c.conn.Flush()
	c.s.inbox <- func() { c.s.leave(u) }
	<-ctx.Done() // there is nothing to add
	return nil, ctx.Err()
}
