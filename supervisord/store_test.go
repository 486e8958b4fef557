package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// journal writes a header, a service and a first state, then one batch for
// each of the following.
func journal(t testing.TB, batches ...core.Changes) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	s := newStore(path)
	s.put(recordHeader, header{Format: stateFormat, Boot: "b", Keeper: 7, Started: 9})
	s.put(recordSpec, spec.Default("web"))
	s.put(recordErrors, []spec.Problem{{File: "a.toml", Line: 3, Message: "no"}})
	if err := s.rewrite(); err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := s.putChanges(b); err != nil {
			t.Fatal(err)
		}
		if err := s.append(); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func record(name string, state core.State, runs ...core.RunID) core.Record {
	r := core.Record{Name: name, State: state}
	for _, id := range runs {
		r.Runs = append(r.Runs, &core.Run{ID: id, Pid: int(id)})
	}
	return r
}

func TestStateIsReadBack(t *testing.T) {
	want := record("web", core.StateRunning, 5)
	path := journal(t,
		core.Changes{Global: &core.Global{LastRun: 4}, Records: []core.Record{record("web", core.StateStarting, 5), record("old", core.StateExited)}},
		core.Changes{Global: &core.Global{LastRun: 5}, Records: []core.Record{want}, Removed: []string{"old"}},
	)
	got, err := loadState(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.Global.LastRun != 5 || len(got.Records) != 1 || !reflect.DeepEqual(got.Records["web"], want) {
		t.Errorf("the last records do not count: %+v", got)
	}
	if !reflect.DeepEqual(got.Services["web"], spec.Default("web")) {
		t.Errorf("the configuration in effect is not read back: %+v", got.Services["web"])
	}
	if got.Header.Keeper != 7 || len(got.Problems) != 1 {
		t.Errorf("header or problems are not read back: %+v", got)
	}
}

// Cut at any byte of the last batch, what was saved before it is still there
// and the batch is not there in part.
func TestTornBatchIsDropped(t *testing.T) {
	first := core.Changes{Records: []core.Record{record("db", core.StateStarting, 4), record("web", core.StateStarting, 5)}}
	whole, err := os.ReadFile(journal(t, first, core.Changes{Records: []core.Record{record("db", core.StateRunning, 4), record("web", core.StateRunning, 5)}}))
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(journal(t, first))
	if err != nil {
		t.Fatal(err)
	}
	for size := len(before); size <= len(whole); size++ {
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := loadState(path)
		if err != nil {
			t.Fatalf("cut to %d of %d bytes: %v", size, len(whole), err)
		}
		want := core.StateStarting
		if size == len(whole) {
			want = core.StateRunning
		}
		for _, name := range []string{"db", "web"} {
			if got.Records[name].State != want {
				t.Errorf("cut to %d of %d bytes: %s is %v, want %v", size, len(whole), name, got.Records[name].State, want)
			}
		}
		if n := len(whole) - len(before); got.cut != (size-len(before))%n {
			t.Errorf("cut to %d of %d bytes: %d are said to be cut", size, len(whole), got.cut)
		}
	}
}

// The part that is written afresh counts as a whole, or the state would be one
// that never was.
func TestStateThatWasCutShortIsOfNoUse(t *testing.T) {
	path := journal(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := range whole {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadState(path); err == nil {
			t.Errorf("cut to %d of %d bytes it is taken for a state", size, len(whole))
		}
	}
}

// A release reads the format before its own.
func TestStateOfTheFormatBeforeIsRead(t *testing.T) {
	var b []byte
	s := newStore("")
	for kind, body := range map[uint8]any{recordSpec: spec.Default("web"), recordState: record("web", core.StateRunning, 5)} {
		s.put(kind, body)
	}
	records := s.buf.Bytes()[frameSize+1:]
	s = newStore("")
	s.put(recordHeader, header{Format: 1, Boot: "b"})
	b = append(b, s.buf.Bytes()[frameSize+1:]...)
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, append(b, records...), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := loadState(path)
	if err != nil || got.Records["web"].State != core.StateRunning || got.Services["web"] == nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestStateOfNoUseIsSaidToBe(t *testing.T) {
	dir := t.TempDir()
	if got, err := loadState(filepath.Join(dir, "none")); got != nil || err != nil {
		t.Errorf("no state: got %v, %v", got, err)
	}
	for name, content := range map[string]string{
		"empty": "", "garbage": "hello, this is no journal at all", "zeros": string(make([]byte, 4096)),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadState(path); err == nil {
			t.Errorf("%s: it is taken for a state", name)
		}
	}
	s := newStore(filepath.Join(dir, "newer"))
	s.put(recordHeader, header{Format: stateFormat + 1})
	if err := s.rewrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := loadState(s.path); err == nil {
		t.Error("a state of a newer format is taken")
	}
}

// A state that cannot be appended to is written afresh as soon as it can.
func TestFailedAppendIsMadeGood(t *testing.T) {
	path := journal(t)
	s := newStore(path)
	s.put(recordHeader, header{Format: stateFormat})
	if err := s.rewrite(); err != nil {
		t.Fatal(err)
	}
	s.file.Close()
	s.putChanges(core.Changes{Records: []core.Record{record("web", core.StateRunning)}})
	if err := s.append(); err == nil {
		t.Fatal("an append to a closed file succeeds")
	}
	if !s.outgrown() {
		t.Error("after a failed append the journal is not written afresh")
	}
	s.put(recordHeader, header{Format: stateFormat})
	s.putChanges(core.Changes{Records: []core.Record{record("web", core.StateExited)}})
	if err := s.rewrite(); err != nil {
		t.Fatal(err)
	}
	got, err := loadState(path)
	if err != nil || got.Records["web"].State != core.StateExited {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzState reads journals whose records have been tampered with and sealed
// again, whole and cut off anywhere: what is there before the cut counts.
func FuzzState(f *testing.F) {
	path := journal(f,
		core.Changes{Global: &core.Global{LastRun: 4}, Records: []core.Record{record("web", core.StateStarting, 5), record("old", core.StateExited)}},
		core.Changes{Records: []core.Record{record("web", core.StateRunning, 5)}, Removed: []string{"old"}},
	)
	real, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real, len(real)/2)
	f.Add(real, len(real)-1)
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x00\x01"), 0)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		b = bytes.Clone(b) // it is the fuzzer's
		for rest := b; len(rest) >= frameSize; {
			n := int(binary.BigEndian.Uint32(rest))
			if n < 1 || n > len(rest)-frameSize {
				break
			}
			seal(rest[:frameSize+n])
			rest = rest[frameSize+n:]
		}
		load := func(b []byte) (*saved, error) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := loadState(path)
			if err == nil && !slices.Contains(readFormats, got.Header.Format) {
				t.Fatalf("%x is taken for a state: %+v", b, got)
			}
			return got, err
		}
		whole, err := load(b)
		if err != nil {
			return
		}
		part, err := load(b[:max(0, min(cut, len(b)))])
		if err == nil && len(part.Events) > len(whole.Events) {
			t.Fatalf("a part has %d events, the whole %d", len(part.Events), len(whole.Events))
		}
		if err != nil && !strings.Contains(err.Error(), "does not begin with a header") && !strings.Contains(err.Error(), "was cut short") {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	})
}
