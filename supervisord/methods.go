package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// methodRow is a method that a client can ask for.
type methodRow struct {
	run method
	// params are the names of its parameters; those with a ? may be left out.
	params string
	// answer names what docs/ipc.md calls the result, or with a * each item.
	answer string
}

// methods is the one table of all that a client can ask for.
var methods map[string]methodRow

func init() { // not a literal above: discover refers to the table
	methods = map[string]methodRow{
		"rpc.discover":       {discover, "", "method*"},
		"system.ping":        {ping, "", "version"},
		"system.info":        {info, "", "info"},
		"system.metrics":     {metrics, "", "text*"},
		"system.upgrade":     {upgrade, "", "upgraded"},
		"system.shutdown":    {ending(ipc.HaltExit), "", "empty"},
		"system.poweroff":    {ending(ipc.HaltPoweroff), "", "empty"},
		"system.reboot":      {ending(ipc.HaltReboot), "", "empty"},
		"service.list":       {list, "state? class?", "service*"},
		"service.status":     {status, "names?", "service*"},
		"service.start":      {wish(core.OpStart), "names no_wait? timeout_ms?", "moved*"},
		"service.stop":       {wish(core.OpStop), "names no_wait? timeout_ms?", "moved*"},
		"service.restart":    {wish(core.OpRestart), "names no_wait? timeout_ms?", "moved*"},
		"service.kill":       {kill, "name signal?", "empty"},
		"service.why":        {why, "name", "why"},
		"service.tree":       {tree, "name? reverse?", "tree*"},
		"service.get":        {get, "name reveal?", "config"},
		"service.stats":      {stats, "names?", "stats*"},
		"service.incidents":  {listIncidents, "name?", "incident*"},
		"service.boot":       {boot, "", "boot*"},
		"events.subscribe":   {eventsSubscribe, "follow? after?", "event*"},
		"debug.state":        {debugState, "", "part*"},
		"debug.procs":        {debugProcs, "name", "process*"},
		"service.reload":     {reload, "dry_run?", "reloaded"},
		"service.add":        {add, "config name? persist? no_wait? timeout_ms?", "moved*"},
		"service.set":        {set, "config name? no_wait? timeout_ms?", "moved*"},
		"service.remove":     {remove, "name", "moved*"},
		"service.start_all":  {bulk(startAll), "no_wait? timeout_ms?", "moved*"},
		"service.stop_all":   {bulk(stopAll), "no_wait? timeout_ms?", "moved*"},
		"service.delete_all": {bulk(deleteAll), "no_wait? timeout_ms?", "moved*"},
		"service.wait":       {wait, "names for? timeout_ms?", "service*"},
		"xinet.list":         {xinetList, "", "proxy*"},
		"xinet.status":       {xinetStatus, "names", "proxy*"},
		"xinet.set":          {xinetSet, "name service listen backend? mode? connect_timeout? idle_timeout? single_connection? socket_mode? socket_user? socket_group? ephemeral?", "empty"},
		"xinet.delete":       {xinetDelete, "name", "empty"},
		"logs.get":           {logsGet, "names? lines stream? since? grep? previous?", "line*"},
		"logs.follow":        {logsFollow, "names? lines stream? since? grep? previous?", "line*"},
	}
}

// prompt are the methods whose answer waits for nothing but the loop. They are
// answered before the next request is read: quicker than by another goroutine.
var prompt = []string{"service.status", "service.list", "service.why", "service.tree", "system.info", "system.ping"}

func methodNames() []string {
	names := make([]string, 0, len(methods))
	for n := range methods {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// maxTimeout is the longest time that a client may wait: more than anybody
// does, and far from what a time.Duration holds.
const maxTimeout = 10 * 365 * 24 * time.Hour

// check refuses parameters that are missing or unknown: a misspelt one would
// otherwise do something else than was meant.
func (m methodRow) check(r ipc.Request) error {
	given := map[string]msgpack.RawMessage{}
	if len(r.Params) > 0 {
		if err := msgpack.Unmarshal(r.Params, &given); err != nil {
			return ipc.Errorf(ipc.ErrInvalid, "cannot read the parameters of %s: expected a map: %v", r.Method, err)
		}
	}
	var known []string
	for _, p := range strings.Fields(m.params) {
		name, optional := strings.CutSuffix(p, "?")
		known = append(known, name)
		if _, ok := given[name]; !ok && !optional {
			return ipc.Errorf(ipc.ErrInvalid, "%s needs the parameter %s", r.Method, name)
		}
	}
	if raw, ok := given["timeout_ms"]; ok {
		var ms int64
		if err := msgpack.Unmarshal(raw, &ms); err != nil || ms < 0 || ms > maxTimeout.Milliseconds() {
			return ipc.Errorf(ipc.ErrInvalid, "timeout_ms of %s: expected a number of milliseconds from 0 to %d", r.Method, maxTimeout.Milliseconds())
		}
	}
	for name := range given {
		if !slices.Contains(known, name) {
			e := ipc.Errorf(ipc.ErrInvalid, "%s has no parameter %q", r.Method, name)
			if near := spec.Nearest(name, known); near != "" {
				e.Message += ", did you mean " + near + "?"
			}
			return e
		}
	}
	return nil
}

// discover lists the table.
func discover(c *client, _ context.Context, r ipc.Request) (any, error) {
	var out []ipc.Method
	for _, name := range methodNames() {
		m := ipc.Method{Name: name, Params: []ipc.Param{}}
		for _, p := range strings.Fields(methods[name].params) {
			param, optional := strings.CutSuffix(p, "?")
			m.Params = append(m.Params, ipc.Param{Name: param, Optional: optional})
		}
		m.Result, m.Items = strings.CutSuffix(methods[name].answer, "*")
		out = append(out, m)
	}
	return items(c, r, out, nil)
}
