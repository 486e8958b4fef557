// zinit-pid1 is the keeper: the parent of every zinit process and service. It
// forks, signals and reaps on the orders of zinit-server, the supervisor, and
// starts that again whenever it ends. It decides nothing, parses no
// configuration and touches no files of its own, so that it need never be
// restarted.
//
// One goroutine owns all state (keeper.go); the others look at files and fork
// (launch.go, on threads of fork_linux.go), wait for children (reap.go), read the
// link, or collect signals, and hand it values. What it knows of its children is
// plain data (table.go).
//
// The tests run this package's main in a process of its own, the test binary
// executed again, and play the supervisor at the other end of its link.
package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/threefoldtech/zinit/common/memory"
	"github.com/threefoldtech/zinit/common/threads"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ipc"
)

const usage = `Usage: zinit-pid1 [--container | --vm] [SERVER FLAG…] [-- COMMAND [ARG…]]

Runs zinit-server and all services as their parent: as PID 1 of a machine or of
a container, or, started otherwise, as if in a container.

  --container   run as the init of a container, and exit when it ends
  --vm          run as the init of a machine, which is the default for PID 1
                outside of a container
  --version     print the version
  -h, --help    print this help

All other flags are passed to zinit-server. COMMAND is run as the service main:
when it ends everything is stopped, and zinit-pid1 exits with its code.
`

// warm is how many threads pid1 may need at the same time beside those that fork and
// runs there are the keeper, the log, who waits for children, the start of a
// supervisor and the question to a successor that may be in a system call.
const warm = procs + 5

// begunFlag comes before the pid and the link's descriptor, as in --supervisor=7,3,
// of a supervisor that zinit-server has started before it became zinit-pid1.
const begunFlag = "--supervisor="

// options are how pid1 was started.
type options struct {
	mode ipc.Mode
	// server is the command line of the supervisor.
	server []string
	// begun is the pid of a supervisor that runs already, 0 for none, and link the
	// descriptor of this end of its link.
	begun, link int
	// main is the main command of a container, nil for none.
	main []string
	// note is something to warn about.
	note string
	// show is printed instead of doing anything.
	show string
}

func main() {
	if len(os.Args) == 2 && os.Args[0] == helperName {
		execHelper(os.Args[1])
	}
	if len(os.Args) == 2 && os.Args[1] == compatFlag {
		compat()
	}
	sigs := catchSignals()
	clearIgnored()
	closeOnExecAll()
	// Set by hand, it is not adjusted from time to time.
	runtime.GOMAXPROCS(procs)
	// A keeper of a few services has some hundred kilobytes. While a system starts
	// it is to collect seldom: for that the runtime waits for the forks under way. Of
	// many services what stays would lie between what does not, so once it does.
	memory.Keep(4<<20, 50)
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", defaultPath)
	}

	opt := parse(os.Args[1:], os.Getpid(), os.Getenv, exists)
	if opt.show != "" {
		os.Stdout.WriteString(opt.show)
		return
	}
	started := os.Getenv(stateEnv) == "" // and not replaced
	var problems []error
	if started && opt.mode == ipc.ModeVM {
		problems = boot()
	}
	log := newLogger(os.Getenv("ZINIT_LOG_LEVEL")) // no sooner: it asks whether the console is a terminal
	for _, p := range problems {
		log.error(p.Error())
	}
	if started && opt.note != "" {
		log.warn(opt.note)
	}
	if os.Getpid() != 1 {
		adoptOrphans(log)
	}
	k := newKeeper(opt, log, sigs)
	k.sup.Argv = opt.server
	s, err := inherited(k.pid)
	open := s.fds()
	begun := started && opt.begun > 0 && k.joinSupervisor(opt.begun, opt.link) == nil
	if begun {
		open = append(open, opt.link)
	}
	childSlack = threads.Loosen()
	k.launcher = newLauncher(log, open)
	before := k.takeOver(s, err)
	go k.children.loop()
	k.children.wait() // for those, too, that were there before execve
	switch {
	case begun:
		go k.readLink(k.sup.conn) // no sooner: descriptors come by it
	case !before:
		k.startSupervisor()
	}
	// While the supervisor comes up.
	go threads.Warm(warm)
	sigs.catchOthers(len(opt.main) > 0)
	spareInit()
	k.loop()
}

// parse reads the command line. It knows little of it, which is why it does
// so by hand: a flag package would bring the network into the link.
func parse(args []string, pid int, getenv func(string) string, exists func(string) bool) options {
	var opt options
	var container, vm, subreaper bool
	var pass []string
	rest, dashes := args, false
	if i := slices.Index(args, "--"); i >= 0 {
		args, rest, dashes = args[:i], args[i+1:], true
	}
	for _, a := range args {
		switch a {
		case "--container":
			container = true
		case "--vm":
			vm = true
		case "--subreaper":
			subreaper = true
		case "--version":
			opt.show = "zinit-pid1 " + version.Version + "\n"
		case "-h", "--help":
			opt.show = usage
		default:
			if v, ok := strings.CutPrefix(a, begunFlag); ok {
				pid, fd, _ := strings.Cut(v, ",")
				opt.begun, _ = strconv.Atoi(pid)
				opt.link, _ = strconv.Atoi(fd)
				continue
			}
			pass = append(pass, a)
		}
	}
	if subreaper && dashes && len(rest) > 0 {
		opt.mode, opt.server = ipc.ModeStandalone, rest
		return opt
	}
	opt.server = append([]string{serverName}, pass...)
	if dashes && len(rest) > 0 {
		opt.main = rest
	}
	opt.mode = ipc.ModeContainer
	switch {
	case pid != 1:
		opt.note = fmt.Sprintf("zinit-pid1 is not PID 1 (it is %d): %s", pid, asChild)
	case container || vm:
		if !container {
			opt.mode = ipc.ModeVM
		}
	case getenv("ZINIT_CONTAINER") == "" && getenv("container") == "" && !exists("/.dockerenv") && !exists("/run/.containerenv"):
		opt.mode = ipc.ModeVM
	}
	if opt.mode == ipc.ModeVM {
		// The kernel passes on all words of its command line that it does not
		// know, and what stands behind a "--" there last.
		first := slices.IndexFunc(pass, func(a string) bool { return strings.HasPrefix(a, "--") })
		if first < 0 {
			first = len(pass)
		}
		opt.server = append(opt.server[:1], pass[first:]...)
	}
	return opt
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
