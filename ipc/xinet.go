package ipc

import "time"

// Proxies on the control link.

// ProxyParams are the parameters of xinet.set: the fields of a proxy file, see
// docs/services.md. What is left out has its default.
type ProxyParams struct {
	Name    string   `msgpack:"name"`
	Service string   `msgpack:"service"`
	Listen  []string `msgpack:"listen"`
	Backend string   `msgpack:"backend,omitempty"`
	Mode    string   `msgpack:"mode,omitempty"`
	// ConnectTimeout and IdleTimeout are in seconds, nil for the default.
	ConnectTimeout   *int   `msgpack:"connect_timeout,omitempty"`
	IdleTimeout      *int   `msgpack:"idle_timeout,omitempty"`
	SingleConnection bool   `msgpack:"single_connection,omitempty"`
	SocketMode       string `msgpack:"socket_mode,omitempty"`
	SocketUser       string `msgpack:"socket_user,omitempty"`
	SocketGroup      string `msgpack:"socket_group,omitempty"`
	// Ephemeral keeps it in memory only.
	Ephemeral bool `msgpack:"ephemeral,omitempty"`
}

// ProxyState is where a proxy stands.
type ProxyState string

// The states of a proxy.
const (
	ProxyIdle     ProxyState = "idle"     // the service is down and nobody waits for it
	ProxyStarting ProxyState = "starting" // clients wait
	ProxyActive   ProxyState = "active"   // the service is up
)

// ProxyStatus is a proxy as xinet.list and xinet.status tell it. Counters are
// those of the present zinit-proxyd.
type ProxyStatus struct {
	Name    string     `json:"name" msgpack:"name"`
	Service string     `json:"service" msgpack:"service"`
	Listen  []string   `json:"listen" msgpack:"listen"`
	Backend string     `json:"backend,omitempty" msgpack:"backend,omitempty"`
	Mode    string     `json:"mode" msgpack:"mode"`
	State   ProxyState `json:"state" msgpack:"state"`

	ConnectionsActive int    `json:"connections_active" msgpack:"connections_active"`
	ConnectionsTotal  uint64 `json:"connections_total" msgpack:"connections_total"`
	// ConnectionsFailed are those of clients that never reached the backend.
	ConnectionsFailed uint64     `json:"connections_failed" msgpack:"connections_failed"`
	BytesToBackend    uint64     `json:"bytes_to_backend" msgpack:"bytes_to_backend"`
	BytesFromBackend  uint64     `json:"bytes_from_backend" msgpack:"bytes_from_backend"`
	LastActivity      *time.Time `json:"last_activity,omitempty" msgpack:"last_activity,omitempty"`
	// LastError is why a client was closed last, or why nobody listens.
	LastError string `json:"last_error,omitempty" msgpack:"last_error,omitempty"`
	// Ephemeral: it is in no file.
	Ephemeral bool `json:"ephemeral" msgpack:"ephemeral"`
}
