package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// drain is how long output may keep coming after the end of a probe: from a
// process that has left its group.
const drain = 100 * time.Millisecond

// probeExec runs a command in a process group of its own, in the session of
// zinit-healthd, which zinit-pid1 ends with it. The group is killed when the
// command has ended or its time is over; gone is closed when it has been reaped,
// where that takes longer.
func probeExec(ctx context.Context, c *ipc.ProbeCommand) (message string, gone <-chan struct{}, err error) {
	if c.Error != "" {
		return "", nil, errors.New(c.Error)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, fmt.Errorf("cannot make a pipe for its output: %w", err)
	}
	defer r.Close()
	process, err := start(c, w)
	w.Close()
	if err != nil {
		return "", nil, err
	}
	last := make(chan string, 1)
	go func() { last <- lastLine(r) }()
	ended := make(chan struct{})
	go func() {
		waitEnd(process.Pid)
		close(ended)
	}()
	late := false
	select {
	case <-ended:
	case <-ctx.Done():
		late = true
	}
	unix.Kill(-process.Pid, unix.SIGKILL)
	r.SetReadDeadline(time.Now().Add(drain))
	line := <-last
	if late {
		reaped := make(chan struct{})
		go func() {
			<-ended
			process.Wait()
			close(reaped)
		}()
		return "", reaped, &stageError{doing: c.Argv[0], err: os.ErrDeadlineExceeded, said: line}
	}
	state, err := process.Wait()
	if err != nil {
		return "", nil, fmt.Errorf("cannot wait for it: %w", err)
	}
	if !state.Success() {
		if line != "" {
			line = ": " + line
		}
		return "", nil, errors.New(endOf(state.Sys().(syscall.WaitStatus)) + line)
	}
	return line, nil, nil
}

func endOf(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

// start executes a command with its output going to w.
func start(c *ipc.ProbeCommand, w *os.File) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open its standard input: %w", err)
	}
	defer null.Close()
	places := lookPath(c)
	if len(places) == 0 {
		return nil, fmt.Errorf("cannot find %s in PATH", c.Argv[0])
	}
	attr := &os.ProcAttr{Dir: c.Dir, Env: c.Env, Files: []*os.File{null, w, w}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	// An ordinary user may not even ask for what it is already.
	if id := c.Cred; id != nil && (os.Getuid() == 0 || int(id.UID) != os.Getuid() || int(id.GID) != os.Getgid()) {
		attr.Sys.Credential = &syscall.Credential{Uid: id.UID, Gid: id.GID, Groups: id.Groups}
	}
	// Its user may not be able to enter where zinit sees it first.
	var refused error
	for _, path := range places {
		process, err := os.StartProcess(path, c.Argv, attr)
		if err == nil {
			return process, nil
		}
		denied := errors.Is(err, unix.EACCES)
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		if refused == nil || !denied {
			refused = fmt.Errorf("cannot run %s: %w", path, err)
		}
		if !denied {
			break
		}
	}
	return nil, refused
}

// lookPath lists where the program is in the PATH of the command's own environment.
func lookPath(c *ipc.ProbeCommand) []string {
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	search := ""
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var list []string
	for _, dir := range filepath.SplitList(search) {
		path := filepath.Join(dir, name)
		at := path
		if !filepath.IsAbs(path) {
			path = "./" + path
			at = filepath.Join(c.Dir, path)
		}
		if info, err := os.Stat(at); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			list = append(list, path)
		}
	}
	return list
}

// lastLine reads all there is and returns the last line that is not empty, of
// bounded length.
func lastLine(r *os.File) string {
	var line, last []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			part, after, ended := bytes.Cut(rest, []byte("\n"))
			line = append(line, part[:min(len(part), maxMessage-len(line))]...)
			rest = after
			if ended {
				if len(bytes.TrimSpace(line)) > 0 {
					last = append(last[:0], line...)
				}
				line = line[:0]
			}
		}
		if err != nil {
			break
		}
	}
	if len(bytes.TrimSpace(line)) > 0 {
		last = line
	}
	return string(last)
}
