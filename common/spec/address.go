package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxSocketPath is what sockaddr_un holds, less the NUL (unix(7)).
const maxSocketPath = 107

// ParseAddress reads host:port, tcp:host:port, tcp:[v6]:port or unix:/path. An
// empty host means all interfaces.
func ParseAddress(s string) (Address, error) {
	if socket, ok := strings.CutPrefix(s, "unix:"); ok {
		if err := checkSocketPath(socket); err != nil {
			return Address{}, fmt.Errorf("%s is not an address: %w", quote(s), err)
		}
		return Address{Network: "unix", Address: socket}, nil
	}
	hostPort := strings.TrimPrefix(s, "tcp:")
	if !strings.Contains(hostPort, ":") {
		return Address{}, fmt.Errorf("%s is not an address: expected host:port, tcp:host:port or unix:/path", quote(s))
	}
	if err := checkHostPort(hostPort); err != nil {
		return Address{}, fmt.Errorf("%s is not an address: %w", quote(s), err)
	}
	return Address{Network: "tcp", Address: hostPort}, nil
}

// String is the form that ParseAddress reads, "" for no address.
func (a Address) String() string {
	if a.Network == "" {
		return ""
	}
	return a.Network + ":" + a.Address
}

// Reaches says whether who connects to a comes to who listens at listen, as far
// as can be told without looking up names.
func (a Address) Reaches(listen Address) bool {
	if a.Network != listen.Network || a.door() != listen.door() {
		return false
	}
	return a.Network == "unix" || a.host() == listen.host() ||
		slices.ContainsFunc(a.loopback(), func(ip string) bool { return slices.Contains(listen.loopback(), ip) })
}

// door is the port, or the path.
func (a Address) door() string {
	if a.Network == "unix" {
		return path.Clean(a.Address)
	}
	return a.Address[strings.LastIndexByte(a.Address, ':')+1:]
}

func (a Address) host() string {
	return strings.Trim(a.Address[:strings.LastIndexByte(a.Address, ':')], "[]")
}

// loopback are the addresses of this machine's own interface that a host stands
// for.
func (a Address) loopback() []string {
	const v4, v6 = "127.0.0.1", "::1"
	switch a.host() {
	case "", "localhost":
		return []string{v4, v6}
	case v4, "0.0.0.0":
		return []string{v4}
	case v6, "::":
		return []string{v6}
	}
	return nil
}

func checkSocketPath(path string) error {
	switch {
	case !strings.HasPrefix(path, "/"):
		return errors.New("expected an absolute path")
	case len(path) > maxSocketPath:
		return fmt.Errorf("a socket path has at most %[2]d bytes, not %[1]d", len(path), maxSocketPath)
	}
	return nil
}

func checkHostPort(s string) error {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return errors.New("expected host:port")
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !isDigit(port[0]) {
		return fmt.Errorf("port %s is not a number between 1 and 65535", quote(port))
	}
	inner, open := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	switch {
	case open != closed, strings.ContainsAny(inner, "[]/ \t\r\n\x00"):
		return fmt.Errorf("%s is not a host", quote(host))
	case open && !strings.Contains(inner, ":"):
		return fmt.Errorf("%s in brackets is not an IPv6 address", quote(inner))
	case !open && strings.Contains(inner, ":"):
		return fmt.Errorf("an IPv6 address stands in brackets: [%s]:%s", shorten(inner), port)
	}
	return nil
}
