package main

import (
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// The link to zinit-healthd: it is told what to look at, and says what it has
// found out. What that means, the core decides.

// setProbes tells a zinit-healthd that has connected all that it is to do.
func (s *server) setProbes(a core.SetProbes) {
	s.health.send(ipc.KindProbes, ipc.Probes{})
	for _, p := range a.Probes {
		s.setProbe(p)
	}
	s.health.send(ipc.KindProbesEnd, ipc.ProbesEnd{})
}

func (s *server) setProbe(p core.Probe) {
	h := p.Service.Health
	id := ipc.ProbeID{Service: p.Service.Name, Run: ipc.RunID(p.Run), Generation: p.Generation}
	s.health.send(ipc.KindProbe, ipc.Probe{
		ProbeID: id, Starting: p.Starting, Interval: int64(p.Every), Timeout: int64(h.Timeout),
		Type: string(h.Type), Endpoint: h.Endpoint,
		Method: h.Method, Headers: h.Headers, Expect: h.ExpectStatus, Insecure: h.Insecure,
	})
	conn := s.health.conn
	if h.Type != spec.HealthExec || conn == nil {
		return
	}
	b := s.probeBuilder(p.Service)
	send := func() {
		m := b.build()
		c := ipc.ProbeCommand{ProbeID: id, Argv: m.order.Argv, Env: b.env.all(), Dir: m.order.Dir, Cred: m.order.Cred}
		if m.err != nil {
			c = ipc.ProbeCommand{ProbeID: id, Error: m.err.Error()}
		}
		if err := conn.Send(ipc.KindProbeCommand, c); err == ipc.ErrTooLarge {
			conn.Send(ipc.KindProbeCommand, ipc.ProbeCommand{ProbeID: id, Error: "its command and environment are larger than 1 MiB"})
		}
	}
	if b.mayBlock() {
		go send()
		return
	}
	send()
}

// probeBuilder makes the command of an exec probe as that of its service is
// made: with the same user, directory and environment.
func (s *server) probeBuilder(service *spec.Service) builder {
	sp := *service
	sp.Exec, sp.Ports, sp.Limits, sp.Console = sp.Health.Command, nil, &spec.Limits{}, false
	sp.Lifecycle = &spec.Lifecycle{Ready: spec.ReadyExec}
	return builder{action: core.Spawn{Service: &sp}, env: s.environment(&sp), runtimeDir: s.paths.RuntimeDir}
}

// onHealthFrame is what zinit-healthd says.
func (s *server) onHealthFrame(f ipc.Frame) error {
	if f.Kind != ipc.KindResult {
		return nil
	}
	var m ipc.Result
	if err := f.Decode(&m); err != nil {
		return err
	}
	s.log.Debug("probed", "service", m.Service, "ok", m.OK, "message", m.Message)
	s.step(core.ProbeResult{
		Run: core.RunID(m.Run), Generation: m.Generation, OK: m.OK, Message: m.Message,
		At: core.Time(m.At), Took: core.Time(m.Took),
	})
	s.resultAck = m.Seq
	return nil
}

func (s *server) onHealthChanged(a core.HealthChanged) {
	s.moved = true
	if a.Health.Status == core.HealthUnhealthy {
		s.log.Warn("unhealthy", "service", a.Service, "message", a.Health.Message)
		return
	}
	s.log.Info("healthy", "service", a.Service)
}
