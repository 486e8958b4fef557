package spec

import (
	"errors"
	"fmt"
	"strings"
)

// The rules between fields, each with the place at which a break of it is
// shown.

// checkMisplaced refuses fields that mean nothing to what the file describes.
func (p *parser) checkMisplaced(s *Service) {
	for i := range fields {
		f := &fields[i]
		if !p.has(f.name()) || !s.hasTable(f.Table) ||
			f.Table == "health" && s.Health.Type == "" || f.Table == "xinet" && p.bad["xinet.mode"] {
			continue
		}
		if why := f.misplaced(s); why != "" {
			p.rule(true, f.name(), "%s: %s", f.name(), why)
		}
	}
}

func (p *parser) checkService(s *Service) {
	l := s.Lifecycle
	p.rule(p.lacks("service.exec"), "service", "service.exec is missing: which command is to be run?")
	p.rule(len(s.Exec) == 0 && p.has("service.exec"), "service.exec", "service.exec: must not be empty")
	if s.Oneshot {
		p.rule(s.Health != nil, "health", "[health] does not apply to a oneshot, which is done when it exits")
		p.rule(s.Xinet != nil, "xinet", "[xinet] does not apply to a oneshot, which has no clients")
	}
	if !p.bad["lifecycle.ready"] {
		p.rule(l.Ready == ReadyHealth && s.Health == nil, "lifecycle.ready", `lifecycle.ready: "health" needs a [health] table`)
		p.rule(l.Watchdog > 0 && l.Ready != ReadyNotify, "lifecycle.watchdog_ms", `lifecycle.watchdog_ms: needs lifecycle.ready = "notify"`)
		p.rule(l.ReadyFd != 3 && l.Ready != ReadyFd, "lifecycle.ready_fd", `lifecycle.ready_fd: needs lifecycle.ready = "fd"`)
	}
	if x := s.Xinet; x != nil && x.Mode == ProxyPass && l.Ready == ReadyFd {
		first := 3 + len(x.Listen)
		p.rule(l.ReadyFd < first, "lifecycle.ready", "lifecycle.ready: ready_fd must be at least %d: the listening sockets are passed from descriptor 3 on", first)
	}
	if !p.bad["lifecycle.restart_delay_ms"] {
		p.rule(l.RestartDelayMax < l.RestartDelay, "lifecycle.restart_delay_max_ms",
			"lifecycle.restart_delay_max_ms: must not be less than restart_delay_ms, %d", l.RestartDelay.Milliseconds())
	}
	p.rule(s.Logging.File != "" && s.Logging.File[0] != '/', "logging.file", "logging.file: must be an absolute path, not %s", quote(s.Logging.File))
	if !p.bad["service.user"] {
		p.rule(len(s.Limits.Capabilities) > 0 && s.User == "", "limits.capabilities",
			"limits.capabilities: needs service.user: without one the service has those of zinit")
	}
}

func (p *parser) checkDependencies(s *Service) {
	conflicts := make(map[string]bool, len(s.Conflicts))
	for _, name := range s.Conflicts {
		conflicts[name] = true
	}
	for _, list := range s.dependencies() {
		for i, name := range list.names {
			path := joinPath("dependencies", list.key, fmt.Sprintf("#%d", i))
			if name == s.Name {
				p.fault(path, false, "dependencies.%s: %s names itself", list.key, name)
			} else if conflicts[name] && (list.key == "requires" || list.key == "wants") {
				p.fault(path, false, "dependencies.%s: %s is also in dependencies.conflicts", list.key, name)
			}
		}
	}
}

func (p *parser) checkHealth(h *Health) {
	p.rule(p.lacks("health.type"), "health", "health.type is missing: tcp, http, exec or unix")
	if p.bad["health.type"] || h.Type == "" {
		return
	}
	if h.Type == HealthExec {
		p.rule(p.lacks("health.command"), "health", `health.command is missing, as type is "exec"`)
		p.rule(p.has("health.command") && len(h.Command) == 0, "health.command", "health.command: must not be empty")
	} else {
		p.rule(p.lacks("health.endpoint"), "health", `health.endpoint is missing, as type is %q`, h.Type)
		if p.has("health.endpoint") {
			if err := checkEndpoint(h.Type, h.Endpoint); err != nil {
				p.rule(true, "health.endpoint", "health.endpoint: %v%s", err, unexpanded(h.Endpoint))
			}
		}
	}
	p.rule(h.Type == HealthHTTP && !validHeaderName(h.Method), "health.method", "health.method: %s is not an HTTP method", quote(h.Method))
}

// unexpanded is a hint about a value that seems to be meant to be expanded.
func unexpanded(s string) string {
	if len(References(s)) == 0 {
		return ""
	}
	return ": variables are not expanded here"
}

func checkEndpoint(t HealthType, endpoint string) error {
	switch t {
	case HealthTCP:
		return checkHostPort(endpoint)
	case HealthUnix:
		return checkSocketPath(endpoint)
	}
	if rest, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		path, url, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(url, "/") {
			return errors.New("must look like unix:/path:/url")
		}
		return checkSocketPath(path)
	}
	rest, ok := strings.CutPrefix(endpoint, "http://")
	port := ":80"
	if !ok {
		port = ":443"
		if rest, ok = strings.CutPrefix(endpoint, "https://"); !ok {
			return errors.New("must begin with one of http://, https://, unix: and a path")
		}
	}
	if strings.ContainsAny(endpoint, " \t\r\n") {
		return errors.New("must not contain white space")
	}
	host := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		host = rest[:i]
	}
	if host == "" || host[0] == ':' {
		return errors.New("must name a host")
	}
	if strings.LastIndexByte(host, ':') <= strings.LastIndexByte(host, ']') {
		host += port
	}
	return checkHostPort(host)
}

// maxListen is how many listeners fit into one message (ipc.MaxFds).
const maxListen = 64

func (p *parser) checkProxy(s *Service) {
	x := s.Xinet
	if s.Kind == KindService {
		p.rule(x.Name != s.Name, "xinet.name", "xinet.name: must be that of the service, %s, or left out", s.Name)
		p.rule(x.Service != s.Name, "xinet.service", "xinet.service: must be that of the file, %s, or left out", s.Name)
	}
	p.rule(p.lacks("xinet.listen"), "xinet", "xinet.listen is missing: at which addresses?")
	p.rule(p.has("xinet.listen") && len(x.Listen) == 0, "xinet.listen", "xinet.listen: must have at least one address")
	p.rule(len(x.Listen) > maxListen, "xinet.listen", "xinet.listen: must have at most %d addresses", maxListen)
	if p.bad["xinet.mode"] {
		return
	}
	if x.Mode == ProxyPass {
		return
	}
	p.rule(p.lacks("xinet.backend"), "xinet", "xinet.backend is missing: where does the service answer?")
	p.rule(x.Backend.Network == "tcp" && strings.HasPrefix(x.Backend.Address, ":"), "xinet.backend", "xinet.backend: must name a host")
	for _, a := range x.Listen {
		p.rule(x.Backend.Reaches(a), "xinet.backend", "xinet.backend: is an address at which the proxy itself listens")
	}
}
