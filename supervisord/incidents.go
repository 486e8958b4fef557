package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

const (
	// maxIncidents is how many of the newest failures are shown.
	maxIncidents = 100
	// incidentFile is the size in bytes at which a new file is begun. There are
	// two files at most.
	incidentFile = 512 << 10
	// incidentLines and incidentText bound what is kept of the output of a run:
	// lines, and the bytes of each.
	incidentLines = 20
	incidentText  = 512
)

// recordIncident is the type of the records of incident files, which are
// journals as that of the store. Numbers are never reused.
const recordIncident uint8 = 1 // incident

// incident is a failure as it is stored. Life and Seq name the event that told
// of it.
type incident struct {
	ipc.Incident
	Life string `msgpack:"life"`
	Seq  uint64 `msgpack:"seq"`
}

// incidents keeps the last failures with what the service has printed before.
//
// One goroutine, follow, reads the history as any other reader does and writes
// the files, so no failure ever holds up the loop, and after the supervisor
// was replaced it goes on where the one before was killed. A record that was
// torn by that is written again. The other methods may be called from any
// goroutine.
type incidents struct {
	path    string
	life    string // of this zinit, in which events are numbered
	history *history
	capture *logs.Capture
	log     *slog.Logger

	mu   sync.Mutex
	file *os.File
	size int64
	seq  uint64        // the event up to which everything is written
	more chan struct{} // closed when seq has grown; nil while nobody waits
}

// follow writes what has happened and what happens from now on.
func (in *incidents) follow(ctx context.Context) {
	if err := in.open(); err != nil {
		in.log.Error("cannot keep incidents", "error", err)
	}
	for ctx.Err() == nil {
		events, missed, more := in.history.after(in.seq)
		if missed > 0 {
			in.log.Warn("too many services have failed at once: not all is in incidents", "events", missed)
		}
		for i, raw := range events {
			// To decode them takes as long as all the rest of an event.
			if i < len(events)-1 && !bytes.Contains(raw, []byte(ipc.StateFailed)) {
				continue
			}
			var ch change
			if err := msgpack.Unmarshal(raw, &ch); err != nil {
				in.log.Error("cannot read an event", "error", err)
				continue
			}
			if ch.To == ipc.StateFailed {
				if err := in.write(in.describe(ch)); err != nil {
					in.log.Error("cannot keep an incident", "service", ch.Service, "error", err)
				}
			}
			in.advance(ch.Seq)
		}
		if more != nil {
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
}

// open finds out how far the files go. One that cannot be read is begun anew.
func (in *incidents) open() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, path := range []string{in.path + ".old", in.path} {
		whole, err := in.read(path, in.note)
		if err != nil {
			in.log.Error("what had failed before is not known any more", "error", err)
		}
		if err := os.Truncate(path, whole); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		in.size = whole
	}
	return in.create()
}

// create opens the file for more, at whose end it is, or makes it.
func (in *incidents) create() error {
	if err := makeRuntimeDir(filepath.Dir(in.path)); err != nil {
		return err
	}
	f, err := os.OpenFile(in.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	in.file = f
	return err
}

func (in *incidents) note(i incident) {
	if i.Life == in.life {
		in.seq = max(in.seq, i.Seq)
	}
}

// read calls each for the records of a file, which need not be there, and
// returns the length of those that are whole.
func (in *incidents) read(path string, each func(incident)) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, fmt.Errorf("cannot read incidents: %w", err)
	}
	return eachRecord(b, func(kind uint8, body []byte) error {
		var i incident
		if err := msgpack.Unmarshal(body, &i); err != nil {
			return fmt.Errorf("cannot read incidents: %s has an unknown form: %w", path, err)
		}
		each(i)
		return nil
	})
}

// describe adds what the run has printed.
func (in *incidents) describe(ch change) incident {
	i := incident{
		Incident: ipc.Incident{Name: ch.Service, At: *ch.Time, Reason: ch.Reason, Lines: []string{}, Decision: ch.Decision},
		Life:     in.life, Seq: ch.Seq,
	}
	if ch.Run == 0 || ch.Reason.Service != "" || ch.Reason.Services != nil {
		return i // it was not run
	}
	i.Run = uint64(ch.Run)
	in.capture.Drain(i.Run)
	err := in.capture.Tail(logs.Query{
		Services: []string{ch.Service}, Lines: incidentLines,
		Runs: func(string) (first, last uint64) { return i.Run, i.Run },
	}, func(l logs.Line) error {
		if l.Missed == 0 {
			i.Lines = append(i.Lines, shorten(l.Text))
		}
		return nil
	})
	if err != nil {
		in.log.Error("cannot read the last lines of a service", "service", ch.Service, "error", err)
	}
	return i
}

// shorten keeps the beginning of a line, as UTF-8 in any case.
func shorten(text []byte) string {
	if len(text) <= incidentText {
		return string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
	}
	return string(bytes.ToValidUTF8(text[:incidentText], nil)) + "…"
}

// write appends a record, in a new file where this one is full.
func (in *incidents) write(i incident) error {
	body, err := msgpack.Marshal(i)
	if err != nil {
		return err
	}
	record := append(make([]byte, frameSize, frameSize+1+len(body)), recordIncident)
	record = append(record, body...)
	seal(record)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.file != nil && unlinked(in.file) { // somebody has removed it
		in.file.Close()
		in.file, in.size = nil, 0
	}
	if in.file == nil {
		if err := in.create(); err != nil {
			return err
		}
	}
	if in.size > 0 && in.size+int64(len(record)) > incidentFile {
		f, err := os.OpenFile(in.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Rename(in.path, in.path+".old"), os.Rename(in.path+".new", in.path)); err != nil {
			f.Close()
			return err
		}
		in.file.Close()
		in.file, in.size = f, 0
	}
	if _, err := in.file.Write(record); err != nil {
		in.file.Truncate(in.size) // or what follows could not be read
		return err
	}
	in.size += int64(len(record))
	return nil
}

func (in *incidents) advance(seq uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.seq = seq
	if in.more != nil {
		close(in.more)
		in.more = nil
	}
}

// patience bounds how long a client waits for failures to be written that it
// may know of.
const patience = 2 * time.Second

// list returns the newest failures of a service, or of all, oldest first, with
// all that have happened before the call.
func (in *incidents) list(ctx context.Context, name string) ([]ipc.Incident, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	in.wait(ctx, in.history.last())
	in.mu.Lock()
	defer in.mu.Unlock()
	var out []ipc.Incident
	for _, path := range []string{in.path + ".old", in.path} {
		if _, err := in.read(path, func(i incident) {
			if name == "" || i.Name == name {
				out = append(out, i.Incident)
			}
		}); err != nil {
			return nil, err
		}
	}
	return out[max(0, len(out)-maxIncidents):], nil
}

// wait returns when everything up to an event is written.
func (in *incidents) wait(ctx context.Context, seq uint64) {
	for ctx.Err() == nil {
		in.mu.Lock()
		if in.seq >= seq {
			in.mu.Unlock()
			return
		}
		if in.more == nil {
			in.more = make(chan struct{})
		}
		more := in.more
		in.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
	}
}

func listIncidents(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	out, err := c.s.incidents.list(ctx, p.Name)
	if err == nil && len(out) == 0 && p.Name != "" {
		_, err = c.specOf(ctx, p.Name)
	}
	return items(c, r, out, err)
}
