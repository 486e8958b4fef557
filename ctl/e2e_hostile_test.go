package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Clients that mean harm, or are broken, and a real zinit-server. After each of
// them it has the descriptors and about the memory that it had before, answers
// others, and its services have gone on. e2e_crowd_test.go has many at a time.

// hostileServer is a zinit of its own for such clients.
type hostileServer struct {
	*stage
	t      *testing.T
	dir    string
	bin    string
	socket string
	// How it was when it was started.
	server, pid1 int
	pids         map[string]int
	fds          [2]int
	memory       int64
}

// newHostileServer starts one with services that run, one that prints without
// end, and one to start and stop.
func newHostileServer(t *testing.T, bin string) *hostileServer {
	h := newHostileStage(t, bin)
	for name, exec := range map[string]string{
		"db": "sleep 1000", "web": "sleep 1000", "talk": "svc lines=1000000000:1ms", "flip": "sleep 1000",
	} {
		text := fmt.Sprintf("[service]\nexec = %q\n[logging]\nbuffer_lines = 1000\n[lifecycle]\nstop_signal = \"SIGKILL\"\n", exec)
		if err := os.WriteFile(h.dir+"/services/"+name+".toml", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k := h.launch("zinit-server")
	if err := eventually(patience, func() error {
		c, err := net.Dial("unix", h.socket)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := h.client()
	if _, err := c.Wait(t.Context(), client.Options{}, client.ForRunning, "db", "web", "talk", "flip"); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(t.Context(), client.Options{}, func(ipc.Moved) {}, "flip"); err != nil {
		t.Fatal(err)
	}
	if err := eventually(patience, func() error { // then its files are open
		lines := 0
		params := ipc.LogsParams{Names: []string{"talk"}, Lines: 1}
		err := c.Logs(t.Context(), params, func(ipc.LogLine) error { lines++; return nil })
		if err == nil && lines == 0 {
			err = errors.New("talk has printed nothing")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.server, h.pid1 = info.Pid, k.cmd.Process.Pid
	h.pids = h.running(c)
	c.Close()
	h.fds, h.memory = h.settled(), pss(t, h.server)
	return h
}

// newHostileStage is one that is not started yet, without services.
func newHostileStage(t *testing.T, bin string) *hostileServer {
	root := shortTempDir(t)
	h := &hostileServer{t: t, dir: root, bin: bin, socket: filepath.Join(root, "z.sock")}
	h.stage = &stage{mark: "ZINIT_STORY=" + root}
	if err := os.Mkdir(root+"/services", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.close(t, root) })
	return h
}

// launch starts a program of zinit, whose log goes to zinit.log.
func (h *hostileServer) launch(program string, args ...string) *keeper {
	h.t.Helper()
	log, err := os.OpenFile(h.dir+"/zinit.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	k := &keeper{cmd: h.command(program, args...), ended: make(chan struct{})}
	k.cmd.Stderr = log
	if err := k.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		k.cmd.Wait()
		close(k.ended)
	}()
	h.keepers = append(h.keepers, k)
	return k
}

func (h *hostileServer) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(h.bin, program), args...)
	cmd.Dir = h.dir
	cmd.Env = []string{
		"PATH=" + h.bin + ":" + os.Getenv("PATH"), "HOME=" + h.dir, h.mark, "GORACE=atexit_sleep_ms=0",
		"ZINIT_SOCKET=" + h.socket, "ZINIT_CONFIG_DIR=" + h.dir + "/services",
	}
	return cmd
}

func (h *hostileServer) client() *client.Client {
	h.t.Helper()
	c, err := client.Dial(h.t.Context(), h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *hostileServer) running(c *client.Client) map[string]int {
	h.t.Helper()
	services, err := c.Status(h.t.Context(), "db", "web", "talk")
	if err != nil {
		h.t.Fatal(err)
	}
	pids := map[string]int{}
	for _, s := range services {
		pids[s.Name] = s.Pid
	}
	return pids
}

// openFds counts the descriptors of zinit-server and zinit-pid1.
func (h *hostileServer) openFds() (n [2]int) {
	for i, pid := range []int{h.server, h.pid1} {
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			h.t.Fatal(err)
		}
		n[i] = len(list)
	}
	return n
}

// settled returns the descriptors when the last connection has been closed.
func (h *hostileServer) settled() [2]int {
	if err := eventually(4*patience, func() error {
		// Accepted sockets have the path of the one that listens (proc_net_unix(5)).
		b, err := os.ReadFile("/proc/net/unix")
		if n := strings.Count(string(b), " "+h.socket+"\n"); err == nil && n != 1 {
			err = fmt.Errorf("%d connections are left", n-1)
		}
		return err
	}); err != nil {
		h.t.Error(err)
	}
	return h.openFds()
}

// pss is the memory of a process that it has not in common with others, in
// bytes (proc_pid_smaps(5)).
func pss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no Pss in %s", b)
	}
	kib, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return kib << 10
}

// moreMemory is how much more the server may have afterwards: what its heap has
// grown to for the 16 MiB of answers that one client may leave unread, and the
// copies of them on the way there, goes back to the system only by and by. The
// race detector takes several times as much.
func moreMemory() int64 {
	if os.Getenv("ZINIT_TEST_RACE") != "" {
		return 640 << 20
	}
	return 160 << 20
}

// unharmed looks that all is as it was.
func (h *hostileServer) unharmed(t *testing.T) {
	t.Helper()
	fds := h.settled()
	eventually(patience, func() error { // the pipes of what has ended are closed by and by
		if fds = h.openFds(); fds != h.fds {
			return errors.New("not yet")
		}
		return nil
	})
	start := time.Now()
	c := h.client()
	pids := h.running(c)
	info, err := c.Info(t.Context())
	c.Close()
	switch took := time.Since(start); {
	case err != nil:
		t.Fatal(err)
	case took > 10*time.Second:
		t.Errorf("an ordinary client had to wait for %v", took)
	case info.Pid != h.server || info.ServerRestarts > 0:
		t.Fatalf("zinit-server is %d, was %d", info.Pid, h.server)
	case !maps.Equal(pids, h.pids):
		t.Fatalf("the services are %v, were %v", pids, h.pids)
	}
	if fds != h.fds {
		t.Errorf("zinit-server and zinit-pid1 have %v descriptors, had %v", fds, h.fds)
	}
	if now := pss(t, h.server); now > h.memory+moreMemory() {
		t.Errorf("zinit-server has %d KiB of memory, had %d", now>>10, h.memory>>10)
	}
}

// rawClient is a connection on which anything may be said.
type rawClient struct {
	*net.UnixConn
	t *testing.T
}

// dial connects, and says hello if wanted.
func (h *hostileServer) dial(t *testing.T, hello bool) rawClient {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: h.socket})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { conn.Close() })
	c := rawClient{conn, t}
	if hello {
		c.send(helloFrame)
		if kind, body, err := c.read(); kind != 0 || err != nil {
			t.Fatalf("no hello but kind %d, %v, %v", kind, body, err)
		}
	}
	return c
}

func (c rawClient) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next frame; io.EOF when the server has hung up.
func (c rawClient) read() (kind int, body map[string]any, err error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		if errors.Is(err, syscall.ECONNRESET) { // it hung up with something unread
			err = io.EOF
		}
		return 0, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, nil, err
	}
	var parts []any
	if err := msgpack.Unmarshal(b, &parts); err != nil {
		return 0, nil, err
	}
	return int(parts[0].(int8)), parts[1].(map[string]any), nil
}

// answer reads until a request is answered, and says how: "end", "response" or
// the kind and words of an error.
func (c rawClient) answer(id int64) string {
	c.t.Helper()
	for {
		kind, body, err := c.read()
		if err != nil {
			return err.Error()
		}
		if got, err := strconv.ParseInt(fmt.Sprint(body["id"]), 10, 64); err != nil || got != id {
			c.t.Fatalf("an answer to %v, not %d: %v", body["id"], id, body)
		}
		switch kind {
		case 2:
			return "response"
		case 3:
			return fmt.Sprintf("%v: %v", body["kind"], body["message"])
		case 5:
			return "end"
		}
	}
}

func (c rawClient) hungUp() {
	c.t.Helper()
	if kind, body, err := c.read(); err != io.EOF {
		c.t.Errorf("the server has not hung up: kind %d, %v, %v", kind, body, err)
	}
}

// framed puts its length before a payload.
func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// frame is the wire form of a message, whatever it is.
func frame(kind, body any) []byte {
	b, err := msgpack.Marshal([]any{kind, body})
	if err != nil {
		panic(err)
	}
	return framed(b)
}

func request(id any, method string, params any) []byte {
	return frame(1, map[string]any{"id": id, "method": method, "params": params})
}

var helloFrame = frame(0, map[string]any{"protocol": 1, "role": "client", "version": "hostile"})

func TestHostile(t *testing.T) {
	bin := programs(t, shortTempDir(t))
	for name, test := range map[string]func(*testing.T, string){
		"clients": hostileClients, "shutdown": shutdownWithWaitingClients,
		"starts": oneOfManyStartsWins, "long path": longestSocketPath,
	} {
		t.Run(name, func(t *testing.T) { test(t, bin) })
	}
}

func hostileClients(t *testing.T, bin string) {
	h := newHostileServer(t, bin)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *hostileServer)
	}{
		{"frames", hostileFrames},
		{"requests", hostileRequests},
		{"parameters", hostileParameters},
		{"large", hostileSizes},
		{"descriptors", hostileDescriptors},
		{"pipelined", hostilePipeline},
		{"deaf", hostileDeaf},
		{"cut off", hostileCuts},
		{"crowd", hostileCrowd},
		{"stalled", hostileStalls},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Run("clients", func(t *testing.T) { test.run(t, h) })
			h.unharmed(t) // when the clients are gone
		})
	}
}

// What cannot be read gets an error about the connection, and its end.
func hostileFrames(t *testing.T, h *hostileServer) {
	deep := strings.Repeat("\x91", 1000)
	for name, test := range map[string]struct{ bytes, says string }{
		"oversized":              {"\x00\x10\x00\x01", "larger than 1048576 bytes"},
		"of all bytes":           {"\xff\xff\xff\xff\xff\xff\xff\xff", "larger than"},
		"empty":                  {"\x00\x00\x00\x00", "ends in the middle"},
		"no msgpack":             {string(framed([]byte("\xc1"))), "no msgpack type"},
		"two values":             {string(framed([]byte("\x92\x01\x80\x80"))), "after its value"},
		"a long list":            {string(framed([]byte("\xdd\xff\xff\xff\xff"))), "middle of a value"},
		"a long map":             {string(framed([]byte("\x92\x01\xdf\xff\xff\xff\xff"))), "middle of a value"},
		"a long text":            {string(framed([]byte("\x92\x01\x81\xa2id\xdb\xff\xff\xff\xff"))), "middle of a value"},
		"deeply nested":          {string(framed([]byte(deep + "\xc0"))), "nested too deeply"},
		"deep in the parameters": {string(framed([]byte("\x92\x01\x81\xa6params" + deep + "\xc0"))), "nested too deeply"},
		"no list":                {string(framed([]byte("\x80"))), "not an array"},
		"a list of one":          {string(framed([]byte("\x91\x01"))), "not an array"},
		"a kind that is text":    {string(frame("1", map[string]any{})), "kind of frame"},
		"a negative kind":        {string(frame(-1, map[string]any{})), "kind of frame"},
		"a body that is a list":  {string(frame(1, []int{})), "not a map"},
		"a body that is nothing": {string(frame(1, nil)), "not a map"},
		"descriptors announced":  {string(framed([]byte("\x93\x01\x80\x02"))), "announces 2 descriptors"},
	} {
		for _, hello := range []bool{true, false} {
			c := h.dial(t, hello)
			c.Write([]byte(test.bytes)) // the server may be quicker
			if got := c.answer(0); !strings.Contains(got, "invalid: ") || !strings.Contains(got, test.says) {
				t.Errorf("%s: %q, want %q", name, got, test.says)
			}
			c.hungUp()
		}
	}
	for name, test := range map[string]struct {
		bytes []byte
		says  string
	}{
		"a request before the hello": {request(1, "system.shutdown", nil), "not a hello"},
		"another role":               {frame(0, map[string]any{"protocol": 1, "role": "supervisor"}), `a "supervisor", not a "client"`},
		"another protocol":           {frame(0, map[string]any{"protocol": 2, "role": "client"}), "peer speaks protocol 2"},
		"no protocol":                {frame(0, map[string]any{"role": "client"}), "peer speaks protocol 0"},
		"a hello of other types":     {frame(0, map[string]any{"protocol": "1", "role": 1}), "cannot decode"},
	} {
		c := h.dial(t, false)
		c.send(test.bytes)
		if got := c.answer(0); !strings.Contains(got, "invalid: ") || !strings.Contains(got, test.says) {
			t.Errorf("%s: %q, want %q", name, got, test.says)
		}
		c.hungUp()
	}
	// Half a frame, and no more.
	c := h.dial(t, true)
	c.send(request(1, "system.ping", nil)[:20])
	c.CloseWrite()
	if got := c.answer(0); !strings.Contains(got, "unexpected EOF") {
		t.Errorf("half a frame: %q", got)
	}
	c.hungUp()
}

// What can be read and makes no sense gets an error, and the connection lives.
func hostileRequests(t *testing.T, h *hostileServer) {
	c := h.dial(t, true)
	ask := func(what string, id int64, want string, frames ...[]byte) {
		t.Helper()
		c.send(slices.Concat(frames...))
		if got := c.answer(id); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	ask("hello again", 0, "frames of kind 0 have no meaning here", helloFrame)
	ask("an answer", 0, "frames of kind 2 have no meaning here", frame(2, map[string]any{"id": 1}))
	ask("an unknown kind", 0, "frames of kind 99 have no meaning here", frame(99, map[string]any{}))
	for _, id := range []any{nil, 0, -1, uint64(1 << 63), uint64(1<<64 - 1)} {
		ask(fmt.Sprint("id ", id), 0, "a request needs an id, an integer from 1", request(id, "system.ping", nil))
	}
	for _, id := range []any{"1", 1.5, []int{1}, map[string]int{}} {
		ask(fmt.Sprint("id ", id), 0, "invalid: cannot decode", request(id, "system.ping", nil))
	}
	ask("the largest id", 1<<63-1, "response", request(int64(1<<63-1), "system.ping", nil))
	ask("an id used again", 7, "response", request(7, "system.ping", nil))
	ask("an id used again", 7, "response", request(7, "system.ping", nil))
	ask("no method", 1, `there is no method ""`, frame(1, map[string]any{"id": 1}))
	ask("an unknown method", 1, `there is no method "service.strat", did you mean service.start?`, request(1, "service.strat", nil))
	ask("a method that is no text", 0, "cannot decode", frame(1, map[string]any{"id": 1, "method": 7}))
	ask("parameters that are a list", 1, "expected a map", request(1, "service.list", []any{}))
	ask("more fields", 1, "response", frame(1, map[string]any{"id": 1, "method": "system.ping", "colour": "red"}))
	ask("a field twice", 2, "response", framed([]byte("\x92\x01\x83\xa2id\x01\xa6method\xabsystem.ping\xa2id\x02")))
	ask("cancel of nothing", 1, "response", frame(6, map[string]any{"id": 99}), frame(6, map[string]any{}), frame(6, map[string]any{"id": "x"}), request(1, "system.ping", nil))

	c = h.dial(t, true)
	follow := map[string]any{"lines": 0, "names": []string{"web"}}
	c.send(slices.Concat(request(3, "logs.follow", follow), request(3, "system.ping", nil)))
	if got := c.answer(0); got != "invalid: request 3 is unanswered: another needs another id" {
		t.Errorf("an id that is under way: %q", got)
	}
	c.send(frame(6, map[string]any{"id": 3}))
	if got := c.answer(3); got != "end" && got != "unavailable: cancelled" { // that before it has begun
		t.Errorf("cancel: %q", got)
	}

	// A byte at a time is as good as all at once.
	c = h.dial(t, false)
	for _, b := range slices.Concat(helloFrame, request(1, "system.ping", nil)) {
		c.send([]byte{b})
	}
	if kind, _, err := c.read(); kind != 0 || err != nil {
		t.Fatal(kind, err)
	}
	if got := c.answer(1); got != "response" {
		t.Errorf("a byte at a time: %q", got)
	}
}

// hostileParameters gives each method of rpc.discover what it does not take.
func hostileParameters(t *testing.T, h *hostileServer) {
	types := map[string]any{ // a good value of each
		"name": "web", "names": []string{"web"}, "config": "[service]", "signal": "CONT", "for": "running", "state": "running", "class": "user",
		"stream": "stdout", "since": "2026-11-22T18:24:00Z", "grep": "a", "lines": 1, "after": 1, "timeout_ms": 1,
		"service": "web", "listen": []string{"tcp:127.0.0.1:1"}, "backend": "tcp:127.0.0.1:2", "mode": "proxy", "socket_mode": "0600",
		"socket_user": "root", "socket_group": "root", "connect_timeout": 1, "idle_timeout": 1, "single_connection": true, "ephemeral": true,
		"no_wait": true, "reverse": true, "reveal": true, "follow": true, "dry_run": true, "persist": true, "previous": true,
	}
	wrong := map[string]any{
		"text": "x", "number": 7, "fraction": 1.5, "truth": true, "list": []any{1}, "nested": []any{[]any{"web"}}, "map": map[string]any{"web": "x"},
		"time": time.Unix(1, 0),
	}
	admin := h.client()
	defer admin.Close()
	methods, err := admin.Discover(t.Context())
	if err != nil || len(methods) < 20 {
		t.Fatal(len(methods), err)
	}
	c := h.dial(t, true)
	id := int64(0)
	refused := func(method, what string, params any) {
		t.Helper()
		id++
		c.send(request(id, method, params))
		if got := c.answer(id); !strings.HasPrefix(got, "invalid: ") {
			t.Fatalf("%s with %s: %q", method, what, got)
		}
	}
	for _, m := range methods {
		good := map[string]any{}
		for _, p := range m.Params {
			if types[p.Name] == nil {
				t.Fatalf("%s has the parameter %s: say here what it is like", m.Name, p.Name)
			}
			if !p.Optional {
				good[p.Name] = types[p.Name]
			}
		}
		for what, params := range map[string]any{"a list": []any{}, "a number": 1, "text": "x"} {
			refused(m.Name, what, params)
		}
		with := func(name string, value any) map[string]any {
			params := maps.Clone(good)
			params[name] = value
			return params
		}
		refused(m.Name, "an unknown parameter", with("nmae", "x"))
		refused(m.Name, "a parameter without a name", with("", 1))
		for _, p := range m.Params {
			if !p.Optional {
				params := maps.Clone(good)
				delete(params, p.Name)
				refused(m.Name, "no "+p.Name, params)
			}
			for what, value := range wrong {
				if fmt.Sprintf("%T", value) != fmt.Sprintf("%T", types[p.Name]) {
					refused(m.Name, fmt.Sprintf("%s that is %s", p.Name, what), with(p.Name, value))
				}
			}
		}
	}
	for _, ms := range []any{-1, int64(-1 << 63), int64(1<<63 - 1), uint64(1<<64 - 1)} {
		refused("service.wait", fmt.Sprint("timeout ", ms), map[string]any{"names": []string{"web"}, "timeout_ms": ms})
	}
	refused("logs.get", "a bad expression", map[string]any{"lines": 1, "grep": "("})
	refused("service.wait", "an unknown goal", map[string]any{"names": []string{"web"}, "for": "up"})
	t.Logf("%d requests were refused", id)
}

// Whatever is large gets an answer that fits.
func hostileSizes(t *testing.T, h *hostileServer) {
	huge := strings.Repeat("x", ipc.MaxFrame-200)
	many := slices.Repeat([]string{"web"}, 200_000)
	c := h.dial(t, true)
	for name, test := range map[string]struct {
		method string
		params any
		want   string
	}{
		"a name":            {"service.why", map[string]any{"name": huge}, `not_found: there is no service "xxx`},
		"a method":          {huge, nil, `invalid: there is no method "xxx`},
		"a parameter":       {"system.ping", map[string]any{huge: 1}, `invalid: system.ping has no parameter "xxx`},
		"a configuration":   {"service.add", map[string]any{"config": huge, "name": "huge"}, "invalid: "},
		"nested lists":      {"service.add", map[string]any{"config": "a = " + strings.Repeat("[", 1000_000), "name": "huge"}, "invalid: "},
		"an expression":     {"logs.get", map[string]any{"lines": 1, "grep": strings.Repeat("(", 1000_000)}, "invalid: "},
		"a repetition":      {"logs.get", map[string]any{"lines": 1, "grep": "((a{1000}){1000}){1000}"}, "invalid: "},
		"a name many times": {"service.status", map[string]any{"names": many}, "end"},
	} {
		c.send(request(1, test.method, test.params))
		if got := c.answer(1); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %.200q, want %q", name, got, test.want)
		}
	}
}

// Descriptors are not taken.
func hostileDescriptors(t *testing.T, h *hostileServer) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, n := range []int{1, 64, 253} { // SCM_MAX_FD
		for _, hello := range []bool{true, false} {
			c := h.dial(t, hello)
			rights := syscall.UnixRights(slices.Repeat([]int{int(null.Fd())}, n)...)
			if _, _, err := c.WriteMsgUnix(request(1, "system.ping", nil), rights, nil); err != nil {
				t.Fatal(err)
			}
			if got := c.answer(0); got != "invalid: descriptors are not taken on this link" {
				t.Errorf("%d descriptors: %q", n, got)
			}
			c.hungUp()
		}
	}
}

// hostileStalls is the one that takes ten seconds: nobody may take more for a
// frame, or for the first word.
func hostileStalls(t *testing.T, h *hostileServer) {
	half, silent, slow := h.dial(t, true), h.dial(t, false), h.dial(t, true)
	start := time.Now()
	frame := request(1, "system.ping", nil)
	half.send(frame[:len(frame)-1])
	go func() {
		for _, b := range frame {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second) // is what it does
		}
	}()
	for name, c := range map[string]rawClient{"half a frame": half, "a byte a second": slow} {
		if got := c.answer(0); got != "invalid: a frame was begun and is not whole after 10s" {
			t.Errorf("%s: %q", name, got)
		}
		c.hungUp()
	}
	silent.hungUp()
	if took := time.Since(start); took < 10*time.Second {
		t.Errorf("it has hung up after %v", took)
	}
}
