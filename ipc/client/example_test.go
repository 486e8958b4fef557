package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Start a service, wait until it is up, and say what moved for that.
func Example() {
	socket, stop := exampleServer() // elsewhere /run/zinit.sock
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c, err := client.Dial(ctx, socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	err = c.Start(ctx, client.Options{Timeout: 30 * time.Second}, func(m ipc.Moved) {
		fmt.Printf("%s: %s -> %s\n", m.Name, m.From, m.To)
	}, "web")
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// db: inactive -> running
	// web: inactive -> running
}

// An error says what kind of refusal it is, or that nobody answers.
func Example_errors() {
	socket, stop := exampleServer()
	defer stop()
	ctx := context.Background()

	c, err := client.Dial(ctx, socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	_, err = c.Status(ctx, "wbe")
	var refused *ipc.Error
	if errors.As(err, &refused) && refused.Kind == ipc.ErrNotFound {
		fmt.Printf("%s; did you mean %s?\n", refused.Message, refused.Nearest)
	}

	_, err = client.Dial(ctx, "/nowhere/zinit.sock")
	var unreachable *client.Unreachable
	if errors.As(err, &unreachable) {
		fmt.Println(unreachable)
	}
	// Output:
	// there is no service "wbe"; did you mean web?
	// cannot reach zinit-server at /nowhere/zinit.sock: no such file or directory
}

// Follow the errors of two services, until there has been enough of them.
func ExampleClient_FollowLogs() {
	socket, stop := exampleServer()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	c, err := client.Dial(ctx, socket)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	params := ipc.LogsParams{Names: []string{"web", "db"}, Stream: "stderr", Lines: 10}
	lines := 0
	err = c.FollowLogs(ctx, params, func(l ipc.LogLine) error {
		if l.Missed > 0 {
			fmt.Printf("(%d lines of %s were missed)\n", l.Missed, l.Service)
			return nil
		}
		fmt.Printf("%s: %s\n", l.Service, l.Text)
		if lines++; lines == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
	// Output:
	// db: disk is slow
	// (12 lines of web were missed)
	// web: cannot reach db
}

// A method that has no function of its own is called by name.
func ExampleClient_Stream() {
	socket, stop := exampleServer()
	defer stop()
	ctx := context.Background()

	c, err := client.Dial(ctx, socket)
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
	// Output: web running
}
