package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Start a service, wait until it is up, and say what became of it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.Dial(ctx, "/run/zinit.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.Start(ctx, client.Options{Timeout: 30 * time.Second}, func(m ipc.Moved) {
		fmt.Printf("%s: %s -> %s\n", m.Name, m.From, m.To)
	}, "web")

	var refused *ipc.Error
	switch {
	case errors.As(err, &refused) && refused.Kind == ipc.ErrNotFound:
		log.Fatalf("there is no such service, did you mean %s?", refused.Nearest)
	case err != nil:
		log.Fatal(err)
	}
}

// Follow the errors of two services until the program is interrupted.
func ExampleClient_FollowLogs() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	c, err := client.Dial(ctx, "/run/zinit.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	params := ipc.LogsParams{Names: []string{"web", "db"}, Stream: "stderr", Lines: 10}
	err = c.FollowLogs(ctx, params, func(l ipc.LogLine) error {
		if l.Missed > 0 {
			fmt.Printf("(%d lines of %s were missed)\n", l.Missed, l.Service)
			return nil
		}
		fmt.Printf("%s %s\n", l.Service, l.Text)
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// A method that has no function of its own is called by name.
func ExampleClient_Stream() {
	ctx := context.Background()
	c, err := client.Dial(ctx, "/run/zinit.sock")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	params := map[string]any{"names": []string{"web"}}
	err = c.Stream(ctx, "service.status", params, func(item client.Item) error {
		var fields map[string]any
		if err := item.Decode(&fields); err != nil {
			return err
		}
		fmt.Println(fields["name"], fields["state"])
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
