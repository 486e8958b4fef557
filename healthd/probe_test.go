package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/threefoldtech/zinit/ipc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// short is the time of probes that are to run into it, long that of those
	// which are not.
	short = 100 * time.Millisecond
	long  = 20 * time.Second
)

// judge runs a probe as the agent does, and returns what it would tell.
func judge(t *testing.T, p ipc.Probe, c *ipc.ProbeCommand, timeout time.Duration) (bool, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	message, gone, err := look(ctx, p, c)
	if took := time.Since(began); took > timeout+10*time.Second {
		t.Errorf("it took %s, with a timeout of %s", took, timeout)
	}
	if gone != nil {
		<-gone
	}
	if err != nil {
		return false, clip(complaint(ctx, timeout, err))
	}
	return true, clip(message)
}

// peer serves each connection by a function, until the test ends.
func peer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// answer reads a request and writes a text.
func answer(text string) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, text)
	}
}

// endless repeats a text until nobody listens.
func endless(begin, text string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, begin)
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}
}

// silent waits until the other side hangs up.
func silent(c net.Conn) { io.Copy(io.Discard, c) }

func reset(c net.Conn) {
	http.ReadRequest(bufio.NewReader(c))
	c.(*net.TCPConn).SetLinger(0)
}

func TestHTTP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name    string
		serve   func(net.Conn)
		with    func(*ipc.Probe)
		timeout time.Duration
		ok      bool
		message string // a pattern
	}{
		{"fine", answer(ok + "\r\nhello"), nil, long, true, `^200 OK$`},
		{"without a length", answer("HTTP/1.0 204 No Content\r\n\r\n"), nil, long, true, `^204 No Content$`},
		{"not well", answer("HTTP/1.1 503 Service Unavailable\r\n\r\n"), nil, long, false, `^503 Service Unavailable, expected 2xx or 3xx$`},
		{"another good one", answer("HTTP/1.1 503 Not Yet\r\n\r\n"), func(p *ipc.Probe) { p.Expect = []int{200, 503} }, long, true, `^503 Not Yet$`},
		{"not the good one", answer(ok + "\r\n"), func(p *ipc.Probe) { p.Expect = []int{201, 204} }, long, false, `^200 OK, expected 201 204$`},
		{"a redirect to itself", answer("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"), nil, long, true, `^302 Found$`},
		{"processing first", answer("HTTP/1.1 103 Early Hints\r\n\r\n" + ok + "\r\n"), nil, long, true, `^200 OK$`},
		{"says nothing", silent, nil, short, false, `^the answer took longer than 100ms$`},
		{"a byte at a time", endless(ok, "X-A: b\r\n", 30*time.Millisecond), nil, short, false, `^the answer took longer than 100ms$`},
		{"endless body", endless(ok+"\r\n", strings.Repeat("x", 4096), 0), nil, long, true, `^200 OK$`},
		{"endless head", endless(ok, strings.Repeat("X-A: b\r\n", 500), 0), nil, long, false, `^the answer: its head is longer than 64 KiB$`},
		{"endless promises", endless("", "HTTP/1.1 100 Continue\r\n\r\n", 0), nil, long, false, `^the answer: its head is longer than 64 KiB$`},
		{"hangs up", func(net.Conn) {}, nil, long, false, `^(the answer: (the connection was closed before it was complete|connection reset by peer)|sending the request: .*)$`},
		{"hangs up in the middle", answer(ok + "X-A: b\r\n"), nil, long, false, `^the answer: the connection was closed before it was complete$`},
		{"reset", reset, nil, long, false, `^the answer: connection reset by peer$`},
		{"no HTTP", answer("SSH-2.0-OpenSSH\r\n\r\n"), nil, long, false, `^the answer: malformed HTTP`},
		{"no TLS", answer("hello\r\n"), tlsProbe, short, false, `^the TLS handshake with 127.0.0.1:\d+( took longer than 100ms|: .*)$`},
		{"TLS that says nothing", silent, tlsProbe, short, false, `^the TLS handshake with 127.0.0.1:\d+ took longer than 100ms$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := ipc.Probe{Type: "http", Endpoint: "http://" + peer(t, c.serve) + "/health", Method: "GET"}
			if c.with != nil {
				c.with(&p)
			}
			got, message := judge(t, p, nil, c.timeout)
			if got != c.ok || !regexp.MustCompile(c.message).MatchString(message) {
				t.Errorf("%v %q, expected %v %q", got, message, c.ok, c.message)
			}
		})
	}
}

func tlsProbe(p *ipc.Probe) { p.Endpoint = strings.Replace(p.Endpoint, "http:", "https:", 1) }

func TestHTTPRequest(t *testing.T) {
	var got string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = fmt.Sprint(r.Method, " ", r.Host, " ", r.URL, " ", r.Header.Get("X-Token"), " ", r.Close)
	})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	go s.Serve(l)
	defer s.Close()
	headers := map[string]string{"X-Token": "t", "host": "example.org"}
	p := ipc.Probe{Type: "http", Endpoint: "unix:" + path + ":/live?x=1", Method: "HEAD", Headers: headers}
	if ok, message := judge(t, p, nil, long); !ok {
		t.Fatal(message)
	}
	if want := "HEAD example.org /live?x=1 t true"; got != want {
		t.Errorf("it asks %q, expected %q", got, want)
	}
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{}
	s.StartTLS()
	defer s.Close()
	p := ipc.Probe{Type: "http", Endpoint: s.URL, Method: "GET", Expect: []int{404}}
	if ok, message := judge(t, p, nil, long); ok || !strings.Contains(message, "certificate") {
		t.Errorf("with a certificate of its own: %v %q", ok, message)
	}
	p.Insecure = true
	if ok, message := judge(t, p, nil, long); !ok || message != "404 Not Found" {
		t.Errorf("insecure: %v %q", ok, message)
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		kind, endpoint string
		ok             bool
		message        string
	}{
		{"tcp", peer(t, silent), true, `^connected$`},
		{"unix", path, true, `^connected$`},
		{"tcp", closed.Addr().String(), false, `^connecting to 127.0.0.1:\d+: connection refused$`},
		{"unix", path + "x", false, `^connecting to .*/sx: no such file or directory$`},
		{"tcp", "nothing.invalid:80", false, `^(cannot resolve nothing.invalid: .+|connecting to nothing.invalid:80 took longer than 2s)$`},
		{"http", "http://nothing.invalid/", false, `nothing.invalid`},
	} {
		ok, message := judge(t, ipc.Probe{Type: c.kind, Endpoint: c.endpoint, Method: "GET"}, nil, 2*time.Second)
		if ok != c.ok || !regexp.MustCompile(c.message).MatchString(message) {
			t.Errorf("%s %s: %v %q, expected %v %q", c.kind, c.endpoint, ok, message, c.ok, c.message)
		}
	}
}

func shell(script string) *ipc.ProbeCommand {
	return &ipc.ProbeCommand{Argv: []string{"sh", "-c", script}, Env: []string{"PATH=" + os.Getenv("PATH"), "WHO=me"}}
}

func TestExec(t *testing.T) {
	for _, c := range []struct {
		name    string
		command *ipc.ProbeCommand
		timeout time.Duration
		ok      bool
		message string // a pattern
	}{
		{"fine", shell("echo first; echo; echo \"last of $WHO\"; echo"), long, true, `^last of me$`},
		{"stderr", shell("echo one; echo two >&2"), long, true, `^two$`},
		{"no newline", shell("echo one; printf two"), long, true, `^two$`},
		{"fails", shell("echo no route; exit 3"), long, false, `^exit code 3: no route$`},
		{"fails in silence", shell("exit 1"), long, false, `^exit code 1$`},
		{"is killed", shell("kill -KILL $$"), long, false, `^killed by SIGKILL$`},
		{"hangs", shell("echo waits for the lock; exec sleep 1000"), short, false, `^sh took longer than 100ms(: waits for the lock)?$`},
		{"ignores signals", shell("trap '' TERM INT HUP; while :; do sleep 1000; done"), short, false, `^sh took longer than 100ms$`},
		{"stdin is empty", shell("cat; echo done"), long, true, `^done$`},
		{"control bytes", shell(`printf 'a\033[31mb\t\377c'`), long, true, `^a \[31mb .c$`},
		{"long line", shell("head -c 100000 /dev/zero | tr '\\0' x"), long, true, `^x{512}$`},
		{"not there", &ipc.ProbeCommand{Argv: []string{"nothing-like-it"}, Env: []string{"PATH=/bin"}}, long, false, `^cannot find nothing-like-it in PATH$`},
		{"no such file", &ipc.ProbeCommand{Argv: []string{"/nothing"}}, long, false, `^cannot run /nothing: no such file or directory$`},
		{"no such directory", &ipc.ProbeCommand{Argv: []string{"/bin/true"}, Dir: "/nothing"}, long, false, `no such file or directory$`},
		{"no command", &ipc.ProbeCommand{Error: "cannot expand its command: X is not set"}, long, false, `^cannot expand its command: X is not set$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			ok, message := judge(t, ipc.Probe{Type: "exec"}, c.command, c.timeout)
			if ok != c.ok || !regexp.MustCompile(c.message).MatchString(message) {
				t.Errorf("%v %q, expected %v %q", ok, message, c.ok, c.message)
			}
		})
	}
}

// TestExecEndsItsGroup: what a probe has forked ends with it, whether it has
// ended itself or its time is over.
func TestExecEndsItsGroup(t *testing.T) {
	for script, timeout := range map[string]time.Duration{
		"trap '' TERM; sleep 1000 & echo $!":       long,
		"trap '' TERM; sleep 1000 & echo $!; wait": time.Second,
	} {
		_, message := judge(t, ipc.Probe{Type: "exec"}, shell(script), timeout)
		pid, err := strconv.Atoi(message[strings.LastIndexByte(message, ' ')+1:])
		if err != nil {
			t.Fatalf("it says %q", message)
		}
		for deadline := time.Now().Add(long); syscall.Kill(pid, 0) == nil && !zombie(pid); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d, forked by a probe, is still there", pid)
			}
		}
	}
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestExecOutputIsBounded: a gigabyte of output costs no memory.
func TestExecOutputIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ok, message := judge(t, ipc.Probe{Type: "exec"}, shell("head -c 1000000000 /dev/zero; echo; echo done"), 2*time.Minute)
	runtime.ReadMemStats(&after)
	if !ok || message != "done" {
		t.Errorf("%v %q", ok, message)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}

// TestExecDoesNotWaitForItsPipe: a process that has left the group keeps the
// pipe and is not waited for.
func TestExecDoesNotWaitForItsPipe(t *testing.T) {
	ok, message := judge(t, ipc.Probe{Type: "exec"}, shell("setsid sleep 1000 & echo $!"), long)
	pid, err := strconv.Atoi(message)
	if !ok || err != nil {
		t.Fatalf("%v %q", ok, message)
	}
	syscall.Kill(pid, syscall.SIGKILL)
}
