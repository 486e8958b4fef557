// zinit-proxyd holds the connections of proxies. zinit-server starts it when
// the first proxy is configured, gives it the listening sockets, tells it when
// a service may have clients, and starts the service when one waits. It decides
// nothing and keeps nothing that lasts: when it is killed, listeners and their
// backlogs stay open in zinit-pid1, and the next one goes on.
//
// main.go wires it up, agent.go speaks with zinit-server, loop.go is the one
// thread that serves everything, which waits with poll_*.go, proxy.go is a proxy
// with its listeners and its gate, conn.go a connection, pipes.go and sys_*.go what
// its bytes go through.
package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/helper"
)

func main() {
	o := helper.Parse("zinit-proxyd", "zinit-proxyd forwards the connections of proxies. zinit-server starts it.")
	log := o.Log()
	l, err := newLoop()
	if err != nil {
		log.Error("cannot start", "error", err)
		os.Exit(1)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	go func() {
		<-signals
		l.stop()
	}()
	a := &agent{loop: l, log: log, proxies: map[string]*proxy{}}
	go func() {
		err := o.Follow(ipc.RoleProxy, a.serve)
		log.Error("zinit is gone", "error", err)
		os.Exit(1)
	}()
	l.run()
}
