// Package helper is what the programs that zinit-server starts for itself have
// in common: their flags, and a link to the supervisor that outlives it.
package helper

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/logx"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// dialTimeout bounds one attempt to connect while the backlog is full.
	dialTimeout = 10 * time.Second
	// pauseMin and pauseMax bound the pause between two attempts.
	pauseMin = 10 * time.Millisecond
	pauseMax = time.Second
)

// Options is what zinit-server says to a helper on its command line.
type Options struct {
	socket string
	run    ipc.RunID
	level  slog.Level
	name   string
}

// Parse reads the command line of a helper, and ends it when there is nothing to
// do: after --help and --version, or with exit code 2. What the program does is
// the first line of its help.
func Parse(name, does string) Options {
	o, err := parse(name, does, os.Args[1:])
	switch {
	case errors.Is(err, pflag.ErrHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\nTry: %s --help\n", name, err, name)
		os.Exit(2)
	}
	return o
}

func parse(name, does string, args []string) (Options, error) {
	o := Options{name: name}
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.socket, "socket", "", "helper socket `path` of zinit-server")
	run := f.Uint64("run", 0, "`number` by which zinit-server knows this process")
	level := f.String("log-level", os.Getenv("ZINIT_LOG_LEVEL"), "trace, debug, info, warn or error")
	showVersion := f.Bool("version", false, "print the version")
	f.Usage = func() {
		fmt.Printf("%s\n\nUsage: %s --socket PATH --run NUMBER\n\n%s", does, name, f.FlagUsagesWrapped(80))
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *showVersion {
		fmt.Println(name, version.Version)
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

// Log is the helper's log: its standard error, which zinit-server captures.
func (o Options) Log() *slog.Logger { return logx.New(o.name, o.level) }

// Follow connects to the supervisor in a role such as ipc.RoleHealth, and to the
// next one when that has gone; serve has each connection until it ends.
// zinit-pid1 keeps the listener: while there is no supervisor the connection
// waits in its backlog, and when nobody listens zinit has ended, and this
// returns.
func (o Options) Follow(role string, serve func(*ipc.Conn)) error {
	hello := ipc.Hello{Protocol: ipc.Protocol, Role: role, Version: version.Version, Run: o.run}
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		began := time.Now()
		conn, err := greet(o.socket, hello)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return err
		}
		if err == nil {
			serve(conn)
			conn.Close()
		}
		if time.Since(began) > pauseMax {
			pause = pauseMin
		}
		time.Sleep(pause) // before trying again what sends no event
	}
}

func greet(socket string, hello ipc.Hello) (*ipc.Conn, error) {
	conn, err := ipc.Dial(socket, dialTimeout)
	if err != nil {
		return nil, err
	}
	if err = conn.Send(ipc.KindHello, hello); err == nil {
		_, err = ipc.ReadHello(conn, ipc.RoleSupervisor)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
