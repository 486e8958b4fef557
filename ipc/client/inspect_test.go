package client

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

func TestEventsGoOnAfterTheLastOneWhenTheSupervisorIsReplaced(t *testing.T) {
	lives := 0
	c, server, ctx := dialTest(t, func(r *ipctest.Request) {
		lives++
		switch lives {
		case 1:
			r.Item(ipc.Event{Seq: 1, Service: "db"})
			r.Item(ipc.Event{Seq: 2, Service: "web"})
			r.Cut()
		case 2:
			r.Item(ipc.Event{Missed: 40})
			r.Cut()
		case 3:
			r.Item(ipc.Event{Seq: 43, Service: "api"})
			<-r.Canceled
		}
	})
	ctx, cancel := context.WithCancel(ctx)
	var had []uint64
	err := c.Events(ctx, true, func(e ipc.Event) error {
		had = append(had, e.Seq)
		if e.Seq == 43 {
			cancel()
		}
		return nil
	})
	if err != context.Canceled || !slices.Equal(had, []uint64{1, 2, 0, 43}) {
		t.Errorf("had %v, %v", had, err)
	}
	want := []string{
		"events.subscribe map[follow:true]",
		"events.subscribe map[after:2 follow:true]",
		"events.subscribe map[after:42 follow:true]",
	}
	if got := server.Asked(); !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

func TestWhatTheServerIsAskedToShow(t *testing.T) {
	stats := []ipc.Stats{{Name: "web", Processes: 2}}
	incidents := []ipc.Incident{{Name: "web", Lines: []string{"a line"}}}
	config := ipc.Config{TOML: "[service]\n", Config: map[string]any{"service": map[string]any{"name": "web"}}}
	methods := []ipc.Method{{Name: "system.ping", Params: []ipc.Param{}, Result: "version"}}
	parts := []map[string]any{{"part": "server", "store": map[string]any{"path": "/run/zinit/state"}}}
	spawned := 12.5
	boot := []ipc.BootService{{Name: "web", WantedAtMS: 1, SpawnedAtMS: &spawned, WaitedFor: "db"}}
	c, server, ctx := dialTest(t, func(r *ipctest.Request) {
		switch r.Method {
		case "service.stats":
			ipctest.Items(r, stats)
		case "service.incidents":
			ipctest.Items(r, incidents)
		case "service.boot":
			ipctest.Items(r, boot)
		case "system.metrics":
			ipctest.Items(r, []map[string]string{{"text": "a 1\n"}, {"text": "# EOF\n"}})
		case "service.get":
			r.Respond(config)
		case "rpc.discover":
			ipctest.Items(r, methods)
		case "debug.state":
			ipctest.Items(r, parts)
		}
	})
	for _, test := range []struct {
		asked string
		call  func() (any, error)
		want  any
	}{
		{"service.stats map[names:[web]]", func() (any, error) { return c.Stats(ctx, "web") }, stats},
		{"service.stats map[]", func() (any, error) { return c.Stats(ctx) }, stats},
		{"service.incidents map[name:web]", func() (any, error) { return c.Incidents(ctx, "web") }, incidents},
		{"service.boot map[]", func() (any, error) { return c.Boot(ctx) }, boot},
		{"system.metrics map[]", func() (any, error) { return c.Metrics(ctx) }, "a 1\n# EOF\n"},
		{"service.get map[name:web reveal:true]", func() (any, error) { return c.Get(ctx, "web", true) }, config},
		{"service.get map[name:web]", func() (any, error) { return c.Get(ctx, "web", false) }, config},
		{"rpc.discover map[]", func() (any, error) { return c.Discover(ctx) }, methods},
		{"debug.state map[]", func() (any, error) { return c.DebugState(ctx) }, parts},
	} {
		got, err := test.call()
		if asked := server.Asked(); err != nil || !slices.Equal(asked, []string{test.asked}) || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: asked for %q, got %+v, %v", test.asked, asked, got, err)
		}
	}
}

// TestProcessesComeInPartsThatFitTogether: what was too deep or too much for
// an item is hung to where it belongs.
func TestProcessesComeInPartsThatFitTogether(t *testing.T) {
	process := func(pid int, children ...ipc.Process) ipc.Process {
		return ipc.Process{Pid: pid, Command: "sh", Children: children}
	}
	more := func(p ipc.Process) ipc.Process {
		p.More = true
		return p
	}
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		ipctest.Items(r, []ipc.Process{
			more(process(1, process(2), more(process(3)))),
			more(process(3, more(process(4)))),
			process(1, process(8)),
			process(4, process(5)),
			process(3, process(6)),
			process(7),
		})
	})
	got, err := c.Processes(ctx, "web")
	want := []ipc.Process{process(1, process(2), process(3, process(4, process(5)), process(6)), process(8)), process(7)}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}
