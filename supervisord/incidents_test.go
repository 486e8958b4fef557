package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
	"github.com/threefoldtech/zinit/supervisord/logs"
)

// diary is incidents with the surroundings that they have in the supervisor.
type diary struct {
	*incidents
	t    *testing.T
	stop func()
}

func keepIncidents(t *testing.T, dir, life string, h *history) *diary {
	t.Helper()
	capture, err := logs.Open(logs.Options{Dir: dir + "/logs"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d := &diary{t: t, incidents: &incidents{
		path: dir + "/incidents", life: life, history: h, capture: capture, log: slog.New(slog.DiscardHandler),
	}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.follow(ctx)
	}()
	d.stop = func() {
		cancel()
		<-ended
		capture.Close()
	}
	t.Cleanup(d.stop)
	return d
}

func (d *diary) all(name string) []ipc.Incident {
	d.t.Helper()
	list, err := d.list(context.Background(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

func failure(service string, run core.RunID) core.Changed {
	return core.Changed{
		Service: service, From: core.StateRunning, To: core.StateFailed, Run: run,
		Reason: &core.Reason{Kind: core.ReasonSignal, Message: "killed by SIGSEGV"}, Decision: "restarted in 1s",
	}
}

// print has a run of a service print lines.
func (d *diary) print(service string, run uint64, lines ...string) {
	d.t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		d.t.Fatal(err)
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	w := os.NewFile(uintptr(p[1]), "pipe")
	defer w.Close()
	if err := d.capture.Add(service, run, logs.Stderr, p[0]); err != nil {
		d.t.Fatal(err)
	}
	if _, err := w.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		d.t.Fatal(err)
	}
}

func TestIncidentHasTheLastLinesOfItsRun(t *testing.T) {
	h := &history{}
	d := keepIncidents(t, t.TempDir(), "life", h)
	d.print("db", 1, "of another run")
	lines := []string{}
	for i := range incidentLines + 5 {
		lines = append(lines, fmt.Sprint("line ", i))
	}
	d.print("db", 2, append(lines, strings.Repeat("x", incidentText+1), "bad \xff byte")...)
	d.print("db", 3, "of another run")
	fail(t, h, failure("db", 2))
	happen(t, h, 3)
	fail(t, h, failure("web", 4))

	list := d.all("")
	if len(list) != 2 || list[0].Name != "db" || list[1].Name != "web" {
		t.Fatalf("incidents are %+v, want those of db and web", list)
	}
	in := list[0]
	if in.Run != 2 || in.Reason.Message != "killed by SIGSEGV" || in.Decision != "restarted in 1s" {
		t.Errorf("the incident is %+v", in)
	}
	n := len(in.Lines)
	if n != incidentLines || in.Lines[0] != "line 7" || in.Lines[n-1] != "bad \uFFFD byte" || in.Lines[n-2] != strings.Repeat("x", incidentText)+"…" {
		t.Errorf("its lines are %q", in.Lines)
	}
	if only := d.all("web"); len(only) != 1 || only[0].Name != "web" || len(only[0].Lines) != 0 {
		t.Errorf("incidents of web are %+v", only)
	}
}

// TestIncidentsGoOnAfterACrash: what the journal of the store has and the file
// has not, or only half, is written by the next supervisor, and nothing twice.
func TestIncidentsGoOnAfterACrash(t *testing.T) {
	dir := t.TempDir()
	h := &history{}
	d := keepIncidents(t, dir, "life", h)
	fail(t, h, failure("a", 1))
	fail(t, h, failure("b", 2))
	d.all("")
	d.stop()
	file := filepath.Join(dir, "incidents")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, int64(len(b)-3)); err != nil {
		t.Fatal(err)
	}
	fail(t, h, failure("c", 3))

	d = keepIncidents(t, dir, "life", h)
	fail(t, h, failure("d", 4))
	if got := names(d.all("")); got != "a b c d" {
		t.Errorf("incidents of %s, want a b c d", got)
	}
	d.stop()

	// Another zinit has numbers of its own.
	h = &history{}
	d = keepIncidents(t, dir, "another life", h)
	fail(t, h, failure("e", 5))
	if got := names(d.all("")); got != "a b c d e" {
		t.Errorf("incidents of %s, want a b c d e", got)
	}
}

func names(list []ipc.Incident) string {
	var all []string
	for _, in := range list {
		all = append(all, in.Name)
	}
	return strings.Join(all, " ")
}

func TestIncidentsAreBounded(t *testing.T) {
	dir := t.TempDir()
	h := &history{}
	d := keepIncidents(t, dir, "life", h)
	happen(t, h, 1)
	d.all("") // the file is open then
	in := incident{Incident: ipc.Incident{Name: "db"}, Life: "life"}
	for range incidentLines {
		in.Lines = append(in.Lines, strings.Repeat("x", incidentText))
	}
	for range 5 * incidentFile / (incidentLines * incidentText) {
		if err := d.write(in); err != nil {
			t.Fatal(err)
		}
	}
	size := int64(0)
	files, err := filepath.Glob(dir + "/incidents*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if len(files) != 2 || size > 2*incidentFile {
		t.Errorf("%d files have %d bytes, want two of at most %d each", len(files), size, incidentFile)
	}
	if n := len(d.all("db")); n < 50 || n > maxIncidents {
		t.Errorf("%d incidents are kept, want 50 to %d", n, maxIncidents)
	}
}
