package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Many hostile clients, or servers, at a time.

// How many there are: fewer than could be, for the time that the tests take.
var (
	starts = flag.Int("starts", 200, "how many zinit-servers are started at once")
	cuts   = flag.Int("cuts", 1000, "how many clients die in the middle of something")
)

// Thousands of requests in a row are each answered once, be it by a refusal.
func hostilePipeline(t *testing.T, h *hostileServer) {
	const requests = 10_000
	c := h.dial(t, true)
	go func() {
		var all []byte
		for id := range requests {
			all = append(all, request(id+1, "system.ping", nil)...)
		}
		c.Write(all)
	}()
	answered := map[string]int{}
	for range requests {
		kind, body, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if kind != 2 && body["kind"] != "unavailable" {
			t.Fatalf("kind %d: %v", kind, body)
		}
		answered[fmt.Sprint(body["id"])]++
	}
	for id := range requests {
		if n := answered[fmt.Sprint(id+1)]; n != 1 {
			t.Fatalf("request %d was answered %d times", id+1, n)
		}
	}
}

// Who does not read its answers is disconnected before they fill the memory;
// who does not read a stream only holds up itself.
func hostileDeaf(t *testing.T, h *hostileServer) {
	follower := h.dial(t, true)
	follower.send(request(1, "logs.follow", map[string]any{"names": []string{"talk"}, "lines": -1}))
	follower.send(request(2, "events.subscribe", map[string]any{"follow": true}))
	c := h.dial(t, true)
	var err error
	for id := 1; err == nil; id++ {
		_, err = c.Write(request(id, "service.get", map[string]any{"name": "web"}))
		if id%1000 == 0 && pss(t, h.server) > h.memory+moreMemory() {
			t.Fatalf("after %d requests the server has %d KiB of memory", id, pss(t, h.server)>>10)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("it was not disconnected")
	}
	h.answers(t)
}

// answers looks that others are served.
func (h *hostileServer) answers(t *testing.T) {
	t.Helper()
	c := h.client()
	defer c.Close()
	if _, err := c.Status(t.Context(), "web"); err != nil {
		t.Error(err)
	}
}

// Clients die in the middle of a request, or of its answer, all the time.
func hostileCuts(t *testing.T, h *hostileServer) {
	const atOnce = 4
	flip, talk := map[string]any{"names": []string{"flip"}}, map[string]any{"names": []string{"talk"}, "lines": 10}
	kinds := [][]byte{
		request(1, "service.start", flip), request(1, "service.stop", flip), request(1, "service.restart", flip),
		request(1, "service.wait", map[string]any{"names": []string{"flip"}, "for": "running"}),
		request(1, "logs.follow", talk), request(1, "logs.get", talk), request(1, "events.subscribe", map[string]any{"follow": true}),
		request(1, "service.list", nil), request(1, "service.get", map[string]any{"name": "web"}), request(1, "debug.state", nil),
		request(1, "service.stats", map[string]any{"names": []string{"talk"}}), request(1, "service.reload", map[string]any{"dry_run": true}),
	}
	var clients sync.WaitGroup
	for worker := range atOnce {
		random := rand.New(rand.NewPCG(1, uint64(worker)))
		clients.Go(func() {
			for range *cuts / atOnce {
				all := slices.Concat(helloFrame, kinds[random.IntN(len(kinds))])
				var conn net.Conn
				if err := eventually(patience, func() (err error) { // the backlog may be full
					conn, err = net.Dial("unix", h.socket)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
				if random.IntN(2) == 0 {
					conn.Write(all[:random.IntN(len(all))])
				} else { // all of it, and some of what comes back
					conn.Write(all)
					conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
					io.CopyN(io.Discard, conn, random.Int64N(300))
				}
				conn.Close()
			}
		})
	}
	clients.Wait()
	h.settled() // wishes of clients that are gone are wishes
	c := h.client()
	defer c.Close()
	if err := c.Stop(t.Context(), client.Options{}, func(ipc.Moved) {}, "flip"); err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(t.Context(), client.Options{}, client.ForInactive, "flip"); err != nil {
		t.Error(err)
	}
}

// There is room for 1,024. The next is told so, and gets in when one leaves.
func hostileCrowd(t *testing.T, h *hostileServer) {
	const most = 1024
	crowd := make([]rawClient, most)
	for i := range crowd {
		crowd[i] = h.dial(t, true)
		crowd[i].send(request(1, "service.wait", map[string]any{"names": []string{"web"}, "for": "exited"}))
	}
	crowd[0].send(request(2, "system.ping", nil))
	if got := crowd[0].answer(2); got != "response" {
		t.Errorf("the first of %d clients: %q", most, got)
	}
	const words = "zinit-server has 1024 clients, the most it serves at a time"
	late := h.dial(t, false)
	if got := late.answer(0); got != "unavailable: "+words {
		t.Errorf("one more: %q", got)
	}
	late.hungUp()
	for range 20 { // it may be refused before or after it has said something
		out, err := h.command("zinit", "list").CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitUnreachable || string(out) != "zinit: "+words+"\n" {
			t.Fatalf("zinit list: %v, %s", err, out)
		}
	}
	crowd[7].Close()
	if err := eventually(patience, func() error { return h.command("zinit", "list").Run() }); err != nil {
		t.Errorf("after one has left: %v", err)
	}
	for _, c := range crowd {
		c.Close()
	}
	if err := eventually(patience, func() error { return h.command("zinit", "list").Run() }); err != nil {
		t.Errorf("after all have left: %v", err)
	}
}

// A server that ends with hundreds of waiting clients tells them, and ends.
func shutdownWithWaitingClients(t *testing.T, bin string) {
	h := newHostileServer(t, bin)
	const waiting = 500
	var clients sync.WaitGroup
	answers := make(chan string, waiting)
	for range waiting {
		c := h.dial(t, true)
		c.send(request(1, "service.wait", map[string]any{"names": []string{"web"}, "for": "inactive", "timeout_ms": 600_000}))
		c.send(request(2, "system.ping", nil))
		if got := c.answer(2); got != "response" {
			t.Fatal(got)
		}
		clients.Go(func() { answers <- c.answer(1) })
	}
	if out, err := h.command("zinit", "shutdown").CombinedOutput(); err != nil {
		t.Errorf("zinit shutdown: %v, %s", err, out)
	}
	clients.Wait()
	close(answers)
	for got := range answers {
		if got != "end" && got != "EOF" {
			t.Errorf("a waiting client: %q", got)
		}
	}
	select {
	case <-h.keepers[0].ended:
	case <-time.After(patience):
		t.Fatal("zinit has not ended")
	}
	if code := h.keepers[0].cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("zinit has ended with exit code %d", code)
	}
}

// Of many servers that are started on one socket at the same moment one runs,
// and each of the others says why it does not.
func oneOfManyStartsWins(t *testing.T, bin string) {
	h := newHostileStage(t, bin)
	gate, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said := make([]*os.File, *starts)
	for i := range said {
		if said[i], err = os.CreateTemp(h.dir, "said-"); err != nil {
			t.Fatal(err)
		}
		cmd := h.command("zinit-server")
		// They wait at a pipe, whose end opens it for all of them.
		cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "read x; exec zinit-server"}
		cmd.Stdin, cmd.Stderr = gate, said[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		k := &keeper{cmd: cmd, ended: make(chan struct{})}
		go func() {
			cmd.Wait()
			close(k.ended)
		}()
		h.keepers = append(h.keepers, k)
	}
	gate.Close()
	begin := time.Now()
	open.Close()
	running := func() (n int) {
		for _, k := range h.keepers {
			if !k.done() {
				n++
			}
		}
		return n
	}
	if err := eventually(4*patience, func() error {
		if n := running(); n > 1 {
			return fmt.Errorf("%d zinits run", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d starts took %v", *starts, time.Since(begin).Round(time.Millisecond))
	if out, err := h.command("zinit", "status").CombinedOutput(); err != nil || running() != 1 {
		t.Errorf("%d zinits run, zinit status: %v, %s", running(), err, out)
	}
	for i, k := range h.keepers {
		if !k.done() {
			continue
		}
		text, err := os.ReadFile(said[i].Name())
		if code := k.cmd.ProcessState.ExitCode(); err != nil || code != 1 || !strings.Contains(string(text), "another zinit-server has the runtime directory") {
			t.Errorf("start %d has ended with exit code %d and said %q", i, code, text)
		}
		said[i].Close()
	}
}

// The path of a socket has at most 107 bytes, which server and client say. The
// runtime directory is elsewhere, because there are longer paths in it.
func longestSocketPath(t *testing.T, bin string) {
	h := newHostileStage(t, bin)
	h.socket = h.dir + "/" + strings.Repeat("x", 108-len(h.dir)-len("/.sock")) + ".sock"
	out, err := h.command("zinit-server", "--runtime-dir", "run").CombinedOutput()
	if want := "the path has 108 bytes, a socket's may have 107; choose a shorter one with --socket"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("zinit-server with a path of 108 bytes: %v, %s", err, out)
	}
	out, err = h.command("zinit", "list").CombinedOutput()
	want := fmt.Sprintf("zinit: cannot reach zinit-server at %s: the path has 108 bytes, a socket's may have 107\n", h.socket)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitUnreachable || string(out) != want {
		t.Errorf("zinit with a path of 108 bytes: %v, %s", err, out)
	}
	h.socket = strings.Replace(h.socket, "/x", "/", 1)
	h.launch("zinit-server", "--runtime-dir", "run")
	if err := eventually(patience, func() error { return h.command("zinit", "list").Run() }); err != nil {
		t.Errorf("zinit with a path of 107 bytes: %v", err)
	}
}
