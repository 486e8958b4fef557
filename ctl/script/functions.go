package script

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// function is a row of one of the tables of functions.
type function struct {
	name string
	// params is what stands between its parentheses.
	params string
	// doc is for docs/scripting.md.
	doc string
	do  func(*server, *starlark.Thread, *call) (starlark.Value, error)
}

// verbs are the functions of a server: the commands of the command line.
func verbs() []function {
	return []function{
		{"list", `state="", class_=""`,
			"All services and targets, or those in a state or of a class, as a list of records.",
			list},
		{"status", "*names",
			"Everything on a service, as a record; of several names or a list of names, as a list of records. Without a name: the summary of the system.",
			status},
		{"start", "*names, no_wait=False, timeout=None",
			"Starts services and what they require, and waits until all are up. Answers with a list of what moved: records with `name`, `from_`, `to`, `pid`, `reason`, `note`.",
			move((*client.Client).Start)},
		{"stop", "*names, no_wait=False, timeout=None",
			"Stops services and what requires them, and waits until no process of them is left. Answers as `start`.",
			move((*client.Client).Stop)},
		{"restart", "*names, no_wait=False, timeout=None",
			"Stops services and starts them again, and with them what requires them. Answers as `start`.",
			move((*client.Client).Restart)},
		{"kill", `name, signal="TERM"`,
			"Sends a signal, a name or a number, to the process group of a service.",
			kill},
		{"wait", `*names, for_="running", timeout=None`,
			"Waits until services are `running`, `exited`, `healthy` or `inactive`; it is an error if one cannot get there any more. Answers as `status`.",
			wait},
		{"is_running", "name",
			"Whether a service is running.",
			isRunning},
		{"logs", `*names, lines=100, since=None, grep="", stream="", previous=False, follow=None, timeout=None`,
			"The newest lines of services, or of all, as a list of records with `time`, `service`, `stream`, `text`. `since` is so long ago (`\"10m\"`) or a moment (`\"2026-11-22T18:24:00Z\"`), and takes all lines unless `lines` says otherwise, as `lines=\"all\"` does. `previous` is the run before the present one. With `follow`, a function, it goes on with new lines: the function is called with each, and where it answers with True the answer is that line. Only `timeout` ends that otherwise, with an error.",
			logs},
		{"events", "after=0, follow=None, timeout=None",
			"The last changes of states, oldest first, as a list of records with `seq`, `time`, `service`, `from_`, `to`, `pid`, `reason`; with `after` only those behind that `seq`. `follow` and `timeout` are as for `logs`.",
			events},
		{"why", "name",
			"The chain of causes for the state of a service, as a record with `name`, `state`, `reason`, `detail`, `blocked_by`.",
			on((*client.Client).Why)},
		{"tree", `name="", reverse=False`,
			"What services require, as a list of records with `name`, `state`, `requires`, which is a list of the same; `reverse` for what requires them.",
			tree},
		{"incidents", `name=""`,
			"The last failures of a service, or of all, oldest first: records with `name`, `run`, `at`, `reason`, `lines`, `decision`.",
			incidents},
		{"stats", "*names",
			"What services use, or all that have processes: records with `name`, `pid`, `cpu_percent`, `cpu_time_ms`, `memory_bytes`, `processes`, `fds`.",
			stats},
		{"get", "name, reveal=False",
			"The configuration that is in effect, as a dict of the tables of a service file. It can be changed and given to `set`.",
			get},
		{"service", "name, **fields",
			"Makes the configuration of a service: the keys of `[service]`, `[dependencies]` and `[lifecycle]` are arguments, and so are the tables `health`, `logging`, `limits` and `xinet`, as dicts. It does nothing else: the dict that it makes is for `add_service` and `set`.",
			service},
		{"target", "name, **fields",
			"Makes the configuration of a target, in the same way.",
			target},
		{"add_service", `config, name="", persist=False, no_wait=False, timeout=None`,
			"Adds a service: what `service` made, or the text of a service file. It is kept in memory, or with `persist` in a file. Answers as `start`.",
			addService},
		{"set", `config, name="", no_wait=False, timeout=None`,
			"Creates or replaces a service and its file. Answers as `start`.",
			set},
		{"remove_service", "name",
			"Stops a service and removes it, and its file. Answers as `start`.",
			removeService},
		{"start_all", "no_wait=False, timeout=None",
			"Starts all services of the class user. Answers as `start`.",
			bulk((*client.Client).StartAll)},
		{"stop_all", "no_wait=False, timeout=None",
			"Stops all services of the class user. Answers as `start`.",
			bulk((*client.Client).StopAll)},
		{"delete_all", "no_wait=False, timeout=None",
			"Removes all services of the class user, and their files. Answers as `start`.",
			bulk((*client.Client).DeleteAll)},
		{"reload", "dry_run=False",
			"Reads the service directory again. Answers with a record of `added`, `removed`, `changed`, `along`; with `dry_run` that is only what would change.",
			reload},
		{"xinet.list", "",
			"All proxies, as a list of records.",
			xinetList},
		{"xinet.status", "*names",
			"Everything on a proxy, as a record; of several names, a list of names or none, as a list of records.",
			xinetStatus},
		{"xinet.set", `name, listen, service, backend="", mode="", connect_timeout=None, idle_timeout=None, single_connection=False, socket_mode="", socket_user="", socket_group="", ephemeral=False`,
			"Creates or replaces a proxy and its file. `listen` is an address or a list of them.",
			xinetSet},
		{"xinet.delete", "name",
			"Closes a proxy and removes its file.",
			xinetDelete},
		{"shutdown", "timeout=None",
			"Stops everything, and waits until zinit has ended.",
			end((*client.Client).Shutdown)},
		{"poweroff", "timeout=None",
			"Stops everything and powers the machine off.",
			end((*client.Client).Poweroff)},
		{"reboot", "timeout=None",
			"Stops everything and starts the machine again.",
			end((*client.Client).Reboot)},
		{"upgrade", "timeout=None",
			"Has the supervisor replaced by the program that is on the disk. Answers with a record of `from_`, `to`, `took_ms`.",
			upgrade},
		{"connect", "socket",
			"Another zinit, which has the same functions: `other = zinit.connect(\"/run/other.sock\")`, then `other.list()`.",
			connect},
	}
}

// Reference is the list of all functions, for the docs.
func Reference() string {
	var b strings.Builder
	row := func(prefix string, f function) {
		fmt.Fprintf(&b, "\n**`%s%s(%s)`** — %s\n", prefix, f.name, f.params, f.doc)
	}
	for _, f := range verbs() {
		row("zinit.", f)
	}
	for _, f := range globals() {
		row("", f)
	}
	return b.String() + "\n"
}

// server is a zinit that scripts ask.
type server struct {
	*runner
	socket string         // "" for that of the command line
	client *client.Client // nil until something is asked
}

// module is what stands for a server in scripts.
func (s *server) module() starlark.Value {
	groups := map[string]starlark.StringDict{"zinit": {}, "xinet": {}}
	for _, f := range verbs() {
		group, name, ok := strings.Cut(f.name, ".")
		if !ok {
			group, name = "zinit", f.name
		}
		groups[group][name] = s.builtin("zinit.", f)
	}
	groups["zinit"]["xinet"] = &starlarkstruct.Module{Name: "zinit.xinet", Members: groups["xinet"]}
	return &starlarkstruct.Module{Name: "zinit", Members: groups["zinit"]}
}

func (s *server) builtin(prefix string, f function) *starlark.Builtin {
	return starlark.NewBuiltin(prefix+f.name, func(th *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		return f.do(s, th, &call{b.Name(), args, kwargs})
	})
}

// grace is how much longer than the server a wait lasts: the server's answer
// says what it waited for.
const grace = 2 * time.Second

func (s *server) limit(timeout seconds) time.Duration {
	if timeout > 0 {
		return time.Duration(timeout)
	}
	return s.Timeout
}

// ask connects if that is yet to be done, and runs what is to be asked. extra
// is what the client may wait longer than the server does.
func (s *server) ask(timeout seconds, extra time.Duration, f func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, s.limit(timeout)+extra)
	defer cancel()
	err := func() error {
		if s.client == nil {
			c, err := s.Dial(ctx, s.socket)
			if err != nil {
				return err
			}
			s.client, s.clients = c, append(s.clients, c)
		}
		return f(ctx, s.client)
	}()
	if errors.Is(err, context.DeadlineExceeded) {
		return ipc.Errorf(ipc.ErrTimeout, "timed out after %v", s.limit(timeout))
	}
	return err
}

// call is what a function was called with.
type call struct {
	name   string
	args   starlark.Tuple
	kwargs []starlark.Tuple
}

// unpack reads all arguments: pairs of a name, with ? behind one that is not
// required, and a pointer.
func (c *call) unpack(pairs ...any) error {
	return starlark.UnpackArgs(c.name, c.args, c.kwargs, pairs...)
}

// names takes the positional arguments for names, and reads the others. one
// says that there is a single one, which is not in a list.
func (c *call) names(pairs ...any) (names []string, one bool, err error) {
	for _, a := range c.args {
		if err := (*texts)(&names).Unpack(a); err != nil {
			return nil, false, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	_, one = starlark.AsString(firstOf(c.args))
	return names, one && len(c.args) == 1, starlark.UnpackArgs(c.name, nil, c.kwargs, pairs...)
}

func firstOf(args starlark.Tuple) starlark.Value {
	if len(args) == 0 {
		return starlark.None
	}
	return args[0]
}

// needed is names where there has to be one. An empty list is one that has
// nothing to do.
func (c *call) needed(pairs ...any) (names []string, one bool, err error) {
	names, one, err = c.names(pairs...)
	if err == nil && len(c.args) == 0 {
		err = fmt.Errorf("%s: it needs a name", c.name)
	}
	return names, one, err
}

// oneOrAll is the answer of a function that takes one name or several.
func oneOrAll[T any](all []T, one bool) starlark.Value {
	if one && len(all) == 1 {
		return value(all[0])
	}
	return value(all)
}

func list(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var state string
	var filter client.Filter
	if err := c.unpack("state??", &state, "class_??", &filter.Class); err != nil {
		return nil, err
	}
	filter.State = ipc.State(state)
	var all []ipc.Service
	err := s.ask(0, 0, func(ctx context.Context, cl *client.Client) (err error) {
		all, err = cl.List(ctx, filter)
		return err
	})
	return value(all), err
}

func status(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	names, one, err := c.names()
	if err != nil {
		return nil, err
	}
	var answer starlark.Value
	err = s.ask(0, 0, func(ctx context.Context, cl *client.Client) error {
		if len(c.args) == 0 {
			info, err := cl.Info(ctx)
			answer = value(info)
			return err
		}
		services, err := statusOf(ctx, cl, names)
		answer = oneOrAll(services, one)
		return err
	})
	return answer, err
}

// statusOf is Status, which takes no names for all.
func statusOf(ctx context.Context, c *client.Client, names []string) ([]ipc.Service, error) {
	if len(names) == 0 {
		return []ipc.Service{}, nil
	}
	return c.Status(ctx, names...)
}

// move makes start, stop and restart.
func move(do func(*client.Client, context.Context, client.Options, func(ipc.Moved), ...string) error) func(*server, *starlark.Thread, *call) (starlark.Value, error) {
	return func(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
		var o waitOptions
		names, _, err := c.needed(o.params()...)
		if err != nil {
			return nil, err
		}
		return s.changing(o, func(ctx context.Context, cl *client.Client, opt client.Options, moved func(ipc.Moved)) error {
			if len(names) == 0 {
				return nil
			}
			return do(cl, ctx, opt, moved, names...)
		})
	}
}

// waitOptions are the parameters of what waits by itself.
type waitOptions struct {
	noWait  bool
	timeout seconds
}

func (o *waitOptions) params() []any { return []any{"no_wait??", &o.noWait, "timeout??", &o.timeout} }

// changing asks for something that moves services, and answers with those.
func (s *server) changing(o waitOptions, do func(context.Context, *client.Client, client.Options, func(ipc.Moved)) error) (starlark.Value, error) {
	moved := []ipc.Moved{}
	err := s.ask(o.timeout, grace, func(ctx context.Context, c *client.Client) error {
		return do(ctx, c, client.Options{NoWait: o.noWait, Timeout: s.limit(o.timeout)}, func(m ipc.Moved) { moved = append(moved, m) })
	})
	return value(moved), err
}

func bulk(do func(*client.Client, context.Context, client.Options, func(ipc.Moved)) error) func(*server, *starlark.Thread, *call) (starlark.Value, error) {
	return func(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
		var o waitOptions
		if err := c.unpack(o.params()...); err != nil {
			return nil, err
		}
		return s.changing(o, func(ctx context.Context, cl *client.Client, opt client.Options, moved func(ipc.Moved)) error {
			return do(cl, ctx, opt, moved)
		})
	}
}

func kill(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	var signal starlark.Value = starlark.String("")
	if err := c.unpack("name", &name, "signal??", &signal); err != nil {
		return nil, err
	}
	text, ok := starlark.AsString(signal)
	if !ok {
		text = signal.String()
	}
	return starlark.None, s.ask(0, 0, func(ctx context.Context, cl *client.Client) error {
		return cl.Kill(ctx, name, text)
	})
}

func wait(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	goal, timeout := client.ForRunning, seconds(0)
	names, one, err := c.needed("for_??", &goal, "timeout??", &timeout)
	if err != nil {
		return nil, err
	}
	services := []ipc.Service{}
	err = s.ask(timeout, grace, func(ctx context.Context, cl *client.Client) (err error) {
		if len(names) > 0 {
			services, err = cl.Wait(ctx, client.Options{Timeout: s.limit(timeout)}, goal, names...)
		}
		return err
	})
	return oneOrAll(services, one), err
}

func isRunning(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	if err := c.unpack("name", &name); err != nil {
		return nil, err
	}
	running := false
	err := s.ask(0, 0, func(ctx context.Context, cl *client.Client) error {
		services, err := cl.Status(ctx, name)
		running = slices.ContainsFunc(services, func(s ipc.Service) bool { return s.State == ipc.StateRunning })
		return err
	})
	return starlark.Bool(running), err
}

// on makes what asks for one thing about a service.
func on[T any](ask func(*client.Client, context.Context, string) (T, error)) func(*server, *starlark.Thread, *call) (starlark.Value, error) {
	return func(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
		var name string
		if err := c.unpack("name", &name); err != nil {
			return nil, err
		}
		return about(s, name, ask)
	}
}

func about[T any](s *server, name string, ask func(*client.Client, context.Context, string) (T, error)) (starlark.Value, error) {
	var answer T
	err := s.ask(0, 0, func(ctx context.Context, cl *client.Client) (err error) {
		answer, err = ask(cl, ctx, name)
		return err
	})
	return value(answer), err
}

func incidents(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	if err := c.unpack("name??", &name); err != nil {
		return nil, err
	}
	return about(s, name, (*client.Client).Incidents)
}

func tree(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	var reverse bool
	if err := c.unpack("name??", &name, "reverse??", &reverse); err != nil {
		return nil, err
	}
	return about(s, name, func(cl *client.Client, ctx context.Context, name string) ([]ipc.Tree, error) {
		return cl.Tree(ctx, name, reverse)
	})
}

func stats(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	names, one, err := c.names()
	if err != nil {
		return nil, err
	}
	all := []ipc.Stats{}
	err = s.ask(0, 0, func(ctx context.Context, cl *client.Client) (err error) {
		if len(names) > 0 || len(c.args) == 0 {
			all, err = cl.Stats(ctx, names...)
		}
		return err
	})
	return oneOrAll(all, one), err
}

func reload(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var dryRun bool
	if err := c.unpack("dry_run??", &dryRun); err != nil {
		return nil, err
	}
	return about(s, "", func(cl *client.Client, ctx context.Context, _ string) (ipc.Reloaded, error) {
		return cl.Reload(ctx, dryRun)
	})
}

// end makes what ends zinit.
func end(do func(*client.Client, context.Context) error) func(*server, *starlark.Thread, *call) (starlark.Value, error) {
	return func(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
		var timeout seconds
		if err := c.unpack("timeout??", &timeout); err != nil {
			return nil, err
		}
		return starlark.None, s.ask(timeout, grace, func(ctx context.Context, cl *client.Client) error { return do(cl, ctx) })
	}
}

func upgrade(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var timeout seconds
	if err := c.unpack("timeout??", &timeout); err != nil {
		return nil, err
	}
	var u ipc.Upgraded
	err := s.ask(timeout, grace, func(ctx context.Context, cl *client.Client) (err error) {
		u, err = cl.Upgrade(ctx)
		return err
	})
	return value(u), err
}

func xinetList(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	if err := c.unpack(); err != nil {
		return nil, err
	}
	return about(s, "", func(cl *client.Client, ctx context.Context, _ string) ([]ipc.ProxyStatus, error) {
		return cl.Proxies(ctx)
	})
}

func xinetStatus(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	names, one, err := c.names()
	if err != nil {
		return nil, err
	}
	all := []ipc.ProxyStatus{}
	err = s.ask(0, 0, func(ctx context.Context, cl *client.Client) (err error) {
		if len(names) > 0 || len(c.args) == 0 {
			all, err = cl.Proxies(ctx, names...)
		}
		return err
	})
	return oneOrAll(all, one), err
}

func xinetSet(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var p ipc.ProxyParams
	var listen texts
	var connect, idle starlark.Value
	if err := c.unpack("name", &p.Name, "listen", &listen, "service", &p.Service, "backend??", &p.Backend, "mode??", &p.Mode,
		"connect_timeout??", &connect, "idle_timeout??", &idle, "single_connection??", &p.SingleConnection,
		"socket_mode??", &p.SocketMode, "socket_user??", &p.SocketUser, "socket_group??", &p.SocketGroup, "ephemeral??", &p.Ephemeral); err != nil {
		return nil, err
	}
	p.Listen = listen
	for to, v := range map[**int]starlark.Value{&p.ConnectTimeout: connect, &p.IdleTimeout: idle} {
		if v == nil || v == starlark.None {
			continue
		}
		var d seconds
		if err := d.Unpack(v); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		whole := int(time.Duration(d).Round(time.Second) / time.Second)
		*to = &whole
	}
	return starlark.None, s.ask(0, 0, func(ctx context.Context, cl *client.Client) error { return cl.SetProxy(ctx, p) })
}

func xinetDelete(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	if err := c.unpack("name", &name); err != nil {
		return nil, err
	}
	return starlark.None, s.ask(0, 0, func(ctx context.Context, cl *client.Client) error { return cl.DeleteProxy(ctx, name) })
}

func connect(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var socket string
	if err := c.unpack("socket", &socket); err != nil {
		return nil, err
	}
	other := &server{runner: s.runner, socket: socket}
	// That nobody listens is told here, and not by what is asked first.
	return other.module(), other.ask(0, 0, func(ctx context.Context, cl *client.Client) error {
		_, err := cl.Ping(ctx)
		return err
	})
}

// nearest names the known name that one was meant for, in words.
func nearest(name string, known []string) string {
	if near := spec.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}
