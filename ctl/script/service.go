package script

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"go.starlark.net/starlark"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// A configuration is a dict of the tables of a service file, or its text.

func service(_ *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	return build(c, "service", "service", "dependencies", "lifecycle")
}

func target(_ *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	return build(c, "target", "target", "dependencies")
}

// build makes a configuration of arguments: each is a key of one of the tables
// that lie open, or a table of its own.
func build(c *call, main string, open ...string) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs(c.name, c.args, nil, "name", &name); err != nil {
		return nil, err
	}
	table := map[string]string{} // of each key; "" for a table of its own
	for _, f := range spec.Fields() {
		switch {
		case slices.Contains(open, f.Table):
			table[f.Key] = f.Table
		case main == "service" && f.Table != "target":
			table[f.Table] = ""
		}
	}
	tables := map[string]*starlark.Dict{main: starlark.NewDict(1)}
	config := starlark.NewDict(1)
	set := func(t, key string, v starlark.Value) {
		if tables[t] == nil {
			tables[t] = starlark.NewDict(1)
		}
		_ = tables[t].SetKey(starlark.String(key), v)
		_ = config.SetKey(starlark.String(t), tables[t])
	}
	set(main, "name", starlark.String(name))
	for _, kv := range c.kwargs {
		key := strings.TrimSuffix(string(kv[0].(starlark.String)), "_")
		switch t, ok := table[key]; {
		case !ok:
			known := slices.Sorted(maps.Keys(table))
			return nil, fmt.Errorf("%s: unknown field %q%s", c.name, key, nearest(key, known))
		case kv[1] == starlark.None:
		case t == "":
			_ = config.SetKey(starlark.String(key), kv[1])
		default:
			set(t, key, kv[1])
		}
	}
	if _, err := source(c, config, name); err != nil {
		return nil, err
	}
	return config, nil
}

// source is the text of a configuration. That of a dict is judged here: lines
// and columns would say nothing to who wrote the script.
func source(c *call, v starlark.Value, name string) (string, error) {
	if text, ok := starlark.AsString(v); ok {
		return text, nil
	}
	tables, err := plain(v, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %w", c.name, err)
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(tables); err != nil {
		return "", fmt.Errorf("%s: this is no configuration: %w", c.name, err)
	}
	_, _, problems := spec.Parse(cmp.Or(name, "unnamed")+".toml", text.Bytes()) // as the server does
	if len(problems) == 0 {
		return text.String(), nil
	}
	e := ipc.Errorf(ipc.ErrInvalid, "%s: %s", c.name, problems[0].Message)
	for _, p := range problems[1:] {
		e.Message += "; " + p.Message
	}
	return "", e
}

func addService(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var config starlark.Value
	var name string
	var persist bool
	var o waitOptions
	if err := c.unpack(append([]any{"config", &config, "name??", &name, "persist??", &persist}, o.params()...)...); err != nil {
		return nil, err
	}
	text, err := source(c, config, name)
	if err != nil {
		return nil, err
	}
	return s.changing(o, func(ctx context.Context, cl *client.Client, opt client.Options, moved func(ipc.Moved)) error {
		return cl.Add(ctx, opt, text, name, persist, moved)
	})
}

func set(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var config starlark.Value
	var name string
	var o waitOptions
	if err := c.unpack(append([]any{"config", &config, "name??", &name}, o.params()...)...); err != nil {
		return nil, err
	}
	text, err := source(c, config, name)
	if err != nil {
		return nil, err
	}
	return s.changing(o, func(ctx context.Context, cl *client.Client, opt client.Options, moved func(ipc.Moved)) error {
		return cl.Set(ctx, opt, text, name, moved)
	})
}

func removeService(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	if err := c.unpack("name", &name); err != nil {
		return nil, err
	}
	return s.changing(waitOptions{}, func(ctx context.Context, cl *client.Client, _ client.Options, moved func(ipc.Moved)) error {
		return cl.Remove(ctx, name, moved)
	})
}

func get(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var name string
	var reveal bool
	if err := c.unpack("name", &name, "reveal??", &reveal); err != nil {
		return nil, err
	}
	return about(s, name, func(cl *client.Client, ctx context.Context, name string) (map[string]any, error) {
		config, err := cl.Get(ctx, name, reveal)
		return config.Config, err
	})
}
