package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/threefoldtech/zinit/common/atomicfile"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// What clients can ask for of proxies.

func xinetList(c *client, ctx context.Context, r ipc.Request) (any, error) {
	all, err := c.s.proxyStatus(ctx, nil)
	return items(c, r, all, err)
}

func xinetStatus(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NamesParams](r)
	if err != nil {
		return nil, err
	}
	all, err := c.s.proxyStatus(ctx, p.Names)
	return items(c, r, all, err)
}

// proxyStatus tells of these proxies, or of all.
func (s *server) proxyStatus(ctx context.Context, names []string) ([]ipc.ProxyStatus, error) {
	counters, err := s.proxyStats(ctx)
	if err != nil {
		return nil, err
	}
	out := []ipc.ProxyStatus{}
	var unknown *ipc.Error
	err = s.in(ctx, func() {
		if len(names) == 0 {
			names = slices.Collect(maps.Keys(s.proxies))
		}
		slices.Sort(names)
		for _, n := range slices.Compact(names) {
			p := s.proxies[n]
			if p == nil {
				unknown = s.noProxy(n)
				return
			}
			out = append(out, s.viewProxy(p, counters[n]))
		}
	})
	return out, cmpError(unknown, err)
}

func (s *server) viewProxy(p *spec.Proxy, n ipc.ProxyStats) ipc.ProxyStatus {
	v := ipc.ProxyStatus{
		Name: p.Name, Service: p.Service, Backend: p.Backend.String(), Mode: string(p.Mode), State: ipc.ProxyIdle,
		ConnectionsActive: n.Active, ConnectionsTotal: n.Total, ConnectionsFailed: n.Failed,
		BytesToBackend: n.ToBackend, BytesFromBackend: n.FromBackend, LastError: n.LastError,
		Ephemeral: p.File == "",
	}
	for _, a := range p.Listen {
		v.Listen = append(v.Listen, a.String())
		if why := s.whyDeaf(p, a); why != "" {
			v.LastError = why
		}
	}
	if s.proxyd.missing != "" {
		v.LastError = s.proxyd.missing + ": nobody looks after its clients"
	}
	if n.LastActivity != 0 {
		t := time.Unix(0, n.LastActivity).UTC()
		v.LastActivity = &t
	}
	switch service, _ := s.core.View(s.now(), p.Service); {
	case service.State == core.StateRunning:
		v.State = ipc.ProxyActive
	case service.State == core.StateStarting, s.core.Waits(p.Name):
		v.State = ipc.ProxyStarting
	}
	return v
}

func (s *server) noProxy(name string) *ipc.Error {
	e := ipc.Errorf(ipc.ErrNotFound, "there is no proxy %s", name)
	if near := spec.Nearest(name, slices.Sorted(maps.Keys(s.proxies))); near != "" {
		e.Message += ", did you mean " + near + "?"
	}
	return e
}

func xinetSet(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.ProxyParams](r)
	if err != nil {
		return nil, err
	}
	return empty{}, c.s.setProxy(ctx, p)
}

func xinetDelete(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.NameParams](r)
	if err != nil {
		return nil, err
	}
	return empty{}, c.s.deleteProxy(ctx, p.Name)
}

// proxyFile is the file of a proxy that was set.
func proxyFile(p ipc.ProxyParams) string {
	var b strings.Builder
	line := func(key string, value any) {
		text, _ := json.Marshal(value) // strings, numbers and lists of JSON are such of TOML, too
		fmt.Fprintf(&b, "%s = %s\n", key, text)
	}
	b.WriteString("[xinet]\n")
	line("name", p.Name)
	line("service", p.Service)
	line("listen", p.Listen)
	for _, f := range []struct{ key, value string }{
		{"backend", p.Backend}, {"mode", p.Mode}, {"socket_mode", p.SocketMode},
		{"socket_user", p.SocketUser}, {"socket_group", p.SocketGroup},
	} {
		if f.value != "" {
			line(f.key, f.value)
		}
	}
	if p.ConnectTimeout != nil {
		line("connect_timeout", *p.ConnectTimeout)
	}
	if p.IdleTimeout != nil {
		line("idle_timeout", *p.IdleTimeout)
	}
	if p.SingleConnection {
		line("single_connection", true)
	}
	return b.String()
}

// setProxy is xinet.set: make or replace.
func (s *server) setProxy(ctx context.Context, params ipc.ProxyParams) error {
	text := proxyFile(params)
	_, p, problems := spec.Parse(params.Name+".xinet.toml", []byte(text))
	if bad := invalidProxy(problems); bad != nil {
		return bad
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	if p.File = ""; !params.Ephemeral {
		p.File = filepath.Join(s.opts.configDir, p.Name+".xinet.toml")
	}
	return s.changeProxy(ctx, p.Name, p, func(was *spec.Proxy) error {
		if p.File == "" {
			return removeFile(was)
		}
		if was != nil && was.File != "" {
			p.File = was.File
		} else if _, err := os.Lstat(p.File); err == nil {
			return fmt.Errorf("there is a file %s already, which is not in effect: reload, or remove it", p.File)
		}
		return atomicfile.Write(p.File, []byte(text), 0o644)
	})
}

// deleteProxy is xinet.delete.
func (s *server) deleteProxy(ctx context.Context, name string) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.changeProxy(ctx, name, nil, removeFile)
}

func removeFile(p *spec.Proxy) error {
	if p == nil || p.File == "" {
		return nil
	}
	if err := os.Remove(p.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// changeProxy puts p, nil for none, in the place of the proxy of that name.
// write makes the files as they have to be; if it fails nothing is changed.
func (s *server) changeProxy(ctx context.Context, name string, p *spec.Proxy, write func(was *spec.Proxy) error) error {
	var refused *ipc.Error
	var was *spec.Proxy
	own := map[string]*spec.Proxy{}
	if err := s.in(ctx, func() {
		was = s.ownProxies[name]
		maps.Copy(own, s.ownProxies)
		refused = s.proxyRefusal(name, p)
	}); err != nil || refused != nil {
		return cmpError(refused, err)
	}
	delete(own, name)
	opened := map[spec.Address]int{}
	if p != nil {
		own[name] = p
		var err error
		if opened, err = s.openListeners(ctx, map[string]*spec.Proxy{name: p}, nil); err != nil {
			return ipc.Errorf(ipc.ErrFailed, "%v", err)
		}
	}
	if err := write(was); err != nil {
		closeListeners(opened)
		return ipc.Errorf(ipc.ErrFailed, "%v: nothing was changed", err)
	}
	return s.in(context.WithoutCancel(ctx), func() {
		p := s.compare(maps.Clone(s.services), own)
		s.apply(p, opened)
	})
}

// proxyRefusal says why a proxy cannot be set, or deleted where p is nil. It
// runs in the loop.
func (s *server) proxyRefusal(name string, p *spec.Proxy) *ipc.Error {
	there := s.proxies[name]
	switch {
	case s.core.ShuttingDown():
		return ipc.Errorf(ipc.ErrShuttingDown, "zinit is shutting down")
	case there == nil && p == nil:
		return s.noProxy(name)
	case there != nil && s.ownProxies[name] == nil:
		file := s.services[there.Service].File
		return ipc.Errorf(ipc.ErrConflict, "the proxy %s belongs to the service of that name: change [xinet] in %s, and reload",
			name, cmp.Or(file, "what it was added with"))
	case p == nil:
		return nil
	case s.core.Spec(p.Service) == nil:
		return s.notFound(p.Service)
	case s.core.Spec(p.Service).Oneshot:
		return ipc.Errorf(ipc.ErrInvalid, "%s is a oneshot, which has no clients", p.Service)
	}
	for _, a := range p.Listen {
		for _, other := range s.proxies {
			if other.Name != name && slices.Contains(other.Listen, a) {
				return ipc.Errorf(ipc.ErrConflict, "%s is where the proxy %s listens", a, other.Name)
			}
		}
	}
	own := maps.Clone(s.ownProxies)
	delete(own, name)
	without := spec.Plan{Services: s.services, Proxies: allProxies(s.services, own)}
	with := spec.Plan{Services: s.services, Proxies: maps.Clone(without.Proxies)}
	with.Proxies[name] = p
	return invalidProxy(newProblems(without, with))
}

// invalidProxy is the error of a proxy that has problems, nil if it has none.
// They are of no file yet.
func invalidProxy(problems []spec.Problem) *ipc.Error {
	if len(problems) == 0 {
		return nil
	}
	e := ipc.Errorf(ipc.ErrInvalid, "the proxy has errors: nothing was changed")
	for _, p := range problems {
		e.Problems = append(e.Problems, ipc.Problem{Message: p.Message})
	}
	return e
}
