package main

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/supervisord/core"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// savingServer is as much of a server as saving takes, with one service.
func savingServer(t *testing.T) *server {
	t.Helper()
	services := map[string]*spec.Service{"web": spec.Default("web")}
	s := &server{
		services: services, core: core.New(services, core.Options{}), keeper: &keeper{},
		history: &history{}, store: newStore(filepath.Join(t.TempDir(), "state")),
	}
	t.Cleanup(s.store.remove)
	s.saveAll(nil)
	return s
}

// A reload puts records into the batch before the save, which may be the one
// that writes the journal afresh.
func TestReloadIsSavedInAFreshJournal(t *testing.T) {
	s := savingServer(t)
	s.store.size, s.store.live = 2<<20, 1
	if !s.store.outgrown() {
		t.Fatal("the journal is not to be written afresh: this test tests nothing")
	}
	changed := spec.Default("web")
	s.store.put(recordSpec, changed)
	s.step(core.Load{Services: map[string]*spec.Service{"web": changed}})
	s.save()
	if s.store.size >= 2<<20 {
		t.Fatal("the journal was not written afresh")
	}
	if _, err := loadState(s.store.path); err != nil {
		t.Errorf("the journal is of no use after a reload: %v", err)
	}
}

func TestErrorsOfFilesAreSavedEvenIfNothingElseChanges(t *testing.T) {
	s := savingServer(t)
	s.store.put(recordErrors, []spec.Problem{{File: "a.toml", Message: "no"}})
	s.save()
	got, err := loadState(s.store.path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Problems) != 1 {
		t.Errorf("%d problems are saved, not 1", len(got.Problems))
	}
}

// TestNewsComeAfterOrders: in a turn that orders something to start nobody is woken
// who only follows, but in the next, whatever that orders, and at once where a client
// waits.
func TestNewsComeAfterOrders(t *testing.T) {
	s := savingServer(t)
	told := func() bool {
		t.Helper()
		_, _, more := s.history.after(s.history.last())
		events, err := s.history.encode(time.Now(), []change{{}})
		if err != nil {
			t.Fatal(err)
		}
		s.history.add(events)
		s.ordered = true
		s.tell()
		select {
		case <-more:
			return true
		default:
			return false
		}
	}
	if told() {
		t.Error("who follows was woken before pid1 had its order")
	}
	if !told() {
		t.Error("who follows was not woken in the second turn")
	}
	s.after = []func(){func() {}}
	if !told() {
		t.Error("who follows was not woken with a client who waits")
	}
	if told() {
		t.Error("who follows was woken before pid1 had another order")
	}
}

// The loop may be waiting for the capture, which reports the ends.
func TestEndsOfLogPipesWaitForNobody(t *testing.T) {
	const many = 10_000
	e := &logEnds{more: make(chan struct{}, 1)}
	for run := range uint64(many) {
		e.add(run, logs.Stdout)
	}
	<-e.more
	if n := len(e.take()); n != many {
		t.Errorf("%d ends are known, not %d", n, many)
	}
	select {
	case <-e.more:
		t.Error("there are said to be more, and there are not")
	default:
	}
	e.add(1, logs.Stderr)
	<-e.more
	if got := e.take(); !slices.Equal(got, []logEnd{{1, logs.Stderr}}) {
		t.Errorf("after the first were taken: %v", got)
	}
}

func TestServicesNamedTwiceCountOnce(t *testing.T) {
	services := map[string]*spec.Service{"a": spec.Default("a"), "b": spec.Default("b")}
	s := &server{services: services, core: core.New(services, core.Options{})}
	names, refused := s.known([]string{"b", "a", "b"})
	if refused != nil || !slices.Equal(names, []string{"b", "a"}) {
		t.Errorf("known(b a b) = %v, %v", names, refused)
	}
}
