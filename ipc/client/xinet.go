package client

import (
	"context"

	"github.com/threefoldtech/zinit/ipc"
)

// Proxies returns these proxies, or all, sorted by name.
func (c *Client) Proxies(ctx context.Context, names ...string) ([]ipc.ProxyStatus, error) {
	if len(names) == 0 {
		return list[ipc.ProxyStatus](ctx, c, "xinet.list", nil)
	}
	return list[ipc.ProxyStatus](ctx, c, "xinet.status", ipc.NamesParams{Names: names})
}

// SetProxy makes a proxy, or replaces the one of that name: listeners and
// connections that it had go on where nothing has changed for them.
func (c *Client) SetProxy(ctx context.Context, p ipc.ProxyParams) error {
	return again(ctx, func() error { return c.Call(ctx, "xinet.set", p, nil) })
}

// DeleteProxy closes a proxy and removes its file. Its service goes on. It is
// not repeated: ErrLost means that it may or may not have been deleted.
func (c *Client) DeleteProxy(ctx context.Context, name string) error {
	return c.Call(ctx, "xinet.delete", ipc.NameParams{Name: name}, nil)
}
