package core

import (
	"fmt"
	"strings"

	"github.com/threefoldtech/zinit/common/spec"
)

// ReasonKind says what kind of failure it was.
type ReasonKind string

// The kinds of failures (spec: states).
const (
	ReasonExitCode   ReasonKind = "exit_code"
	ReasonSignal     ReasonKind = "signal"
	ReasonStartTime  ReasonKind = "start_timeout"
	ReasonStopTime   ReasonKind = "stop_timeout"
	ReasonHealth     ReasonKind = "health_check_failed"
	ReasonWatchdog   ReasonKind = "watchdog"
	ReasonDependency ReasonKind = "dependency_failed"
	ReasonMissing    ReasonKind = "missing_dependency"
	ReasonCycle      ReasonKind = "dependency_cycle"
	ReasonPort       ReasonKind = "port_in_use"
	ReasonSpawn      ReasonKind = "spawn_error"
	ReasonConfig     ReasonKind = "config_error"
)

// Reason is why a service is Failed, or is being stopped for a failure. It is
// not changed once made.
type Reason struct {
	Kind ReasonKind `msgpack:"kind"`
	// Message says it in words, without the name of the service.
	Message string `msgpack:"message"`
	// End of the process, for exit_code and signal.
	End *End `msgpack:"end,omitempty"`
	// Service is the dependency, Services the members of the cycle.
	Service  string   `msgpack:"service,omitempty"`
	Services []string `msgpack:"services,omitempty"`
	// Port, Pid and Command are who has the port, for port_in_use.
	Port    uint16 `msgpack:"port,omitempty"`
	Pid     int    `msgpack:"pid,omitempty"`
	Command string `msgpack:"command,omitempty"`
	// Attempts is how often it has failed, for health_check_failed.
	Attempts int `msgpack:"attempts,omitempty"`
	// Code is what a shell would exit with, for spawn_error.
	Code int `msgpack:"code,omitempty"`
}

// ofDependency says that the failure is another's, so that it ends by itself
// with the other's.
func (r *Reason) ofDependency() bool {
	return r != nil && (r.Kind == ReasonDependency || r.Kind == ReasonMissing || r.Kind == ReasonCycle)
}

// same says that two reasons are one failure of the graph.
func (r *Reason) same(o *Reason) bool {
	return r == o || o != nil && r.Kind == o.Kind && r.Service == o.Service && (r.Kind != ReasonMissing || r.Message == o.Message)
}

// final says that trying again would be of no use.
func (r *Reason) final() bool { return r.ofDependency() || r != nil && r.Kind == ReasonConfig }

func endReason(e End, early bool) *Reason {
	r := &Reason{Kind: ReasonExitCode, End: &e}
	switch {
	case e.Signal != 0:
		r.Kind = ReasonSignal
		r.Message = "killed by " + spec.SignalName(e.Signal)
		if e.OOM {
			r.Message += ": out of memory"
		}
		if e.Core {
			r.Message += " (core dumped)"
		}
	case early:
		r.Message = fmt.Sprintf("ended with exit code %d before it was ready", e.Code)
	default:
		r.Message = fmt.Sprintf("ended with exit code %d", e.Code)
	}
	return r
}

func cycleReason(names []string) *Reason {
	path := strings.Join(append(names[:len(names):len(names)], names[0]), " -> ")
	return &Reason{Kind: ReasonCycle, Services: names, Message: "is part of a dependency cycle: " + path}
}

// ExitCode is what zinit exits with for the sake of a service that ended so.
func (e End) ExitCode() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}
