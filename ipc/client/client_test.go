package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dialTest(t *testing.T, handle func(*ipctest.Request)) (*Client, *ipctest.Server, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	s := ipctest.Serve(t, handle)
	c, err := Dial(ctx, s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, s, ctx
}

func TestEachMethodAsksForWhatItSaysAndDecodesTheAnswer(t *testing.T) {
	at := ipc.Time(time.Unix(5, 7).UTC())
	web := ipc.Service{Name: "web", State: ipc.StateRunning, Since: &at, Requires: []string{"db"}}
	moved := ipc.Moved{Name: "web", From: ipc.StateStarting, To: ipc.StateRunning}
	tree := ipc.Tree{Name: "web", Requires: []ipc.Tree{{Name: "db"}}}
	why := ipc.Why{Name: "web", BlockedBy: []ipc.Block{{Name: "db", Because: &ipc.Why{Name: "db"}}}}
	info := ipc.Info{Version: "1", Services: map[string]int{"running": 2}}
	line := ipc.LogLine{Time: &at, Service: "web", Stream: "stdout", Text: "hello"}
	c, server, ctx := dialTest(t, func(r *ipctest.Request) {
		switch r.Method {
		case "service.list", "service.status", "service.wait":
			ipctest.Items(r, []ipc.Service{web})
		case "service.start", "service.stop", "service.restart":
			ipctest.Items(r, []ipc.Moved{moved})
		case "service.tree":
			ipctest.Items(r, []ipc.Tree{tree})
		case "logs.get", "logs.follow":
			ipctest.Items(r, []ipc.LogLine{line})
		case "service.why":
			r.Respond(why)
		case "system.info":
			r.Respond(info)
		case "system.ping":
			r.Respond(map[string]any{"version": "9"})
		case "service.kill":
			r.Respond(map[string]any{})
		}
	})
	moves := func(do func(func(ipc.Moved)) error) (any, error) {
		var all []ipc.Moved
		err := do(func(m ipc.Moved) { all = append(all, m) })
		return all, err
	}
	lines := func(do func(func(ipc.LogLine) error) error) (any, error) {
		var all []ipc.LogLine
		err := do(func(l ipc.LogLine) error { all = append(all, l); return nil })
		return all, err
	}
	for _, test := range []struct {
		asked string
		want  any
		do    func() (any, error)
	}{
		{"service.list map[class:user state:failed]", []ipc.Service{web}, func() (any, error) {
			return c.List(ctx, Filter{State: ipc.StateFailed, Class: "user"})
		}},
		{"service.status map[names:[web]]", []ipc.Service{web}, func() (any, error) { return c.Status(ctx, "web") }},
		{"service.wait map[for:healthy names:[web]]", []ipc.Service{web}, func() (any, error) {
			return c.Wait(ctx, Options{}, ForHealthy, "web")
		}},
		{"service.start map[names:[web] no_wait:true]", []ipc.Moved{moved}, func() (any, error) {
			return moves(func(f func(ipc.Moved)) error { return c.Start(ctx, Options{NoWait: true}, f, "web") })
		}},
		{"service.stop map[names:[web]]", []ipc.Moved{moved}, func() (any, error) {
			return moves(func(f func(ipc.Moved)) error { return c.Stop(ctx, Options{}, f, "web") })
		}},
		{"service.restart map[names:[web]]", []ipc.Moved{moved}, func() (any, error) {
			return moves(func(f func(ipc.Moved)) error { return c.Restart(ctx, Options{}, f, "web") })
		}},
		{"service.tree map[name:web reverse:true]", []ipc.Tree{tree}, func() (any, error) { return c.Tree(ctx, "web", true) }},
		{"logs.get map[lines:3 names:[web]]", []ipc.LogLine{line}, func() (any, error) {
			return lines(func(f func(ipc.LogLine) error) error {
				return c.Logs(ctx, ipc.LogsParams{Names: []string{"web"}, Lines: 3}, f)
			})
		}},
		{"logs.follow map[lines:0 stream:stderr]", []ipc.LogLine{line}, func() (any, error) {
			return lines(func(f func(ipc.LogLine) error) error {
				return c.FollowLogs(ctx, ipc.LogsParams{Stream: "stderr"}, f)
			})
		}},
		{"service.why map[name:web]", why, func() (any, error) { return c.Why(ctx, "web") }},
		{"system.info map[]", info, func() (any, error) { return c.Info(ctx) }},
		{"system.ping map[]", "9", func() (any, error) { return c.Ping(ctx) }},
		{"service.kill map[name:web signal:HUP]", nil, func() (any, error) { return nil, c.Kill(ctx, "web", "HUP") }},
	} {
		got, err := test.do()
		if err != nil {
			t.Errorf("%s: %v", test.asked, err)
			continue
		}
		if asked := server.Asked(); !slices.Equal(asked, []string{test.asked}) {
			t.Errorf("asked for %s, want %s", asked, test.asked)
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.asked, got, test.want)
		}
	}
}

func TestManyRequestsAtOnceOnOneConnection(t *testing.T) {
	var waiting sync.WaitGroup
	waiting.Add(50)
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		// Nothing is answered before everything has been asked.
		waiting.Done()
		waiting.Wait()
		var p ipc.NameParams
		r.Params(&p)
		r.Respond(ipc.Why{Name: p.Name})
	})
	var done sync.WaitGroup
	for i := range 50 {
		done.Go(func() {
			name := fmt.Sprint("svc", i)
			if why, err := c.Why(ctx, name); err != nil || why.Name != name {
				t.Errorf("asked for %s, got %s, %v", name, why.Name, err)
			}
		})
	}
	done.Wait()
}

func TestRefusalsAreTypedErrors(t *testing.T) {
	c, s, ctx := dialTest(t, func(r *ipctest.Request) {
		r.Fail(&ipc.Error{Kind: ipc.ErrNotFound, Message: "no service dbb", Service: "dbb", Nearest: "db"})
	})
	_, err := c.Status(ctx, "dbb")
	var refused *ipc.Error
	if !errors.As(err, &refused) || refused.Kind != ipc.ErrNotFound || refused.Nearest != "db" || err.Error() != "no service dbb" {
		t.Errorf("got %#v", err)
	}

	s.Deny(ipc.Errorf(ipc.ErrDenied, "uid 7 may not"))
	if _, err := Dial(ctx, s.Socket); !errors.As(err, &refused) || refused.Kind != ipc.ErrDenied {
		t.Errorf("got %v, want the refusal", err)
	}
}

// serveFrames is a server of which the test says each frame; end ends it and
// waits until it has.
func serveFrames(t *testing.T, serve func(*ipc.Conn)) (socket string, end func()) {
	t.Helper()
	socket = ipctest.Serve(t, nil).Socket + "2"
	fd, err := ipc.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ipc.NewListener(fd)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	})
	end = func() {
		l.Close()
		running.Wait()
	}
	t.Cleanup(end)
	return socket, end
}

// kinds reads so many frames and returns what they are.
func kinds(conn *ipc.Conn, n int) (all []ipc.Kind) {
	for range n {
		f, err := conn.Read()
		if err != nil {
			return append(all, 255)
		}
		all = append(all, f.Kind)
	}
	return all
}

var helloOfServer = ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleSupervisor, Version: "1"}

func TestFirstQuestionComesWithTheGreeting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got []ipc.Kind
	socket, end := serveFrames(t, func(conn *ipc.Conn) {
		got = kinds(conn, 2) // a server that is asked later would wait here for ever
		conn.Send(ipc.KindHello, helloOfServer)
		conn.Send(ipc.KindResponse, ipc.Response{ID: 1, Result: map[string]string{"version": "9"}})
		conn.Read()
	})
	c := New(socket)
	version, err := c.Ping(ctx)
	c.Close()
	end()
	if err != nil || version != "9" || !slices.Equal(got, []ipc.Kind{ipc.KindHello, ipc.KindRequest}) {
		t.Errorf("got version %q, error %v; the server got frames %v", version, err, got)
	}
}

// A signal must not be sent twice, so it is not asked for before somebody is
// there to do it.
func TestWhatIsNotRepeatedWaitsForTheGreeting(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := 0
	socket, end := serveFrames(t, func(conn *ipc.Conn) {
		if n++; n <= 2 {
			kinds(conn, 1)
			return // dies over the greeting
		}
		kinds(conn, 1)
		conn.Send(ipc.KindHello, helloOfServer)
		kinds(conn, 1)
		conn.Send(ipc.KindResponse, ipc.Response{ID: 1, Result: struct{}{}})
		conn.Read()
	})
	c := New(socket)
	err := c.Kill(ctx, "web", "")
	c.Close()
	end()
	if err != nil || n != 3 {
		t.Errorf("got %v after %d connections, want one answer after three", err, n)
	}
}

func TestFirstQuestionIsAskedAgainOfTheNextServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got [][]ipc.Kind
	socket, end := serveFrames(t, func(conn *ipc.Conn) {
		if len(got) == 0 {
			got = append(got, kinds(conn, 2))
			return
		}
		got = append(got, kinds(conn, 1)) // now the greeting alone
		conn.Send(ipc.KindHello, helloOfServer)
		kinds(conn, 1)
		conn.Send(ipc.KindEnd, ipc.End{ID: 1})
		conn.Read()
	})
	c := New(socket)
	_, err := c.List(ctx, Filter{})
	c.Close()
	end()
	if want := "[[0 1] [0]]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, frames %v, want %s", err, got, want)
	}
}

func TestErrorsThatDialWouldReturnComeWithTheFirstQuestion(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var refused *ipc.Error
	denies, _ := serveFrames(t, func(conn *ipc.Conn) {
		conn.Send(ipc.KindError, ipc.ErrorAnswer{Error: ipc.Error{Kind: ipc.ErrDenied, Message: "uid 7 may not"}})
	})
	c := New(denies)
	defer c.Close()
	if _, err := c.Info(ctx); !errors.As(err, &refused) || refused.Kind != ipc.ErrDenied {
		t.Errorf("got %v, want the refusal", err)
	}
	var unreachable *Unreachable
	none := New(filepath.Join(t.TempDir(), "missing.sock"))
	if _, err := none.Info(ctx); !errors.As(err, &unreachable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	mute, _ := serveFrames(t, func(conn *ipc.Conn) { kinds(conn, 4) })
	silent := New(mute)
	defer silent.Close()
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := silent.Info(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody greets: %v", err)
	}
}

func TestErrorsWithoutServerSayWhichSocket(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.sock")
	_, err := Dial(ctx, missing)
	var unreachable *Unreachable
	if !errors.As(err, &unreachable) || unreachable.Socket != missing || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	if want := "cannot reach zinit-server at " + missing + ": no such file or directory"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}

	s := ipctest.Serve(t, nil)
	fd, err := ipc.Listen(s.Socket+"2", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	if _, err = Dial(ctx, s.Socket+"2"); !errors.As(err, &unreachable) || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("stale socket: %v", err)
	}
}

func TestServerThatDoesNotGreetTimesOut(t *testing.T) {
	s := ipctest.Serve(t, nil)
	fd, err := ipc.Listen(s.Socket+"2", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	var unreachable *Unreachable
	_, err = Dial(ctx, s.Socket+"2")
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &unreachable) || unreachable.Pid != os.Getpid() {
		t.Errorf("got %v, want the deadline, and who does not answer", err)
	}
}

func TestCancelledStreamIsCancelledAtTheServer(t *testing.T) {
	told := make(chan struct{})
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		r.Item(ipc.LogLine{Text: "first"})
		<-r.Canceled
		told <- struct{}{}
	})
	for name, test := range map[string]func(cancel func()) error{
		"by the context":  func(cancel func()) error { cancel(); return nil },
		"by the function": func(func()) error { return context.Canceled },
	} {
		ctx, cancel := context.WithCancel(ctx)
		err := c.FollowLogs(ctx, ipc.LogsParams{}, func(ipc.LogLine) error { return test(cancel) })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the server was not told", name)
		}
	}
}

func TestReadsAreRepeatedWhenTheSupervisorIsReplaced(t *testing.T) {
	var n atomic.Int32
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		r.Item(ipc.Service{Name: "db"})
		if n.Add(1) <= 3 {
			r.Cut()
			return
		}
		r.Item(ipc.Service{Name: "web"})
		r.End()
	})
	all, err := c.List(ctx, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[0].Name != "db" || all[1].Name != "web" || n.Load() != 4 {
		t.Errorf("got %v after %d attempts", all, n.Load())
	}
}

func TestCallItselfIsNotRepeated(t *testing.T) {
	var n atomic.Int32
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		n.Add(1)
		r.Cut()
	})
	if err := c.Kill(ctx, "web", ""); !errors.Is(err, ErrLost) || n.Load() != 1 {
		t.Errorf("got %v after %d attempts, want ErrLost after one", err, n.Load())
	}
}

func TestServerThatEndsForGoodIsUnreachable(t *testing.T) {
	c, s, ctx := dialTest(t, nil)
	s.End()
	var unreachable *Unreachable
	if _, err := c.Ping(ctx); !errors.As(err, &unreachable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestStartIsAskedAgainWithTheTimeThatIsLeft(t *testing.T) {
	var n atomic.Int32
	left := make(chan int64, 2)
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		if r.Method == "service.status" {
			r.End()
			return
		}
		var p ipc.NamesParams
		r.Params(&p)
		left <- p.TimeoutMS
		r.Item(ipc.Moved{Name: "db", To: ipc.StateRunning})
		if n.Add(1) == 1 {
			r.Cut()
			return
		}
		r.Fail(&ipc.Error{Kind: ipc.ErrTimeout, Message: "web is still starting", Moved: []ipc.Moved{
			{Name: "db", To: ipc.StateRunning}, {Name: "log", To: ipc.StateRunning},
		}})
	})
	var told []string
	err := c.Start(ctx, Options{Timeout: time.Minute}, func(m ipc.Moved) { told = append(told, m.Name) }, "web")
	var refused *ipc.Error
	if !errors.As(err, &refused) || refused.Kind != ipc.ErrTimeout {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(told, []string{"db", "log"}) {
		t.Errorf("told of %v, want each once", told)
	}
	if a, b := <-left, <-left; a > 60_000 || b >= a {
		t.Errorf("time left: %d and then %d ms, want less the second time", a, b)
	}
}

// TestRestartHappensOnce kills the supervisor with a restart under way (db),
// with one that it never knew of (web), and sees what is asked for then.
func TestRestartHappensOnce(t *testing.T) {
	before, after := ipc.Time(time.Now().Add(-time.Hour)), ipc.Time(time.Now().Add(time.Hour))
	for _, test := range []struct {
		name     string
		services []ipc.Service
		want     []string
	}{
		{
			"under way", []ipc.Service{
				{Name: "db", State: ipc.StateStopping, Since: &after}, {Name: "web", State: ipc.StateRunning, Since: &after},
			},
			[]string{"restart [db web]", "status [db web]", "start [db web]"},
		},
		{
			"never known", []ipc.Service{
				{Name: "db", State: ipc.StateExited}, {Name: "web", State: ipc.StateRunning, Since: &before},
			},
			[]string{"restart [db web]", "status [db web]", "restart [web]", "start [db web]"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var n atomic.Int32
			c, server, ctx := dialTest(t, func(r *ipctest.Request) {
				switch {
				case n.Add(1) == 1:
					r.Cut()
				case r.Method == "service.status":
					ipctest.Items(r, test.services)
				default:
					r.End()
				}
			})
			if err := c.Restart(ctx, Options{}, nil, "db", "web"); err != nil {
				t.Fatal(err)
			}
			asked := server.Asked()
			for i, a := range asked {
				asked[i] = strings.NewReplacer("service.", "", "map[names:", "", "]]", "]").Replace(a)
			}
			if !slices.Equal(asked, test.want) {
				t.Errorf("asked for %v, want %v", asked, test.want)
			}
		})
	}
}

// A oneshot that was run before the supervisor was replaced has done what was
// asked for; one that was run before that has not.
func TestOneshotIsStartedOnce(t *testing.T) {
	before, after := ipc.Time(time.Now().Add(-time.Hour)), ipc.Time(time.Now().Add(time.Hour))
	done := func(at ipc.Time) ipc.Service {
		return ipc.Service{Name: "job", Oneshot: true, Desired: "up", State: ipc.StateExited, Exit: &ipc.Exit{At: at}}
	}
	stopped := done(after)
	stopped.Desired = "down"
	for _, test := range []struct {
		name   string
		job    ipc.Service
		starts int
	}{{"done", done(after), 1}, {"never heard", done(before), 2}, {"stopped by somebody else", stopped, 2}} {
		starts := 0
		c, server, ctx := dialTest(t, func(r *ipctest.Request) {
			switch {
			case r.Method == "service.status":
				ipctest.Items(r, []ipc.Service{test.job})
			case starts == 0:
				starts++
				r.Cut()
			default:
				starts++
				r.End()
			}
		})
		if err := c.Start(ctx, Options{}, nil, "job"); err != nil {
			t.Fatal(err)
		}
		if server.End(); starts != test.starts {
			t.Errorf("%s: it was started %d times, expected %d", test.name, starts, test.starts)
		}
	}
}

// An addition that was heard before the supervisor was replaced is waited for
// all the same.
func TestAdditionWhoseAnswerIsLostIsWaitedFor(t *testing.T) {
	var n atomic.Int32
	c, server, ctx := dialTest(t, func(r *ipctest.Request) {
		switch n.Add(1) {
		case 1:
			r.Cut()
		case 2:
			r.Fail(&ipc.Error{Kind: ipc.ErrConflict, Message: "there is a service web already", Service: "web"})
		case 3:
			ipctest.Items(r, []ipc.Service{{Name: "web", State: ipc.StateStarting}})
		default:
			ipctest.Items(r, []ipc.Service{{Name: "web", State: ipc.StateRunning}})
		}
	})
	if err := c.Add(ctx, Options{}, "[service]", "web", false, func(ipc.Moved) {}); err != nil {
		t.Fatal(err)
	}
	var methods []string
	for _, asked := range server.Asked() {
		method, _, _ := strings.Cut(asked, " ")
		methods = append(methods, method)
	}
	if want := []string{"service.add", "service.add", "service.status", "service.wait"}; !slices.Equal(methods, want) {
		t.Errorf("asked for %v, want %v", methods, want)
	}
}

// TestFollowedLogsHaveNoGapAndNoRepetition replaces the supervisor after each
// few lines, also of those that were there before anybody asked.
func TestFollowedLogsHaveNoGapAndNoRepetition(t *testing.T) {
	for name, start := range map[string]time.Time{
		"new lines": time.Now().Add(time.Minute), "old lines": time.Now().Add(-time.Minute),
	} {
		t.Run(name, func(t *testing.T) { followReplaced(t, start) })
	}
}

// followReplaced has a server with lines from start on, in two streams and with
// times that several share, which tells from any time on.
func followReplaced(t *testing.T, start time.Time) {
	var lines []ipc.LogLine
	for i := range 60 {
		at := ipc.Time(start.Add(time.Duration(i/4) * time.Millisecond))
		lines = append(lines, ipc.LogLine{Time: &at, Service: "web", Stream: []string{"stdout", "stderr"}[i%2], Text: fmt.Sprint(i)})
	}
	var attempts atomic.Int32
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		var p ipc.LogsParams
		r.Params(&p)
		n := int(attempts.Add(1))
		if n > 1 && (p.Since == nil || p.Lines >= 0 || p.Grep != "x") {
			t.Errorf("attempt %d asks for %+v", n, p)
		}
		for i, l := range lines {
			if p.Since != nil && time.Time(*l.Time).Before(time.Time(*p.Since)) {
				continue
			}
			if i == 7*n {
				r.Cut()
				return
			}
			r.Item(l)
		}
		<-r.Canceled
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var got []string
	err := c.FollowLogs(ctx, ipc.LogsParams{Grep: "x"}, func(l ipc.LogLine) error {
		if got = append(got, l.Text); len(got) == len(lines) {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for i, text := range got {
		if text != fmt.Sprint(i) {
			t.Fatalf("line %d is %s: %v", i, text, got)
		}
	}
	if attempts.Load() < 9 {
		t.Errorf("%d attempts: the server was not replaced", attempts.Load())
	}
}

func TestClockSetBackLosesNoLine(t *testing.T) {
	late, early := ipc.Time(time.Unix(100, 0)), ipc.Time(time.Unix(50, 0))
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		ipctest.Items(r, []ipc.LogLine{{Time: &late, Text: "a"}, {Time: &early, Text: "b"}, {Missed: 3}})
	})
	n := 0
	if err := c.Logs(ctx, ipc.LogsParams{}, func(ipc.LogLine) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d of 3 lines, %v", n, err)
	}
}

func TestSlowReaderHoldsTheStreamAndLosesNothing(t *testing.T) {
	const lines = 20_000
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		for i := range lines {
			r.Item(ipc.LogLine{Text: fmt.Sprint(i)})
		}
		r.End()
	})
	n := 0
	err := c.Logs(ctx, ipc.LogsParams{}, func(l ipc.LogLine) error {
		if l.Text != fmt.Sprint(n) {
			return fmt.Errorf("line %s, want %d", l.Text, n)
		}
		n++
		return nil
	})
	if err != nil || n != lines {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestShutdownReturnsWhenZinitHasEnded(t *testing.T) {
	var server *ipctest.Server
	var ready sync.WaitGroup
	ready.Add(1)
	var n atomic.Int32
	c, s, ctx := dialTest(t, func(r *ipctest.Request) {
		ready.Wait()
		if r.Method == "system.info" {
			r.Respond(ipc.Info{KeeperPid: 1})
			return
		}
		if n.Add(1) == 1 {
			// The supervisor crashes in the middle; its successor goes on.
			r.Respond(map[string]any{})
			r.Cut()
			return
		}
		r.Fail(ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down"))
		server.End()
	})
	server = s
	ready.Done()
	if err := c.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if n.Load() != 2 {
		t.Errorf("asked %d times, want twice", n.Load())
	}
}

func TestShutdownSparesTheNextZinit(t *testing.T) {
	var n atomic.Int32
	c, _, ctx := dialTest(t, func(r *ipctest.Request) {
		if r.Method == "system.info" {
			r.Respond(ipc.Info{KeeperPid: 100 + int(n.Load())})
			return
		}
		n.Add(1)
		r.Respond(map[string]any{})
		r.Cut()
	})
	if err := c.Shutdown(ctx); err != nil || n.Load() != 1 {
		t.Errorf("asked %d times, %v", n.Load(), err)
	}
}

func TestClosedClient(t *testing.T) {
	c, _, ctx := dialTest(t, func(r *ipctest.Request) { <-r.Canceled })
	pending := make(chan error)
	go func() {
		_, err := c.Ping(ctx)
		pending <- err
	}()
	c.Close()
	if err := <-pending; !errors.Is(err, ErrClosed) {
		t.Errorf("call under way: %v", err)
	}
	if _, err := c.Ping(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("later call: %v", err)
	}
}
