//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// Crowds of clients at the proxies of a real zinit, while services start and
// stop, proxies change, and processes of zinit are killed.

var idleClients = flag.Int("idleclients", 300, "clients that come in the instants around idle stops")

// echoService is a service behind a proxy, which answers each line with it and
// the number of its run.
func (l *live) echoService(name string, lines ...string) string {
	dir := filepath.Join(l.work, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	l.write(map[string]string{name: fmt.Sprintf(`
[service]
exec = "svc append=runs:x serve=unix:back ready-fd=3"
dir = %q
status = "stop"
[lifecycle]
ready = "fd"
[xinet]
listen = ["unix:%s/front", "127.0.0.1:%d"]
backend = "unix:%s/back"
%s`, dir, dir, l.port(), dir, strings.Join(lines, "\n"))})
	return dir
}

// runs is how often a service was started.
func runs(dir string) int {
	text, _ := os.ReadFile(filepath.Join(dir, "runs"))
	return strings.Count(string(text), "\n")
}

// proxy is what zinit says of a proxy.
func (l *live) proxy(name string) ipc.ProxyStatus {
	l.t.Helper()
	list, err := l.client.Proxies(l.ctx, name)
	if err != nil {
		l.t.Fatal(err)
	}
	return list[0]
}

// ask says a line to an echo service and checks the answer.
func ask(address string) error {
	answer, err := talk(address, "hello")
	if err == nil && !strings.HasPrefix(answer, "hello from run ") {
		err = fmt.Errorf("the answer is %q", answer)
	}
	return err
}

func TestOneStartForACrowd(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo")
	l.up()
	addresses := l.proxy("echo").Listen
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			if err := ask(addresses[i%2]); err != nil {
				t.Errorf("client %d at %s: %v", i, addresses[i%2], err)
			}
		})
	}
	all.Wait()
	if n := runs(dir); n != 1 {
		t.Errorf("the service was started %d times", n)
	}
	if p := l.proxy("echo"); p.ConnectionsTotal != 500 || p.ConnectionsFailed != 0 {
		t.Errorf("got %+v", p)
	}
}

// TestNoClientIsLostAtAnIdleStop has clients come when an idle stop is due:
// before it, in its handshake, while the service stops, and after.
func TestNoClientIsLostAtAnIdleStop(t *testing.T) {
	const services, crowd = 6, 10
	l := newLive(t)
	var dirs []string
	for i := range services {
		dirs = append(dirs, l.echoService(fmt.Sprint("echo", i), "idle_timeout = 1"))
	}
	l.up()
	rounds := max(1, *idleClients/services/crowd)
	var all sync.WaitGroup
	for i := range services {
		addresses := l.proxy(fmt.Sprint("echo", i)).Listen
		all.Go(func() {
			for range rounds {
				if err := ask(addresses[0]); err != nil {
					t.Error(err)
					return
				}
				due := time.Now().Add(time.Second)
				first := due.Add(time.Duration(rand.IntN(15)-3) * time.Millisecond)
				var clients sync.WaitGroup
				for n := range crowd {
					clients.Go(func() {
						time.Sleep(time.Until(first.Add(time.Duration(n*n) * 300 * time.Microsecond)))
						if err := ask(addresses[n%2]); err != nil {
							t.Errorf("a client %v after the idle stop was due: %v", time.Since(due), err)
						}
					})
				}
				clients.Wait()
			}
		})
	}
	all.Wait()
	starts := 0
	for i, dir := range dirs {
		starts += runs(dir)
		if p := l.proxy(fmt.Sprint("echo", i)); p.ConnectionsFailed != 0 {
			t.Errorf("got %+v", p)
		}
	}
	t.Logf("%d clients, %d starts", services*rounds*(crowd+1), starts)
	l.settled("all are stopped in the end", func(all map[string]ipc.Service) error {
		for _, s := range all {
			if s.State == ipc.StateRunning {
				return fmt.Errorf("%s is running", s.Name)
			}
		}
		return nil
	})
}

// TestReloadsAtAnIdleStopLoseNobody changes a proxy over and over while clients
// come when an idle stop is due.
func TestReloadsAtAnIdleStopLoseNobody(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo", "idle_timeout = 1")
	l.up()
	file := filepath.Join(l.services, "echo.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(l.ctx)
	var changes sync.WaitGroup
	changes.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			changed := fmt.Sprintf("%s\nconnect_timeout = %d\n", text, 40+n%2)
			if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
				t.Error(err)
			}
			if _, err := l.client.Reload(l.ctx, false); err != nil {
				t.Error(err)
			}
		}
	})
	addresses := l.proxy("echo").Listen
	for range 4 {
		if err := ask(addresses[0]); err != nil {
			t.Error(err)
		}
		due := time.Now().Add(time.Second)
		var clients sync.WaitGroup
		for n := range 20 {
			clients.Go(func() {
				time.Sleep(time.Until(due.Add(time.Duration(n*n) * 100 * time.Microsecond)))
				if err := ask(addresses[n%2]); err != nil {
					t.Errorf("a client %v after the idle stop was due: %v", time.Since(due), err)
				}
			})
		}
		clients.Wait()
	}
	l.settled("idle, it is stopped all the same", func(all map[string]ipc.Service) error {
		if s := all["echo"].State; s != ipc.StateExited {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	cancel()
	changes.Wait()
	t.Logf("%d starts", runs(dir))
}

func TestSecondClientOfASingleConnection(t *testing.T) {
	l := newLive(t)
	l.echoService("echo", "single_connection = true")
	l.up()
	addresses := l.proxy("echo").Listen
	first, lines := l.established(addresses[0])
	for _, address := range addresses {
		if err := say(first, lines); err != nil {
			t.Fatal(err)
		}
		if err := ask(address); err == nil {
			t.Errorf("a second client is served at %s", address)
		}
	}
	if p := l.proxy("echo"); p.ConnectionsActive != 1 || p.ConnectionsTotal != 3 || p.ConnectionsFailed != 2 || !strings.Contains(p.LastError, "a second client") {
		t.Errorf("got %+v", p)
	}
	first.Close()
	if err := eventually(patience, func() error { return ask(addresses[1]) }); err != nil {
		t.Error("the next one:", err)
	}
}

// hammer asks an address again and again until it is told to stop, and counts
// the answers. bad says of an error that it should not have happened.
func hammer(t *testing.T, address string, bad func(error) bool) (answers *atomic.Int64, stop func()) {
	answers = &atomic.Int64{}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				err := ask(address)
				if err == nil {
					answers.Add(1)
				} else if bad(err) {
					t.Errorf("%s: %v", address, err)
					return
				}
			}
		})
	}
	return answers, func() {
		cancel()
		all.Wait()
	}
}

// refused says that nobody listened, or that nobody ever answered.
func refused(err error) bool {
	var timeout net.Error
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) || errors.As(err, &timeout) && timeout.Timeout()
}

func always(error) bool { return true }

// more waits until n more answers have come.
func more(t *testing.T, answers *atomic.Int64, n int64) {
	t.Helper()
	want := answers.Load() + n
	if err := eventually(patience, func() error {
		if got := answers.Load(); got < want {
			return fmt.Errorf("%d answers, want %d", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestNobodyIsRefusedWhenProxydIsKilled(t *testing.T) {
	l := newLive(t)
	l.echoService("echo")
	l.up()
	p := l.proxy("echo")
	var stops []func()
	var counts []*atomic.Int64
	for _, address := range p.Listen {
		answers, stop := hammer(t, address, refused) // what was established breaks
		stops, counts = append(stops, stop), append(counts, answers)
	}
	for range 5 {
		for _, answers := range counts {
			more(t, answers, 20)
		}
		l.kill("zinit-proxyd")
	}
	for _, answers := range counts {
		more(t, answers, 20)
	}
	for _, stop := range stops {
		stop()
	}
	if n := strings.Count(l.log(), "a helper has ended"); n != 5 {
		t.Errorf("zinit-proxyd was killed %d times", n)
	}
}

func TestConnectionsGoOnWhenTheSupervisorIsKilled(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo")
	l.up()
	p := l.proxy("echo")
	answers, stop := hammer(t, p.Listen[1], always)
	defer stop()
	established, lines := l.established(p.Listen[0])
	for n := range 5 {
		more(t, answers, 20)
		l.kill("zinit-server")
		if err := say(established, lines); err != nil {
			t.Fatal(err)
		}
		if err := eventually(patience, func() error {
			info, err := l.client.Info(l.ctx)
			if err == nil && len(info.Replaced) <= n {
				err = fmt.Errorf("zinit-server was replaced %d times", len(info.Replaced))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	more(t, answers, 20)
	if err := say(established, lines); err != nil {
		t.Fatal(err)
	}
	if n := runs(dir); n != 1 {
		t.Errorf("the service was started %d times", n)
	}
}

// TestConnectionsGoOnWhenProgramsAreReplaced is the same with zinit upgrade, and
// with pid1 executing itself.
func TestConnectionsGoOnWhenProgramsAreReplaced(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo")
	l.up()
	p := l.proxy("echo")
	answers, stop := hammer(t, p.Listen[1], always)
	defer stop()
	established, lines := l.established(p.Listen[0])
	for range 2 {
		more(t, answers, 20)
		if out, err := l.command("zinit", "upgrade").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		syscall.Kill(l.pid1(), syscall.SIGUSR2)
		if err := say(established, lines); err != nil {
			t.Fatal(err)
		}
	}
	if err := eventually(patience, func() error {
		if !strings.Contains(l.log(), "pid1 has been replaced") {
			return errors.New("zinit-pid1 has not been replaced")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop()
	// What pid1 has kept is what clients come to after a death of both others.
	l.kill("zinit-proxyd")
	l.kill("zinit-server")
	for _, address := range p.Listen {
		if err := ask(address); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Error(err)
		}
		if err := ask(address); err != nil {
			t.Error(err)
		}
	}
	if n := runs(dir); n != 1 {
		t.Errorf("the service was started %d times", n)
	}
}

func dialProxy(address string) (net.Conn, error) {
	network, at, err := socketOf(address)
	if err != nil {
		return nil, err
	}
	c, err := net.DialTimeout(network, at, patience)
	if err == nil {
		c.SetDeadline(time.Now().Add(2 * patience))
	}
	return c, err
}

// established is a connection of a proxy, to the end of the test.
func (l *live) established(address string) (net.Conn, *bufio.Reader) {
	l.t.Helper()
	c, err := dialProxy(address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c, bufio.NewReader(c)
}

func say(c net.Conn, lines *bufio.Reader) error {
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return err
	}
	answer, err := lines.ReadString('\n')
	if err == nil && !strings.HasPrefix(answer, "hello from run ") {
		err = fmt.Errorf("the answer is %q", answer)
	}
	return err
}

func TestChangesOfAProxyDisturbNobody(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo")
	l.up()
	set := func(listen ...string) {
		t.Helper()
		if err := l.client.SetProxy(l.ctx, ipc.ProxyParams{
			Name: "front", Service: "echo", Listen: listen, Backend: "unix:" + dir + "/back", Ephemeral: true,
		}); err != nil {
			t.Fatal(err)
		}
	}
	stays := fmt.Sprintf("tcp:127.0.0.1:%d", l.port())
	moves := []string{"unix:" + l.work + "/a", "unix:" + l.work + "/b"}
	set(stays, moves[0])
	answers, stop := hammer(t, stays, always)
	defer stop()
	established, lines := l.established(moves[0])
	for i := range 20 {
		more(t, answers, 5)
		set(moves[(i+1)%2], stays)
		if err := ask(moves[(i+1)%2]); err != nil {
			t.Fatal(err)
		}
		if err := ask(moves[i%2]); !refused(err) {
			t.Fatalf("the old address: got %v, want that nobody listens", err)
		}
		if err := say(established, lines); err != nil {
			t.Fatal("an established connection:", err)
		}
	}
	stop()
	if err := l.client.DeleteProxy(l.ctx, "front"); err != nil {
		t.Fatal(err)
	}
	// The answer may be here before zinit-proxyd has closed its listener.
	if err := eventually(patience, func() error {
		if err := ask(stays); !refused(err) {
			return fmt.Errorf("got %v, want that nobody listens", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := lines.ReadByte(); err == nil {
		t.Fatal("a connection of a deleted proxy is open")
	}
	for range 20 { // its address is free at once
		set(stays)
		if err := l.client.DeleteProxy(l.ctx, "front"); err != nil {
			t.Fatal(err)
		}
	}
	if n := runs(dir); n != 1 {
		t.Errorf("the service was started %d times", n)
	}
}

func TestServiceThatDiesClosesItsClients(t *testing.T) {
	l := newLive(t)
	dir := l.echoService("echo")
	l.up()
	c, lines := l.established(l.proxy("echo").Listen[0])
	if err := say(c, lines); err != nil {
		t.Fatal(err)
	}
	pid := l.list()["echo"].Pid
	syscall.Kill(pid, syscall.SIGKILL)
	if _, err := lines.ReadByte(); err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("got %v, want the end", err)
	}
	// The kernel closes the descriptors of a process one after the other, its
	// listener maybe last.
	if err := eventually(patience, func() error {
		if l.list()["echo"].Pid == pid {
			return errors.New("the service is still there")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := ask(l.proxy("echo").Listen[0]); err != nil {
		t.Fatal("the next connection:", err)
	}
	if n := runs(dir); n != 2 {
		t.Errorf("the service was started %d times", n)
	}
}

// proxydWithFewDescriptors takes most of them from zinit-proxyd, whose pid it
// returns.
func (l *live) proxydWithFewDescriptors() (pid int) {
	l.t.Helper()
	if err := eventually(patience, func() error {
		for _, p := range l.own() {
			if p.name == "zinit-proxyd" {
				pid = p.pid
				return nil
			}
		}
		return errors.New("zinit-proxyd is not there")
	}); err != nil {
		l.t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: 48, Max: 48}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		l.t.Fatal(err)
	}
	return pid
}

// TestClientsWaitWhereThereAreNoDescriptors takes all of them from
// zinit-proxyd. Those that it cannot accept wait, without a processor that is
// kept busy, until others leave.
func TestClientsWaitWhereThereAreNoDescriptors(t *testing.T) {
	l := newLive(t)
	l.echoService("echo")
	l.up()
	address := l.proxy("echo").Listen[1]
	if err := ask(address); err != nil {
		t.Fatal(err)
	}
	pid := l.proxydWithFewDescriptors()
	const crowd = 100
	served := make(chan net.Conn, crowd)
	var all sync.WaitGroup
	for range crowd {
		all.Go(func() {
			c, err := dialProxy(address)
			if err == nil {
				err = say(c, bufio.NewReader(c))
			}
			if err != nil {
				t.Error(err)
				return
			}
			served <- c
		})
	}
	for range 5 {
		<-served // and stays
	}
	if err := eventually(patience, func() error {
		if why := l.proxy("echo").LastError; !strings.Contains(why, "too many open files") {
			return fmt.Errorf("the error is %q", why)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	before := cpuTime(pid)
	time.Sleep(time.Second) // the time for which it is measured
	if used := cpuTime(pid) - before; used > 300*time.Millisecond {
		t.Errorf("zinit-proxyd used the processor for %v in a second of waiting", used)
	}
	go func() {
		for c := range served {
			c.Close()
		}
	}()
	all.Wait()
	close(served)
}

// TestDescriptorsAreLeftForTheBackend has more clients than zinit-proxyd has
// descriptors come to a service that runs and does not listen yet.
func TestDescriptorsAreLeftForTheBackend(t *testing.T) {
	for _, host := range []string{"unix", "127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			l := newLive(t)
			port := l.port()
			serve, backend := fmt.Sprint("tcp:127.0.0.1:", port), fmt.Sprint(host, ":", port)
			if host == "unix" {
				serve = "unix:" + l.work + "/back"
				backend = serve
			}
			l.write(map[string]string{"late": fmt.Sprintf(`
[service]
exec = "svc until=go serve=%s"
dir = %q
[xinet]
listen = ["unix:%s/front"]
backend = %q
`, serve, l.work, l.work, backend)})
			l.up()
			l.proxydWithFewDescriptors()
			var all sync.WaitGroup
			for range 60 {
				all.Go(func() {
					if err := ask("unix:" + l.work + "/front"); err != nil {
						t.Error(err)
					}
				})
			}
			if err := eventually(patience, func() error {
				if why := l.proxy("late").LastError; !strings.Contains(why, "too many open files") {
					return fmt.Errorf("the error is %q", why)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(l.work+"/go", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			all.Wait()
			if p := l.proxy("late"); p.ConnectionsFailed > 0 {
				t.Errorf("got %+v", p)
			}
		})
	}
}
