package ipc

import (
	"fmt"
)

// Protocol is the version of the frames and messages in this package. A
// process speaks its own version and MinProtocol to it.
const (
	Protocol    = 1
	MinProtocol = 1
)

// KindHello opens every link, in both directions, the connecting side first.
const KindHello Kind = 0

// Roles of a Hello.
const (
	RoleClient     = "client"
	RoleKeeper     = "pid1"
	RoleSupervisor = "supervisor"
	RoleHealth     = "healthd"
	RoleProxy      = "proxyd"
)

// Hello is the first frame of each side.
type Hello struct {
	Protocol int    `msgpack:"protocol"`
	Role     string `msgpack:"role"`
	Version  string `msgpack:"version"`
	// Run is the run as which the supervisor has started a helper.
	Run RunID `msgpack:"run,omitempty"`
}

// Check says whether a peer with this hello can be spoken to.
func (h Hello) Check(role string) error {
	if h.Protocol < MinProtocol || h.Protocol > Protocol {
		return fmt.Errorf("peer speaks protocol %d, this zinit %d to %d: use programs of one release", h.Protocol, MinProtocol, Protocol)
	}
	if h.Role != role {
		return fmt.Errorf("peer says that it is a %q, not a %q", h.Role, role)
	}
	return nil
}

// ReadHello reads the peer's first frame and checks it.
func ReadHello(c *Conn, role string) (Hello, error) {
	var h Hello
	f, err := c.Read()
	if err != nil {
		return h, err
	}
	if f.Kind != KindHello {
		f.CloseFds()
		return h, fmt.Errorf("the first frame is of kind %d, not a hello", f.Kind)
	}
	if err := f.Decode(&h); err != nil {
		return h, err
	}
	return h, h.Check(role)
}
