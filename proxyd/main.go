// zinit-proxyd holds the connections of proxies. zinit-server starts it when
// the first proxy is configured, gives it the listening sockets, tells it when
// a service may have clients, and starts the service when one waits. It decides
// nothing and keeps nothing that lasts: when it is killed, listeners and their
// backlogs stay open in zinit-pid1, and the next one goes on.
//
// main.go wires it up, agent.go speaks with zinit-server, loop_linux.go is the
// one thread that serves everything, proxy_linux.go is a proxy with its
// listeners and its gate, conn_linux.go a connection, pipes_linux.go and
// sys_linux.go what its bytes go through.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/logx"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

type options struct {
	socket string
	run    ipc.RunID
}

func main() {
	o, level, err := parseFlags(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "zinit-proxyd: %v\nTry: zinit-proxyd --help\n", err)
		os.Exit(2)
	}
	log := logx.New("zinit-proxyd", level)
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
		hello := ipc.Hello{Protocol: ipc.Protocol, Role: ipc.RoleProxy, Version: version.Version, Run: o.run}
		err := ipc.FollowSupervisor(o.socket, hello, a.serve)
		log.Error("zinit is gone", "error", err)
		os.Exit(1)
	}()
	l.run()
}

func parseFlags(args []string) (o options, level slog.Level, err error) {
	f := pflag.NewFlagSet("zinit-proxyd", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.socket, "socket", "", "helper socket `path` of zinit-server")
	run := f.Uint64("run", 0, "`number` by which zinit-server knows this process")
	name := f.String("log-level", os.Getenv("ZINIT_LOG_LEVEL"), "trace, debug, info, warn or error")
	showVersion := f.Bool("version", false, "print the version")
	f.Usage = func() {
		fmt.Printf("zinit-proxyd forwards the connections of proxies. zinit-server starts it.\n\nUsage: zinit-proxyd --socket PATH --run NUMBER\n\n%s", f.FlagUsages())
	}
	if err := f.Parse(args); err != nil {
		return o, 0, err
	}
	if *showVersion {
		fmt.Println("zinit-proxyd", version.Version)
		return o, 0, pflag.ErrHelp
	}
	o.run = ipc.RunID(*run)
	if o.socket == "" || o.run == 0 || f.NArg() > 0 {
		return o, 0, errors.New("it takes --socket and --run: zinit-server starts it when it is needed")
	}
	level, err = logx.ParseLevel(*name)
	return o, level, err
}
