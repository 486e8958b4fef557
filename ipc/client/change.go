package client

import (
	"context"
	"errors"
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// Reload has the server read its directory again, or with dryRun says what
// that would do. Asked again after the loss of a connection, it says what was
// left to do.
func (c *Client) Reload(ctx context.Context, dryRun bool) (ipc.Reloaded, error) {
	return get[ipc.Reloaded](ctx, c, "service.reload", ipc.ReloadParams{DryRun: dryRun})
}

// Add makes a service of the text of a service file, and waits as Start does.
// name is what it is called if the text does not say. It is kept in memory, or
// with persist in a file of the service directory.
func (c *Client) Add(ctx context.Context, opt Options, config, name string, persist bool, moved func(ipc.Moved)) error {
	limit := newLimit(opt.Timeout)
	heard := func(e *ipc.Error) error { return c.started(ctx, opt.NoWait, limit, e.Service) }
	return c.change(ctx, "service.add", ipc.ConfigParams{
		Config: config, Name: name, Persist: persist, NoWait: opt.NoWait, TimeoutMS: opt.Timeout.Milliseconds(),
	}, moved, ipc.ErrConflict, heard)
}

// started takes up the wait for a service that is about to be up, where the
// answer was lost.
func (c *Client) started(ctx context.Context, noWait bool, limit limit, name string) error {
	services, err := c.Status(ctx, name)
	if err != nil || noWait || services[0].State != ipc.StateStarting {
		return err
	}
	_, err = c.Wait(ctx, Options{Timeout: time.Duration(limit.leftMS()) * time.Millisecond}, ForRunning, name)
	return err
}

// Set makes or replaces a service, in its file; otherwise as Add.
func (c *Client) Set(ctx context.Context, opt Options, config, name string, moved func(ipc.Moved)) error {
	return c.change(ctx, "service.set", ipc.ConfigParams{
		Config: config, Name: name, NoWait: opt.NoWait, TimeoutMS: opt.Timeout.Milliseconds(),
	}, moved, "", nil)
}

// Remove stops a service, and what requires it, and forgets it and its file.
func (c *Client) Remove(ctx context.Context, name string, moved func(ipc.Moved)) error {
	return c.change(ctx, "service.remove", ipc.NameParams{Name: name}, moved, ipc.ErrNotFound, func(*ipc.Error) error { return nil })
}

// StartAll starts all services of the class user but those with status =
// "ignore"; otherwise as Start.
func (c *Client) StartAll(ctx context.Context, opt Options, moved func(ipc.Moved)) error {
	return c.bulk(ctx, "service.start_all", opt, moved)
}

// StopAll stops all services of the class user; otherwise as Stop.
func (c *Client) StopAll(ctx context.Context, opt Options, moved func(ipc.Moved)) error {
	return c.bulk(ctx, "service.stop_all", opt, moved)
}

// DeleteAll removes all services of the class user, and their files.
func (c *Client) DeleteAll(ctx context.Context, opt Options, moved func(ipc.Moved)) error {
	return c.bulk(ctx, "service.delete_all", opt, moved)
}

func (c *Client) bulk(ctx context.Context, method string, opt Options, moved func(ipc.Moved)) error {
	return c.change(ctx, method, ipc.NamesParams{NoWait: opt.NoWait, TimeoutMS: opt.Timeout.Milliseconds()}, moved, "", nil)
}

// change asks for something that may be asked again after the loss of a
// connection. done is the refusal that then means that the first was heard, and
// heard is what is left to do.
func (c *Client) change(ctx context.Context, method string, params any, moved func(ipc.Moved), done ipc.ErrorKind, heard func(*ipc.Error) error) error {
	repeated := false
	return again(ctx, func() error {
		err := c.Stream(ctx, method, params, func(item Item) error {
			var m ipc.Moved
			err := item.Decode(&m)
			if err == nil {
				moved(m)
			}
			return err
		})
		var refused *ipc.Error
		if repeated && done != "" && errors.As(err, &refused) && refused.Kind == done {
			return heard(refused)
		}
		repeated = true
		if errors.As(err, &refused) {
			for _, m := range refused.Moved {
				moved(m)
			}
		}
		return err
	})
}
