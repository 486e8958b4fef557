package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

func TestExposition(t *testing.T) {
	for format, want := range map[metricsFormat]string{
		openMetrics: `# TYPE web_seconds counter
# UNIT web_seconds seconds
# HELP web_seconds With a \\, a \"quote\" and\na line.
web_seconds_total{name="a\\b\"c\nd",bad="x` + "\uFFFD" + `y"} 0.1
web_seconds_total{name="é"} 1.2345678e+07
# TYPE plain gauge
# HELP plain Nothing.
plain 0
# EOF
`,
		plainMetrics: `# TYPE web_seconds_total counter
# HELP web_seconds_total With a \\, a "quote" and\na line.
web_seconds_total{name="a\\b\"c\nd",bad="x` + "\uFFFD" + `y"} 0.1
web_seconds_total{name="é"} 1.2345678e+07
# TYPE plain gauge
# HELP plain Nothing.
plain 0
`,
	} {
		e := &exposition{format: format}
		e.family("web_seconds", "counter", "seconds", "With a \\, a \"quote\" and\na line.")
		e.sample(0.1, "name", "a\\b\"c\nd", "bad", "x\xffy")
		e.sample(12345678, "name", "é")
		e.family("plain", "gauge", "", "Nothing.")
		e.sample(0)
		if got := e.end(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}
}

func TestAcceptedFormat(t *testing.T) {
	for accept, want := range map[string]metricsFormat{
		"":                                     plainMetrics, // curl says */*, others nothing
		"*/*":                                  plainMetrics,
		"text/html, image/png;q=0.5":           plainMetrics,
		"application/openmetrics-text":         openMetrics,
		"Application/OpenMetrics-Text ; Q=0.1": openMetrics,
		`application/openmetrics-text; version="1.0.0"`:    openMetrics,
		"application/openmetrics-text; version=2.0.0":      plainMetrics,
		"application/openmetrics-text;q=0":                 plainMetrics,
		"application/openmetrics-text;q=much":              plainMetrics,
		"application/openmetrics-text;q=NaN":               plainMetrics,
		"text/plain, application/openmetrics-text":         openMetrics,
		"application/openmetrics-text;q=0.5, text/plain":   plainMetrics,
		"text/plain;q=0.3,application/openmetrics-text":    openMetrics,
		"text/plain;version=0.0.4;q=1,*/*;q=0.1":           plainMetrics,
		",;,=;application/openmetrics-text;;q,text/plain,": plainMetrics,
		// Prometheus 2.30, 2.42, 3.0.
		"application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1":                                                  plainMetrics,
		"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1": openMetrics,
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
			"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2": openMetrics,
	} {
		if got := acceptedFormat(accept); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
}

// TestMetricsAreOpenMetrics checks a whole text by the rules of the format: each
// sample stands below its family, which is there once and ends with its unit.
func TestMetricsAreOpenMetrics(t *testing.T) {
	started := ipc.Time(time.Unix(1_000_000, 250e6))
	text := measured{
		info: ipc.Info{Version: "1", Mode: "vm", ServerRestarts: 2, Started: &started},
		services: []ipc.Service{
			{Name: "db", State: ipc.StateRunning, Desired: "up", UptimeMS: 1500, RestartsTotal: 3, Health: &ipc.Health{Status: "unhealthy"}},
			{Name: "web", State: ipc.StateFailed, Desired: "down", Health: &ipc.Health{Status: "none"}},
		},
		used:    map[string]used{"db": {cpu: 2500 * time.Millisecond, memory: 4096, processes: 2}},
		proxies: []ipc.ProxyStatus{{Name: "p", Service: "db", ConnectionsTotal: 7, BytesToBackend: 9}},
	}.expose(openMetrics)
	body, ok := strings.CutSuffix(text, "# EOF\n")
	if !ok || strings.Contains(body, "# EOF") {
		t.Fatalf("no # EOF at the end:\n%s", text)
	}
	comment := regexp.MustCompile(`^# (TYPE|UNIT|HELP) ([a-z_]+) (.+)$`)
	sample := regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+.e0-9]+$`)
	seen := map[string]bool{}
	family, kind := "", ""
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		if m := comment.FindStringSubmatch(line); m != nil {
			switch m[1] {
			case "TYPE":
				family, kind = m[2], m[3]
				if seen[family] || strings.HasSuffix(family, "_total") {
					t.Errorf("family %s is there twice, or has the name of a sample", family)
				}
				seen[family] = true
			case "UNIT":
				if !strings.HasSuffix(family, "_"+m[3]) {
					t.Errorf("family %s does not end with its unit %s", family, m[3])
				}
			}
			if m[2] != family {
				t.Errorf("%q stands below %s", line, family)
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if want := family + map[string]string{"counter": "_total"}[kind]; m == nil || m[1] != want {
			t.Errorf("%q is no sample of %s", line, want)
		}
	}
	for _, want := range []string{
		`zinit_start_time_seconds 1.00000025e+06`, `zinit_supervisor_replacements_total 2`,
		`zinit_service_state{name="db",state="running"} 1`, `zinit_service_state{name="db",state="failed"} 0`,
		`zinit_service_wanted{name="web"} 0`, `zinit_service_restarts_total{name="db"} 3`,
		`zinit_service_uptime_seconds{name="db"} 1.5`, `zinit_service_healthy{name="db"} 0`,
		`zinit_service_cpu_seconds_total{name="db"} 2.5`, `zinit_service_memory_bytes{name="db"} 4096`,
		`zinit_proxy_connections_total{name="p",service="db"} 7`, `zinit_proxy_to_backend_bytes_total{name="p",service="db"} 9`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	for _, not := range []string{`healthy{name="web"`, `uptime_seconds{name="web"`, `memory_bytes{name="web"`} {
		if strings.Contains(body, not) {
			t.Errorf("%s is there", not)
		}
	}
}

// serveTest serves a page that names what was asked for.
func serveTest(t *testing.T, headTime time.Duration) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		httpServer{func(_ context.Context, r httpRequest) page { return plainPage(200, "this is "+r.path+r.accept) }, headTime}.serve(l)
		close(done)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	address := serveTest(t, time.Minute)
	for _, test := range []struct{ request, status, body string }{
		{"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "this is /a\n"},
		{"GET /a?b=c HTTP/1.0\r\n\r\n", "200 OK", "this is /a\n"},
		{"GET /a HTTP/1.1\n\n", "200 OK", "this is /a\n"},
		{"HEAD /a HTTP/1.1\r\n\r\n", "200 OK", ""},
		{"GET /a HTTP/1.1\r\naccept: b\r\nAccept-Charset: x\r\nACCEPT:c;q=1\r\n\r\n", "200 OK", "this is /a, b,c;q=1\n"},
		{"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed", "only GET and HEAD are answered\n"},
		{"GET a HTTP/1.1\r\n\r\n", "400 Bad Request", "not a request that is understood here\n"},
		{"GET / HTTP/2.0\r\n\r\n", "400 Bad Request", "not a request that is understood here\n"},
		{"\r\n", "400 Bad Request", "not a request that is understood here\n"},
		{"\x16\x03\x01\x02\x00\n", "400 Bad Request", "not a request that is understood here\n"},
		{"GET /" + strings.Repeat("a", httpHead) + " HTTP/1.1\r\n\r\n", "400 Bad Request", "not a request that is understood here: larger than 8192 bytes\n"},
		{"GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", httpHead), "400 Bad Request", "not a request that is understood here: larger than 8192 bytes\n"},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, test.request) // which may not take all of it
		name, _, _ := strings.Cut(test.request, "\n")
		request := &http.Request{Method: strings.Fields(test.request + " GET")[0]}
		response, err := http.ReadResponse(bufio.NewReader(conn), request)
		if err != nil {
			t.Errorf("%.40q: %v", name, err)
			conn.Close()
			continue
		}
		body, err := io.ReadAll(response.Body)
		if response.Status != test.status || string(body) != test.body || err != nil || !response.Close {
			t.Errorf("%.40q: %s, %q, %v", name, response.Status, body, err)
		}
		conn.Close()
	}
}

// TestHTTPClientsThatSayNothing are hung up on, and others get their turn.
func TestHTTPClientsThatSayNothing(t *testing.T) {
	address := serveTest(t, 20*time.Millisecond)
	for i := range 3 * httpClients {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost:")
		}
	}
	response, err := http.Get("http://" + address + "/b")
	for err != nil { // it has its own turn to hurry in
		response, err = http.Get("http://" + address + "/b")
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if string(body) != "this is /b\n" {
		t.Errorf("%q", body)
	}
}

func FuzzHTTPRequest(f *testing.F) {
	f.Add("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	f.Add("GET /?x HTTP/1.0\nAccept: application/openmetrics-text;q=1, */*\n\n")
	f.Add("\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := readRequest(strings.NewReader(text))
		if err == nil && (!strings.HasPrefix(r.path, "/") || strings.ContainsAny(r.method+r.path, " \n?")) {
			t.Errorf("%q is %+v", text, r)
		}
		acceptedFormat(r.accept)
	})
}
