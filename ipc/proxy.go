package ipc

import "time"

// The link between supervisord, which decides when a service is started and
// stopped, and proxyd, which holds the connections. After the hellos
// supervisord tells all proxies, and again whenever one changes; proxyd keeps
// what stays the same.

// Kinds on the link to proxyd. Numbers are never reused.
const (
	// supervisord to proxyd
	KindProxies     Kind = 64 // Proxies: the set begins
	KindProxy       Kind = 65 // Proxy; with its listeners, in order
	KindProxiesEnd  Kind = 66 // no body: the set is complete
	KindGate        Kind = 67 // Gate
	KindStatsWanted Kind = 68 // StatsWanted
	// proxyd to supervisord
	KindDemand     Kind = 80 // Demand
	KindIdle       Kind = 81 // Idle
	KindGateAck    Kind = 82 // GateAck
	KindProxyStats Kind = 83 // ProxyStats, one frame a proxy
	KindStatsEnd   Kind = 84 // StatsEnd
)

// Proxies begins the whole set of proxies. What the set before had and this
// one has not is closed, with its connections.
type Proxies struct{}

// Proxy is one proxy and where its gate stands.
type Proxy struct {
	Name    string `msgpack:"name"`
	Service string `msgpack:"service"`
	// Listen are the addresses of its listeners, for messages; Backend is where
	// to connect, none where the service has the listeners itself.
	Listen           []Address     `msgpack:"listen"`
	Backend          Address       `msgpack:"backend"`
	ConnectTimeout   time.Duration `msgpack:"connect_timeout"`
	IdleTimeout      time.Duration `msgpack:"idle_timeout,omitempty"` // 0 = never
	SingleConnection bool          `msgpack:"single_connection,omitempty"`
	Gate             Gate          `msgpack:"gate"`
}

// Passes says that the service has the listeners itself (mode = "pass").
func (p *Proxy) Passes() bool { return p.Backend == Address{} }

// Address is network tcp with host:port, or network unix with a path.
type Address struct {
	Network string `msgpack:"network"`
	Address string `msgpack:"address"`
}

func (a Address) String() string { return a.Network + ":" + a.Address }

// GateState is what happens to clients.
type GateState string

// The states of a gate.
const (
	// GateOpen: the backend is up; clients are accepted and connected.
	GateOpen GateState = "open"
	// GateHold: clients wait in the backlog of the listener, and the first of
	// them raises Demand.
	GateHold GateState = "hold"
	// GateClosed: as hold, and nothing is raised.
	GateClosed GateState = "closed"
)

// Gate sets the gate of a proxy. It is answered by GateAck.
type Gate struct {
	Name  string    `msgpack:"name"`
	Seq   uint64    `msgpack:"seq"`
	State GateState `msgpack:"state"`
	// Refuse closes the clients that wait, before anything else: what they
	// wait for has failed. Reason says why.
	Refuse bool   `msgpack:"refuse,omitempty"`
	Reason string `msgpack:"reason,omitempty"`
}

// GateAck says that a gate stands as ordered.
type GateAck struct {
	Name string `msgpack:"name"`
	Seq  uint64 `msgpack:"seq"`
	// Busy says that there are connections, or clients that wait for one, or
	// that the last has ended less than the idle timeout ago.
	Busy bool `msgpack:"busy,omitempty"`
}

// Demand says that a client waits at a gate on hold.
type Demand struct {
	Name string `msgpack:"name"`
	// Seq is that of the gate, so that a demand that a later order has
	// overtaken is known.
	Seq uint64 `msgpack:"seq"`
}

// Idle says that a proxy has had no connection for its idle timeout.
type Idle struct {
	Name string `msgpack:"name"`
	Seq  uint64 `msgpack:"seq"` // of the gate
}

// StatsWanted asks for the counters of all proxies.
type StatsWanted struct{}

// ProxyStats are the counters of a proxy, since proxyd started.
type ProxyStats struct {
	Name   string `msgpack:"name"`
	Active int    `msgpack:"active"`
	Total  uint64 `msgpack:"total"`
	Failed uint64 `msgpack:"failed"` // clients that were closed without having been connected
	// Bytes to and from the backend.
	ToBackend   uint64 `msgpack:"to_backend"`
	FromBackend uint64 `msgpack:"from_backend"`
	// LastActivity is when a connection last began or ended, Unix time in ns;
	// 0 = never.
	LastActivity int64 `msgpack:"last_activity,omitempty"`
	// LastError is why a client was closed last, with its time.
	LastError   string `msgpack:"last_error,omitempty"`
	LastErrorAt int64  `msgpack:"last_error_at,omitempty"`
}

// StatsEnd follows the last ProxyStats of an answer.
type StatsEnd struct{}
