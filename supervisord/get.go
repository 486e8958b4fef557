package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

// hidden stands for a secret.
const hidden = "***"

// specOf returns the configuration of a service, which nobody changes.
func (c *client) specOf(ctx context.Context, name string) (*spec.Service, error) {
	var sp *spec.Service
	var refused *ipc.Error
	err := c.s.in(ctx, func() {
		if sp = c.s.core.Spec(name); sp == nil {
			refused = c.s.notFound(name)
		}
	})
	return sp, cmpError(refused, err)
}

func get(c *client, ctx context.Context, r ipc.Request) (any, error) {
	p, err := params[ipc.GetParams](r)
	if err != nil {
		return nil, err
	}
	if p.Reveal {
		if e := c.mayReveal(); e != nil {
			return nil, e
		}
	}
	sp, err := c.specOf(ctx, p.Name)
	if err != nil {
		return nil, err
	}
	out := ipc.Config{TOML: sp.TOML(), Config: map[string]any{}, Secrets: references(sp)}
	if _, err := toml.Decode(out.TOML, &out.Config); err != nil {
		return nil, fmt.Errorf("cannot show the configuration of %s: %w", p.Name, err)
	}
	if p.Reveal {
		out.Secrets = secrets(sp, c.s.environment(sp))
	}
	return out, nil
}

// mayReveal refuses to show secrets to members of the socket's group.
func (c *client) mayReveal() *ipc.Error {
	cred, err := c.conn.Peer()
	if err == nil && (cred.Uid == 0 || cred.Uid == os.Getuid()) {
		return nil
	}
	return ipc.Errorf(ipc.ErrDenied, "only root and uid %d, to which zinit-server belongs, may see secrets", os.Getuid())
}

// references lists where secrets are, and reads none.
func references(sp *spec.Service) []ipc.Secret {
	var out []ipc.Secret
	for _, path := range sp.EnvFile {
		out = append(out, ipc.Secret{File: strings.TrimPrefix(path, "-"), Value: hidden})
	}
	for _, v := range sp.Env {
		if v.File != "" {
			out = append(out, ipc.Secret{Name: v.Name, File: v.File, Value: hidden})
		}
	}
	return out
}

// secrets reads them, as a start of the service would.
func secrets(sp *spec.Service, env *environ) []ipc.Secret {
	var out []ipc.Secret
	for _, entry := range sp.EnvFile {
		vars, path, _, err := env.readFile(entry)
		if err != nil {
			out = append(out, ipc.Secret{File: path, Error: err.Error()})
		}
		for _, v := range vars {
			secret := ipc.Secret{Name: v.Name, File: path}
			if secret.Value, err = spec.ExpandString(v.Value, env.get); err != nil {
				secret.Error = err.Error()
			}
			env.set(v.Name, secret.Value)
			out = append(out, secret)
		}
	}
	for _, v := range sp.Env {
		if v.File == "" {
			continue
		}
		secret := ipc.Secret{Name: v.Name, File: v.File}
		data, err := readSmall(v.File)
		if err != nil {
			secret.Error = err.Error()
		}
		secret.Value = strings.TrimSuffix(string(data), "\n")
		out = append(out, secret)
	}
	return out
}
