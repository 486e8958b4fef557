package ipc

// The link between supervisord, which decides what is healthy, and
// zinit-healthd, which looks. zinit-healthd connects. It is told all that it is
// to do, by Probes, a Probe for each and ProbesEnd, and from then on what
// changes, by a Probe or a DropProbe. It says what it has found out by Results,
// and says again on a new connection what was not acknowledged.

// Kinds on the health link. Numbers are never reused.
const (
	// supervisord to zinit-healthd
	KindProbes       Kind = 48 // Probes
	KindProbe        Kind = 49 // Probe
	KindProbesEnd    Kind = 50 // ProbesEnd
	KindDropProbe    Kind = 51 // DropProbe
	KindProbeCommand Kind = 52 // ProbeCommand
	KindResultAck    Kind = 53 // Ack
	// zinit-healthd to supervisord
	KindResult Kind = 56 // Result
)

// Probes begins the complete set: what it does not name ends with ProbesEnd.
type Probes struct{}

// ProbesEnd ends the complete set.
type ProbesEnd struct{}

// ProbeID names a probe: one way to look at one run of a service.
type ProbeID struct {
	Service    string `msgpack:"service"`
	Run        RunID  `msgpack:"run"`
	Generation int    `msgpack:"generation,omitempty"`
}

// Probe adds the probe of a service, or replaces it. One with the ID of that
// before goes on: only its interval may be another.
type Probe struct {
	ProbeID
	// Starting says that the first pass is waited for: it begins at once, and
	// then every Interval. Else it is spread over the interval by its name.
	Starting bool  `msgpack:"starting,omitempty"`
	Interval int64 `msgpack:"interval"` // nanoseconds
	Timeout  int64 `msgpack:"timeout"`  // nanoseconds
	// Type is tcp, http, unix or exec. The command of exec comes by itself, in
	// a ProbeCommand.
	Type     string `msgpack:"type"`
	Endpoint string `msgpack:"endpoint,omitempty"`
	// Of http: Expect are the status codes that are good, none for any 2xx or
	// 3xx.
	Method   string            `msgpack:"method,omitempty"`
	Headers  map[string]string `msgpack:"headers,omitempty"`
	Expect   []int             `msgpack:"expect,omitempty"`
	Insecure bool              `msgpack:"insecure,omitempty"`
}

// DropProbe ends the probe of a service.
type DropProbe struct {
	Service string `msgpack:"service"`
}

// ProbeCommand is the command of an exec probe, or why there is none.
type ProbeCommand struct {
	ProbeID
	Argv  []string `msgpack:"argv,omitempty"`
	Env   []string `msgpack:"env,omitempty"` // the whole, KEY=value
	Dir   string   `msgpack:"dir,omitempty"`
	Cred  *Cred    `msgpack:"cred,omitempty"`
	Error string   `msgpack:"error,omitempty"`
}

// Result is what a probe has found out. It is told until it is acknowledged.
type Result struct {
	// Seq counts the results of one zinit-healthd.
	Seq uint64 `msgpack:"seq"`
	ProbeID
	OK bool `msgpack:"ok"`
	// Message says in words what there was.
	Message string `msgpack:"message"`
	// At is when the probe ended, in CLOCK_MONOTONIC nanoseconds, Took how long
	// it took, in nanoseconds.
	At   int64 `msgpack:"at"`
	Took int64 `msgpack:"took"`
}
