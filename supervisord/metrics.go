package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// exposition is a text for monitoring.
type exposition struct {
	strings.Builder
	format     metricsFormat
	name, kind string // of the family that is being written
}

// metricsFormat is a media type.
type metricsFormat string

const (
	openMetrics metricsFormat = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	// plainMetrics is the older text format of Prometheus. Programs that read
	// only that take the samples of OpenMetrics for what they are, but not the
	// type and the help of counters.
	plainMetrics metricsFormat = "text/plain; version=0.0.4; charset=utf-8"
)

// acceptedFormat is the one of the two that an Accept header (RFC 9110, 12.5.1)
// prefers. OpenMetrics is for those who name it.
func acceptedFormat(accept string) metricsFormat {
	var open, plain float64
	for r := range strings.SplitSeq(accept, ",") {
		kind, params, _ := strings.Cut(r, ";")
		quality, version := 1.0, ""
		for p := range strings.SplitSeq(params, ";") {
			switch name, value, _ := strings.Cut(strings.TrimSpace(p), "="); strings.ToLower(name) {
			case "q":
				quality, _ = strconv.ParseFloat(value, 64)
			case "version":
				version = strings.Trim(value, `"`)
			}
		}
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "application/openmetrics-text":
			if version == "" || version == "1.0.0" {
				open = max(open, quality)
			}
		case "text/plain":
			plain = max(plain, quality)
		}
	}
	if open > 0 && open >= plain {
		return openMetrics
	}
	return plainMetrics
}

// escapeLabel is what a label cannot hold as it is, escapeHelp what a help text
// of the older format cannot.
var (
	escapeLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	escapeHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
)

// family begins one; all of its samples follow. The name of one with a unit
// ends with that.
func (e *exposition) family(name, kind, unit, help string) {
	e.name, e.kind = name, kind
	escape := escapeLabel
	if e.format == plainMetrics {
		// A family has the name of its samples there, and no unit.
		unit, escape = "", escapeHelp
		if kind == "counter" {
			name += "_total"
		}
	}
	fmt.Fprintf(e, "# TYPE %s %s\n", name, kind)
	if unit != "" {
		fmt.Fprintf(e, "# UNIT %s %s\n", name, unit)
	}
	fmt.Fprintf(e, "# HELP %s %s\n", name, escape.Replace(help))
}

// sample adds one to the family; labels are names and values in turn.
func (e *exposition) sample(value float64, labels ...string) {
	e.WriteString(e.name)
	if e.kind == "counter" {
		e.WriteString("_total")
	}
	for i := 0; i < len(labels); i += 2 {
		between := ","
		if i == 0 {
			between = "{"
		}
		fmt.Fprintf(e, `%s%s="%s"`, between, labels[i], escapeLabel.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")))
	}
	if len(labels) > 0 {
		e.WriteByte('}')
	}
	fmt.Fprintf(e, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

func (e *exposition) end() string {
	if e.format == openMetrics {
		e.WriteString("# EOF\n")
	}
	return e.String()
}

// measured is what the metrics tell of.
type measured struct {
	info     ipc.Info
	services []ipc.Service
	used     map[string]used
	proxies  []ipc.ProxyStatus // those that zinit-proxyd counts for
}

// used is what the processes of a service use.
type used struct {
	cpu       time.Duration
	memory    int64
	processes int
}

// measureAll looks at everything once.
func (s *server) measureAll(ctx context.Context) (m measured, err error) {
	counters, err := s.proxyStats(ctx)
	if err != nil {
		return m, err
	}
	if err := s.in(ctx, func() {
		m.info = s.info()
		for _, n := range s.core.Names() {
			v, _ := s.viewOf(n)
			m.services = append(m.services, v)
		}
		for n, p := range s.proxies {
			if c, ok := counters[n]; ok {
				m.proxies = append(m.proxies, s.viewProxy(p, c))
			}
		}
	}); err != nil {
		return m, err
	}
	o, err := s.ownersOf(ctx, nil)
	if err != nil {
		return m, err
	}
	processes, err := o.processes()
	m.used = map[string]used{}
	for name, list := range processes {
		u := used{cpu: measure(list).cpu, processes: len(list)}
		for _, p := range list {
			u.memory += p.resident
		}
		m.used[name] = u
	}
	return m, err
}

// expose writes what was measured.
func (m measured) expose(format metricsFormat) string {
	e := &exposition{format: format}
	e.family("zinit_build_info", "gauge", "", "The version of zinit-server, and the mode that zinit runs in.")
	e.sample(1, "version", m.info.Version, "mode", m.info.Mode)
	if m.info.Started != nil {
		e.family("zinit_start_time_seconds", "gauge", "seconds", "When zinit was started, in seconds since 1970.")
		e.sample(float64(time.Time(*m.info.Started).UnixMilli()) / 1000)
	}
	e.family("zinit_supervisor_replacements", "counter", "", "How often the supervisor was replaced while the services went on.")
	e.sample(float64(m.info.ServerRestarts))
	e.family("zinit_config_errors", "gauge", "", "Errors in the configuration.")
	e.sample(float64(len(m.info.ConfigErrors)))

	each := func(name, kind, unit, help string, value func(ipc.Service) (float64, bool)) {
		e.family(name, kind, unit, help)
		for _, s := range m.services {
			if v, ok := value(s); ok {
				e.sample(v, "name", s.Name)
			}
		}
	}
	e.family("zinit_service_state", "gauge", "", "1 for the state that a service is in, 0 for the others.")
	for _, s := range m.services {
		for state := core.StateInactive; state <= core.StateFailed; state++ {
			e.sample(number(s.State == ipc.State(state.String())), "name", s.Name, "state", state.String())
		}
	}
	each("zinit_service_wanted", "gauge", "", "1 if a service is to be up.", func(s ipc.Service) (float64, bool) {
		return number(s.Desired == "up"), true
	})
	each("zinit_service_restarts", "counter", "", "How often a service was restarted by itself.", func(s ipc.Service) (float64, bool) {
		return float64(s.RestartsTotal), true
	})
	each("zinit_service_uptime_seconds", "gauge", "seconds", "How long a service has been running.", func(s ipc.Service) (float64, bool) {
		return float64(s.UptimeMS) / 1000, s.State == ipc.StateRunning
	})
	each("zinit_service_healthy", "gauge", "", "1 if the last health checks passed, 0 if they failed.", func(s ipc.Service) (float64, bool) {
		healthy := s.Health.Status == string(core.HealthHealthy)
		return number(healthy), healthy || s.Health.Status == string(core.HealthUnhealthy)
	})
	of := func(value func(used) float64) func(ipc.Service) (float64, bool) {
		return func(s ipc.Service) (float64, bool) {
			u, ok := m.used[s.Name]
			return value(u), ok
		}
	}
	each("zinit_service_cpu_seconds", "counter", "seconds", "Processor time of the processes of a service.",
		of(func(u used) float64 { return u.cpu.Seconds() }))
	each("zinit_service_memory_bytes", "gauge", "bytes", "Resident memory of the processes of a service.",
		of(func(u used) float64 { return float64(u.memory) }))
	each("zinit_service_processes", "gauge", "", "Processes of a service.",
		of(func(u used) float64 { return float64(u.processes) }))

	proxies := func(name, kind, unit, help string, value func(ipc.ProxyStatus) float64) {
		e.family(name, kind, unit, help)
		for _, p := range m.proxies {
			e.sample(value(p), "name", p.Name, "service", p.Service)
		}
	}
	proxies("zinit_proxy_active_connections", "gauge", "", "Clients that are connected.",
		func(p ipc.ProxyStatus) float64 { return float64(p.ConnectionsActive) })
	proxies("zinit_proxy_connections", "counter", "", "Clients that have connected.",
		func(p ipc.ProxyStatus) float64 { return float64(p.ConnectionsTotal) })
	proxies("zinit_proxy_failed_connections", "counter", "", "Clients that were closed because the service could not be reached.",
		func(p ipc.ProxyStatus) float64 { return float64(p.ConnectionsFailed) })
	proxies("zinit_proxy_to_backend_bytes", "counter", "bytes", "What clients have sent.",
		func(p ipc.ProxyStatus) float64 { return float64(p.BytesToBackend) })
	proxies("zinit_proxy_from_backend_bytes", "counter", "bytes", "What clients were sent.",
		func(p ipc.ProxyStatus) float64 { return float64(p.BytesFromBackend) })
	return e.end()
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// page answers over HTTP.
func (s *server) page(ctx context.Context, r httpRequest) page {
	switch r.path {
	case "/metrics":
		s.scraping.Lock() // one at a time, however many ask
		defer s.scraping.Unlock()
		m, err := s.measureAll(ctx)
		if err != nil {
			return plainPage(503, err.Error())
		}
		format := acceptedFormat(r.accept)
		return page{200, string(format), m.expose(format)}
	case "/healthz":
		if err := s.in(ctx, func() {}); err != nil {
			return plainPage(503, err.Error())
		}
		return plainPage(200, "ok")
	case "/readyz":
		var missing []string
		if err := s.in(ctx, func() { missing = s.unready() }); err != nil {
			return plainPage(503, err.Error())
		}
		if len(missing) > 0 {
			return plainPage(503, "not ready: "+strings.Join(missing, ", "))
		}
		return plainPage(200, "ok")
	}
	return plainPage(404, "there are /metrics, /healthz and /readyz")
}

// mostUnready bounds what /readyz lists.
const mostUnready = 20

// unready says what is wanted and neither running nor done.
func (s *server) unready() (missing []string) {
	if s.core.ShuttingDown() {
		return []string{"zinit is shutting down"}
	}
	for _, n := range s.core.Names() {
		v, _ := s.core.View(s.now(), n)
		over := v.State == core.StateExited && !v.Due && v.Next == 0
		if !v.Up || v.State == core.StateRunning || over {
			continue
		}
		if missing = append(missing, n+" is "+v.State.String()); len(missing) > mostUnready {
			missing[mostUnready] = "and more"
			break
		}
	}
	return missing
}

// metrics answers a client in pieces, each of whole lines.
func metrics(c *client, ctx context.Context, r ipc.Request) (any, error) {
	m, err := c.s.measureAll(ctx)
	if err != nil {
		return nil, err
	}
	const most = 64 << 10
	var parts []map[string]string
	for text := m.expose(openMetrics); text != ""; {
		n := len(text)
		if n > most {
			n = strings.LastIndexByte(text[:most], '\n') + 1
		}
		parts = append(parts, map[string]string{"text": text[:n]})
		text = text[n:]
	}
	return items(c, r, parts, nil)
}
