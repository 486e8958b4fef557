package main

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/ipc/client"
)

func metricsCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, _ []string) error {
		return a.ask(func(ctx context.Context, c *client.Client) error {
			text, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(a.out, map[string]string{"text": text})
			}
			_, err = a.out.WriteString(text)
			return err
		})
	}
}
