package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
)

// The listening sockets of proxies. zinit-pid1 keeps each under a name that
// tells its address, so that clients find it open whoever dies.

const listenerPrefix = "listen/proxy/"

func listenerName(a spec.Address) string { return listenerPrefix + a.String() }

// listenBacklog is how many clients may wait: as many as the kernel allows
// (net.core.somaxconn).
const listenBacklog = 4096

// namesAtStart bounds the time that the names of addresses may take at start.
const namesAtStart = 5 * time.Second

// openListener binds an address of a proxy. It may look up a name, so it
// belongs beside the loop.
func openListener(ctx context.Context, a spec.Address, p *spec.Proxy) (fd int, err error) {
	if a.Network == "unix" {
		return listenUnix(a.Address, p)
	}
	return listenTCP(ctx, a.Address)
}

func listenTCP(ctx context.Context, address string) (fd int, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return -1, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return -1, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	ip, only6 := netip.IPv6Unspecified(), 0 // no host: both families
	host, name, _ := strings.Cut(host, "%")
	var zone uint32
	if host != "" {
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return -1, fmt.Errorf("cannot listen on %s: %w", address, err)
		}
		ip, only6 = ips[0].Unmap(), 1
	}
	if name != "" {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return -1, fmt.Errorf("cannot listen on %s: there is no interface %s", address, name)
		}
		zone = uint32(i.Index)
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: ip.As16(), ZoneId: zone})
	if ip.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: ip.As4()}
	}
	if fd, err = newSocket(family, unix.SOCK_STREAM); err == unix.EAFNOSUPPORT && host == "" {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: port}
		fd, err = newSocket(family, unix.SOCK_STREAM)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot make a socket for %s: %w", address, err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if family == unix.AF_INET6 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6)
	}
	if err = unix.Bind(fd, sa); err == nil {
		err = unix.Listen(fd, listenBacklog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot listen on %s: %s", address, whyNot(err, port))
	}
	return fd, nil
}

// whyNot says in words why a TCP port could not be bound.
func whyNot(err error, port int) string {
	switch err {
	case unix.EADDRINUSE:
		if h, ok := findHolder([]uint16{uint16(port)}); ok {
			return h.String()
		}
	case unix.EACCES:
		return "permission denied: " + lowPorts
	case unix.EADDRNOTAVAIL:
		return "no interface of this machine has that address"
	}
	return err.Error()
}

// listenUnix binds a path. A socket file to which nobody listens any more is
// replaced; anything else there stays.
func listenUnix(path string, p *spec.Proxy) (fd int, err error) {
	if fd, err = newSocket(unix.AF_UNIX, unix.SOCK_STREAM); err != nil {
		return -1, fmt.Errorf("cannot make a socket for %s: %w", path, err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if err == unix.EADDRINUSE {
		if err = removeStale(path); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
	}
	if err == nil { // nobody can connect before Listen
		if err = ownSocket(path, p); err == nil {
			err = unix.Listen(fd, listenBacklog)
		}
		if err != nil {
			os.Remove(path)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	return fd, nil
}

// ownSocket gives a socket file the mode and the owner that a proxy says.
func ownSocket(path string, p *spec.Proxy) error {
	uid, gid := -1, -1
	if p.SocketUser != "" {
		id, err := strconv.Atoi(p.SocketUser)
		if err != nil {
			u, err := user.Lookup(p.SocketUser)
			if err != nil {
				return fmt.Errorf("cannot find user %s", p.SocketUser)
			}
			id, _ = strconv.Atoi(u.Uid)
		}
		uid = id
	}
	if p.SocketGroup != "" {
		id, err := groupID(p.SocketGroup)
		if err != nil {
			return err
		}
		gid = id
	}
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, fs.FileMode(p.SocketMode))
}

// ownListener gives a socket that is open already the mode and the owner that
// its proxy says now.
func (s *server) ownListener(a spec.Address, p *spec.Proxy) {
	if _, open := s.listeners[a]; open && a.Network == "unix" {
		if err := ownSocket(a.Address, p); err != nil {
			s.log.Error("cannot change a socket of a proxy", "proxy", p.Name, "error", err)
		}
	}
}

// whyDeaf says why a proxy does not listen on one of its addresses, "" where it
// does.
func (s *server) whyDeaf(p *spec.Proxy, a spec.Address) string {
	if owner := s.owners[a]; owner != p {
		return fmt.Sprintf("%s is where the proxy %s listens", a, owner.Name)
	}
	return s.deaf[a]
}

// openListeners binds what proxies listen on and is not open yet, or where
// clients cannot find it any more. An error names the first that cannot be had,
// and then none is. What could not be had at boot may fail again: deaf is told
// why.
func (s *server) openListeners(ctx context.Context, proxies map[string]*spec.Proxy, deaf map[spec.Address]string) (opened map[spec.Address]int, err error) {
	missing := map[spec.Address]*spec.Proxy{}
	again := map[spec.Address]bool{}
	err = s.in(ctx, func() {
		for _, p := range proxies {
			for _, a := range p.Listen {
				if _, open := s.listeners[a]; !open || gone(a) {
					missing[a] = p
					again[a] = deaf != nil && s.deaf[a] != ""
				}
			}
		}
	})
	opened = map[spec.Address]int{}
	for a, p := range missing {
		fd, bad := openListener(ctx, a, p)
		if bad != nil && again[a] {
			deaf[a] = bad.Error()
			continue
		}
		if bad != nil {
			closeListeners(opened)
			return nil, fmt.Errorf("proxy %s: %w", p.Name, bad)
		}
		opened[a] = fd
	}
	return opened, err
}

// gone says that the file of a unix socket was removed.
func gone(a spec.Address) bool {
	if a.Network != "unix" {
		return false
	}
	_, err := os.Lstat(a.Address)
	return errors.Is(err, fs.ErrNotExist)
}

// closeListeners closes what was opened and nobody has taken over.
func closeListeners(opened map[spec.Address]int) {
	for a, fd := range opened {
		unix.Close(fd)
		if a.Network == "unix" {
			os.Remove(a.Address)
		}
	}
}

// takeListeners takes over the listeners that pid1 has kept, and opens those
// that there are not: at boot all of them. One that cannot be had does not keep
// the others, or a machine, from starting.
func (s *server) takeListeners() {
	ctx, cancel := context.WithTimeout(context.Background(), namesAtStart)
	defer cancel()
	all := spec.Plan{Proxies: s.proxies}
	circles := map[string]error{}
	for _, bad := range all.ProxyLoops() {
		circles[bad.Service] = errors.New(bad.Message)
	}
	s.owners = all.Listeners()
	for _, name := range slices.Sorted(maps.Keys(s.proxies)) {
		p := s.proxies[name]
		for _, a := range p.Listen {
			if _, open := s.listeners[a]; open || s.owners[a] != p {
				continue
			}
			fd, ok := s.keeper.take(listenerName(a))
			if !ok {
				err := circles[p.Name]
				if err == nil {
					fd, err = openListener(ctx, a, p)
				}
				if err != nil {
					s.deaf[a] = err.Error()
					s.log.Error("a proxy does not listen until the next reload", "proxy", p.Name, "error", err)
					continue
				}
				s.keeper.store(listenerName(a), fd)
			}
			s.listeners[a] = fd
		}
	}
	for name := range s.keeper.fds {
		if strings.HasPrefix(name, listenerPrefix) {
			fd, _ := s.keeper.take(name)
			unix.Close(fd)
			s.keeper.drop(name)
		}
	}
}

// keepListeners takes over what was opened, and closes what no proxy listens on any
// more.
func (s *server) keepListeners(opened map[spec.Address]int) {
	for a, fd := range opened {
		delete(s.deaf, a)
		if lost, open := s.listeners[a]; open {
			unix.Shutdown(lost, unix.SHUT_RDWR)
			unix.Close(lost)
		}
		s.listeners[a] = fd
		s.keeper.store(listenerName(a), fd)
		delete(opened, a)
	}
	for a, fd := range s.listeners {
		if s.owners[a] == nil {
			s.dropListener(a, fd)
			delete(s.listeners, a)
		}
	}
}

// dropListener ends a listener. Its address is free at once, whenever the others
// that hold it come to close it.
func (s *server) dropListener(a spec.Address, fd int) {
	unix.Shutdown(fd, unix.SHUT_RDWR)
	unix.Close(fd)
	s.keeper.drop(listenerName(a))
	if a.Network == "unix" {
		removeStale(a.Address) // unless another listens there by now
	}
}
