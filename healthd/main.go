// zinit-healthd looks whether services are healthy. zinit-server starts it when
// the first service has a health check, tells it what to look at, and decides
// what the results mean; here nothing is decided and nothing kept, so that it
// may be killed at any moment.
//
// main.go wires it up and keeps the link to zinit-server, agent.go is the loop,
// schedule.go says what is due when, and there is one file for each way to
// look: tcp.go (and unix sockets), http.go and exec.go.
package main

import (
	"os"
	"os/signal"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/helper"
)

func main() {
	o := helper.Parse("zinit-healthd", "zinit-healthd runs the health checks of services. zinit-server starts it.")
	// The heap is small, and each probe makes a little garbage.
	debug.SetGCPercent(50)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	a := newAgent()
	gone := make(chan error, 1)
	go func() { gone <- o.Follow(ipc.RoleHealth, a.serve) }()
	go a.run()
	select {
	case <-signals:
	case err := <-gone:
		o.Log().Error("zinit is gone", "error", err)
		defer os.Exit(1)
	}
	a.end()
}
