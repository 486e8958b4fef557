package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

func xinetSetCommand(flags *pflag.FlagSet) func(*app, []string) error {
	var p ipc.ProxyParams
	var connect, idle seconds
	flags.StringArrayVar(&p.Listen, "listen", nil, "`ADDRESS` where clients connect: host:port or unix:/path; may be repeated")
	flags.StringVar(&p.Backend, "backend", "", "`ADDRESS` where the service listens")
	flags.StringVar(&p.Service, "service", "", "`NAME` of the service that the first connection starts")
	flags.Var(&connect, "connect-timeout", "within which service and backend have to answer (default 30s)")
	flags.Var(&idle, "idle-timeout", "after which without a connection the service is stopped (default never)")
	flags.BoolVar(&p.SingleConnection, "single-connection", false, "refuse a second client while one is connected")
	flags.StringVar(&p.Mode, "mode", "", "`MODE`: proxy forwards, pass hands the listeners to the service (default proxy)")
	flags.StringVar(&p.SocketMode, "socket-mode", "", "`MODE` of unix sockets, in octal (default 0666)")
	flags.StringVar(&p.SocketUser, "socket-user", "", "`USER` that owns unix sockets")
	flags.StringVar(&p.SocketGroup, "socket-group", "", "`GROUP` that owns unix sockets")
	flags.BoolVar(&p.Ephemeral, "ephemeral", false, "keep it in memory only")
	return func(a *app, args []string) error {
		p.Name = args[0]
		for name, set := range map[string]bool{"--listen": len(p.Listen) > 0, "--service": p.Service != ""} {
			if !set {
				return usagef("xinet set: it needs %s", name)
			}
		}
		p.ConnectTimeout, p.IdleTimeout = wholeSeconds(flags, "connect-timeout", connect), wholeSeconds(flags, "idle-timeout", idle)
		return a.ask(func(ctx context.Context, c *client.Client) error { return c.SetProxy(ctx, p) })
	}
}

// wholeSeconds is the value of a flag, rounded up; nil where it was not given.
func wholeSeconds(flags *pflag.FlagSet, name string, d seconds) *int {
	if !flags.Changed(name) {
		return nil
	}
	n := int((time.Duration(d) + time.Second - 1) / time.Second)
	return &n
}

func xinetDeleteCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error { return c.DeleteProxy(ctx, args[0]) })
	}
}

func xinetListCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, _ []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			proxies, err := c.Proxies(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, proxies)
			}
			a.proxyTable(proxies)
			return nil
		})
	}
}

func (a *app) proxyTable(proxies []ipc.ProxyStatus) {
	if len(proxies) == 0 {
		fmt.Fprintln(a.stderr, "There are no proxies.")
		return
	}
	const (
		symbol = iota
		name
		state
		active
		total
		listen
		note
		columns
	)
	t := table{
		header: []string{"", "NAME", "STATE", "ACTIVE", "TOTAL", "LISTEN", "NOTE"},
		right:  []int{active, total},
		last:   note,
		drop:   []drop{{total, 16}, {active, 12}, {state, 8}},
	}
	for _, p := range proxies {
		row := make([]cell, columns)
		style := proxyStyle(p.State)
		row[symbol] = cell{symbolOf(proxySymbol(p.State)), style}
		row[name] = cell{p.Name, plain}
		row[state] = cell{string(p.State), style}
		if p.Mode != "pass" { // only the service knows its clients
			row[active] = cell{strconv.Itoa(p.ConnectionsActive), plain}
			row[total] = cell{strconv.FormatUint(p.ConnectionsTotal, 10), plain}
		}
		row[listen] = cell{strings.Join(p.Listen, " "), plain}
		row[note] = cell{p.LastError, dim}
		t.rows = append(t.rows, row)
	}
	a.printTable(t)
}

// proxySymbol is the state of a service that says about the same.
func proxySymbol(s ipc.ProxyState) ipc.State {
	switch s {
	case ipc.ProxyActive:
		return ipc.StateRunning
	case ipc.ProxyStarting:
		return ipc.StateStarting
	}
	return ipc.StateInactive
}

func proxyStyle(s ipc.ProxyState) style { return stateStyle(proxySymbol(s)) }

func xinetStatusCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, names []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			proxies, err := c.Proxies(ctx, names...)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, proxies)
			}
			for i, p := range proxies {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.proxyStatus(p)
			}
			return nil
		})
	}
}

func (a *app) proxyStatus(p ipc.ProxyStatus) {
	style := proxyStyle(p.State)
	fmt.Fprintln(a.out, a.paint(style, symbolOf(proxySymbol(p.State))), p.Name, a.paint(style, string(p.State)))
	f := fields{a: a}
	f.addClean("service", p.Service)
	f.addClean("listen", strings.Join(p.Listen, "  "))
	if p.Mode == "pass" {
		f.add("mode", "pass: the service has the listeners")
	} else {
		f.addClean("backend", p.Backend)
		f.add("clients", fmt.Sprintf("%d now, %d in all, %d failed", p.ConnectionsActive, p.ConnectionsTotal, p.ConnectionsFailed))
		f.add("bytes", fmt.Sprintf("%s to the backend, %s from it", size(int64(p.BytesToBackend)), size(int64(p.BytesFromBackend))))
	}
	if p.LastActivity != nil {
		f.add("last", duration(a.now().Sub(*p.LastActivity))+" ago")
	}
	f.addClean("error", p.LastError)
	if p.Ephemeral {
		f.add("file", "none: it was added while zinit runs")
	}
	f.print()
}

// printArmed says which proxies start what was stopped.
func (a *app) printArmed(ctx context.Context, c *client.Client, names []string) {
	proxies, err := c.Proxies(ctx)
	if err != nil {
		return // the stop is done
	}
	for _, p := range proxies {
		if slices.Contains(names, p.Service) {
			fmt.Fprintf(a.out, "%s\n", a.paint(dim, clean("    the next connection to "+strings.Join(p.Listen, " or ")+" starts "+p.Service+" again")))
		}
	}
}
