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
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/logx"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

type options struct {
	socket string
	run    ipc.RunID
	level  slog.Level
}

func main() {
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "zinit-healthd: %v\nTry: zinit-healthd --help\n", err)
		os.Exit(2)
	}
	// The heap is small, and each probe makes a little garbage.
	debug.SetGCPercent(50)
	log := logx.New("zinit-healthd", o.level)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	a := newAgent()
	gone := make(chan error, 1)
	go func() {
		hello := ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleHealth, Version: version.Version, Run: o.run}
		gone <- ipc.FollowSupervisor(o.socket, hello, a.serve)
	}()
	go a.run()
	select {
	case <-signals:
	case err := <-gone:
		log.Error("zinit is gone", "error", err)
		defer os.Exit(1)
	}
	a.end()
}

func parseFlags(args []string) (options, error) {
	o := options{}
	f := pflag.NewFlagSet("zinit-healthd", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.socket, "socket", "", "helper socket `path` of zinit-server")
	run := f.Uint64("run", 0, "`number` by which zinit-server knows this process")
	level := f.String("log-level", os.Getenv("ZINIT_LOG_LEVEL"), "trace, debug, info, warn or error")
	showVersion := f.Bool("version", false, "print the version")
	f.Usage = func() {
		fmt.Printf("zinit-healthd runs the health checks of services. zinit-server starts it.\n\nUsage: zinit-healthd --socket PATH --run NUMBER\n\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *showVersion {
		fmt.Println("zinit-healthd", version.Version)
		return o, pflag.ErrHelp
	}
	o.run = ipc.RunID(*run)
	if o.socket == "" || o.run == 0 || f.NArg() > 0 {
		return o, errors.New("it takes --socket and --run: zinit-server starts it when it is needed")
	}
	var err error
	o.level, err = logx.ParseLevel(*level)
	return o, err
}
