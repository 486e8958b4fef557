package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// Clients that mean harm, or are broken, and a real zinit-server. After each of
// them it has the descriptors and about the memory that it had before, answers
// others, and its services have gone on. e2e_crowd_test.go has many at a
// time, e2e_raw_test.go what they speak with.

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

	// So is a greeting with more behind it, whether that is answered at once or never.
	ping := request(3, "system.ping", nil)
	never := request(1, "service.wait", map[string]any{"names": []string{"web"}, "for": "inactive"})
	for _, parts := range [][2][]byte{
		{nil, ping}, {ping, nil}, {never, ping}, {never[:9], slices.Concat(never[9:], ping)},
	} {
		c = h.dial(t, false)
		c.send(slices.Concat(helloFrame, parts[0]))
		if kind, _, err := c.read(); kind != 0 || err != nil {
			t.Fatalf("a greeting and %q: kind %d, %v", parts[0], kind, err)
		}
		c.send(parts[1])
		if got := c.answer(3); got != "response" {
			t.Errorf("a greeting and %q, then %q: %q", parts[0], parts[1], got)
		}
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
	refused := func(method, what string, params any) (message string) {
		t.Helper()
		id++
		c.send(request(id, method, params))
		got := c.answer(id)
		if !strings.HasPrefix(got, "invalid: ") {
			t.Fatalf("%s with %s: %q", method, what, got)
		}
		return got
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
					if got := refused(m.Name, fmt.Sprintf("%s that is %s", p.Name, what), with(p.Name, value)); !strings.Contains(got, p.Name) {
						t.Errorf("%s with %s that is %s does not name it: %q", m.Name, p.Name, what, got)
					}
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
	if got := silent.answer(0); got != "invalid: nothing was said within 10s" {
		t.Errorf("silent: %q", got)
	}
	silent.hungUp()
	if took := time.Since(start); took < 10*time.Second {
		t.Errorf("it has hung up after %v", took)
	}
}
