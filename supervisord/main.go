// zinit-server is the supervisor: it reads the configuration, decides what
// runs, keeps logs and answers clients. It has no children: zinit-pid1, its
// parent, forks and reaps for it, so that it may be killed and replaced at any
// moment.
//
// main.go wires it up, server.go is the loop, perform.go does what the core
// decides, and environ.go, cgroup_*.go, limits.go and conceal.go help it.
//
//   - pid1: keeper.go is the link, takeover.go goes on from what it knows and from
//     what store.go has kept, upgrade.go leaves to another version.
//   - Clients: control.go has the socket, methods.go the table of what they can
//     ask for, requests.go, output.go and xinet.go answer; view.go, get.go,
//     stats.go and debug.go look into services, wish.go waits for what was wished,
//     reload.go changes the configuration.
//   - Services: notify.go hears readiness, pipes.go holds the ends of what they
//     print, attach.go copies it to stdout, events.go and incidents.go keep what
//     has happened.
//   - Helpers: helpers.go runs them, health.go speaks with zinit-healthd,
//     proxies.go with zinit-proxyd, for which listeners.go has the sockets.
//   - Files: runtime.go puts back those that were removed.
//   - Other processes: proc_*.go tells of them, ports_*.go of who listens.
//
// The decisions are in package core, the output of services in logs.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/logx"
	"github.com/threefoldtech/zinit/common/memory"
	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/threads"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

// options are the flags, with their defaults from the environment.
type options struct {
	configDir       string
	systemDir       string // "" for none
	pid1Mode        bool
	socket          string
	runtimeDir      string
	socketMode      fs.FileMode
	socketGroup     string
	socketGID       int
	logMemory       int64
	shutdownTimeout time.Duration
	attachLogs      bool
	attachLogsSet   bool
	metrics         string // where to serve them, "" for nowhere
	level           slog.Level
}

func main() {
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	link, ok := os.LookupEnv(keeperEnv)
	if err != nil {
		fmt.Fprintf(os.Stderr, "zinit-server: %v\nTry: zinit-server --help\n", err)
		if ok {
			giveUp(link, 2, err)
		}
		os.Exit(2)
	}
	log := logx.New("zinit-server", o.level)
	if !ok {
		err := becomeKeeper(o)
		log.Error("cannot start", "error", err)
		os.Exit(1)
	}
	if err := supervise(o, link, log); err != nil {
		log.Error("cannot go on", "error", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (options, error) {
	o := options{}
	f := pflag.NewFlagSet("zinit-server", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringVar(&o.configDir, "config-dir", "", "`directory` with one TOML file per service")
	f.StringVar(&o.systemDir, "system-dir", "", "`directory` with the services that start before all others (default on a machine, and with --pid1-mode: /etc/zinit/system)")
	f.BoolVar(&o.pid1Mode, "pid1-mode", false, "read the system directory, as on a machine")
	f.StringVar(&o.socket, "socket", "", "control socket `path`")
	f.StringVar(&o.runtimeDir, "runtime-dir", "", "`directory` for state and logs (default: the socket's path without .sock, or with .d added)")
	mode := f.String("socket-mode", "0600", "permissions of the control socket, in `octal`")
	f.StringVar(&o.socketGroup, "socket-group", "", "`group` whose members may control zinit, too")
	level := f.String("log-level", os.Getenv("ZINIT_LOG_LEVEL"), "trace, debug, info, warn or error")
	memory := f.String("log-memory", "64MiB", "bound for the captured output of all services together")
	f.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 30*time.Second, "bound for a shutdown, after which all that is left is killed")
	f.BoolVar(&o.attachLogs, "attach-logs", false, "copy the output of the services to stdout (default in a container)")
	f.StringVar(&o.metrics, "metrics", "", "`address` such as 127.0.0.1:9090 for /metrics, /healthz and /readyz over HTTP")
	showVersion := f.Bool("version", false, "print the version")
	showCompat := f.Bool("compat", false, "print which saved states and zinit-pid1 it can take over, as JSON")
	f.Usage = func() {
		fmt.Printf("zinit-server supervises services.\n\nUsage: zinit-server [flags]\n\n%s\nThe zinit command controls it. Flags beat the environment\n(ZINIT_CONFIG_DIR, ZINIT_SOCKET, ZINIT_LOG_LEVEL).\n", f.FlagUsagesWrapped(80))
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *showVersion {
		fmt.Println("zinit-server", version.Version)
		return o, pflag.ErrHelp
	}
	if *showCompat {
		printCompat(os.Stdout)
		return o, pflag.ErrHelp
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: a command for zinit-pid1 to run stands behind --", f.Arg(0))
	}
	o.attachLogsSet = f.Changed("attach-logs")
	bits, err := strconv.ParseUint(*mode, 8, 32)
	if err != nil || bits > 0o777 {
		return o, fmt.Errorf("cannot use --socket-mode %q: want permissions in octal, such as 0660", *mode)
	}
	o.socketMode = fs.FileMode(bits)
	if o.socketGroup != "" {
		if o.socketGID, err = groupID(o.socketGroup); err != nil {
			return o, err
		}
		if !f.Changed("socket-mode") {
			o.socketMode = 0o660
		}
	}
	if o.metrics != "" {
		if _, port, err := net.SplitHostPort(o.metrics); err != nil || port == "" {
			return o, fmt.Errorf("cannot use --metrics %q: want host:port, such as 127.0.0.1:9090", o.metrics)
		}
	}
	var ok bool
	if o.logMemory, ok = spec.ParseSize(*memory); !ok || o.logMemory < 1<<20 {
		return o, fmt.Errorf("cannot use --log-memory %q: want a size of at least 1MiB, such as 64MiB", *memory)
	}
	if o.shutdownTimeout <= 0 {
		return o, fmt.Errorf("cannot use --shutdown-timeout %s: it must be longer than nothing", o.shutdownTimeout)
	}
	if o.level, err = logx.ParseLevel(*level); err != nil {
		return o, err
	}
	return o, nil
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if id, err := strconv.Atoi(name); err == nil && id >= 0 {
			return id, nil
		}
		return 0, fmt.Errorf("cannot find group %q of --socket-group", name)
	}
	return strconv.Atoi(g.Gid)
}

// becomeKeeper replaces this process by zinit-pid1, with zinit-server as its child: a
// service must not have the supervisor for a parent. The child is started here, if it
// can be, so that both start at the same time; else zinit-pid1 starts it, as it does
// any later one. It returns only if zinit-pid1 cannot be executed.
func becomeKeeper(o options) error {
	p, _, err := paths.Server(o.socket, o.runtimeDir)
	if err != nil {
		return err
	}
	// The lock is taken for good by the supervisor itself; asked for here, a
	// second start says no before it has begun anything.
	lock, err := claimLock(p)
	if err != nil {
		return err
	}
	lock.Close()
	self, err := myself()
	if err != nil {
		return fmt.Errorf("cannot find my own program: %w", err)
	}
	keeper := filepath.Join(filepath.Dir(self), "zinit-pid1")
	if _, err := os.Stat(keeper); err != nil {
		if keeper, err = exec.LookPath("zinit-pid1"); err != nil {
			return fmt.Errorf("cannot find zinit-pid1, which keeps the services: neither in %s nor in PATH", filepath.Dir(self))
		}
	}
	server := append([]string{self}, os.Args[1:]...)
	argv := []string{"zinit-pid1", "--subreaper", "--"}
	pid, link, begun := startBeside(server)
	if begun == nil {
		argv = slices.Insert(argv, 2, fmt.Sprintf("--supervisor=%d,%d", pid, link))
	}
	err = unix.Exec(keeper, append(argv, server...), os.Environ())
	if begun == nil {
		unix.Kill(pid, unix.SIGKILL)
	}
	return fmt.Errorf("cannot execute %s: %w", keeper, err)
}

// startBeside starts a supervisor whose link waits for zinit-pid1. It returns its pid
// and the other end of the link, which survives execve.
func startBeside(argv []string) (pid, link int, err error) {
	p, err := ipc.SocketPair()
	if err != nil {
		return 0, 0, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer threads.SetSlack(threads.SetSlack(threads.Slack))
	pid, err = syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Files: []uintptr{uintptr(null), 1, 2, uintptr(p[1])},
		Env:   append(os.Environ(), keeperEnv+"=3"),
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, 0, err
	}
	_, err = unix.FcntlInt(uintptr(p[0]), unix.F_SETFD, 0)
	return pid, p[0], err
}

// myself returns the path by which this program was called: a symbolic link in
// it may lead to another version by the time of an upgrade.
func myself() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(os.Args[0])
	if err == nil {
		called, err = filepath.Abs(called)
	}
	if err != nil {
		return self, nil
	}
	a, err := os.Stat(self)
	b, err2 := os.Stat(called)
	if err != nil || err2 != nil || !os.SameFile(a, b) {
		return self, nil
	}
	return called, nil
}

const (
	// procs is how many threads run Go at the same time, where there are as many
	// processors.
	procs = 4
	// warm is how many threads may be needed at the same time: those, the loop, the
	// capture, who hears notify sockets and who keeps incidents, spawns that are
	// prepared, and some who write log files and answer clients.
	warm = procs + 4 + maxPrepared + 12
)

// supervise runs until zinit ends or pid1 is gone.
func supervise(o options, link string, log *slog.Logger) error {
	// More would help nobody, and be threads that have to be there beforehand.
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), procs))
	// The heap is small and mostly idle: collecting it a little more often costs
	// less than what it would grow to.
	memory.Keep(32<<20, 50)
	k, err := connectKeeper(link)
	if err != nil {
		return err
	}
	os.Unsetenv(keeperEnv)
	if !o.attachLogsSet {
		o.attachLogs = k.hello.Mode == ipc.ModeContainer
	}
	var s *server
	if err = o.findDirs(k.hello.Mode); err == nil {
		s, err = start(o, k, log)
	}
	if err != nil {
		log.Error("cannot start", "error", err) // before pid1 ends all, this process too
		k.giveUp(1, err)
		os.Exit(1)
	}
	go forwardSignals(s.inbox)
	if o.attachLogs {
		since := s.started
		if k.hello.Restarts > 0 {
			since = since.Add(-time.Duration(k.hello.Down))
		}
		s.attached = attach(s.logs, since)
	}
	if err := s.run(); err != errHalted {
		return err
	}
	return nil
}

// findDirs fills in the directories of services that no flag says.
func (o *options) findDirs(mode ipc.Mode) (err error) {
	if o.configDir, err = paths.ConfigDir(o.configDir, mode != ipc.ModeStandalone); err != nil {
		return err
	}
	if o.systemDir != "" || o.pid1Mode || mode == ipc.ModeVM {
		o.systemDir, err = paths.SystemDir(o.systemDir, true)
	}
	return err
}

// giveUp says that zinit cannot even start: trying again would not help.
func giveUp(link string, code int, why error) {
	if k, err := connectKeeper(link); err == nil {
		k.giveUp(code, why)
	}
}

// giveUp ends zinit unless something runs, which is left running then. A
// machine gets an emergency shell.
func (k *keeper) giveUp(code int, why error) {
	switch {
	case k.hello.Mode == ipc.ModeVM:
		k.send(ipc.KindShell, ipc.Shell{Reason: "zinit-server cannot start: " + why.Error()})
	case len(k.runs) == 0:
		k.send(ipc.KindHalt, ipc.Halt{Action: ipc.HaltExit, Code: code})
	}
	k.conn.Flush()
}

// osSignal is a signal to the supervisor itself; it means the same as to pid1.
type osSignal struct{ sig unix.Signal }

func forwardSignals(inbox chan<- any) {
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	for sig := range ch {
		inbox <- osSignal{sig.(unix.Signal)}
	}
}
