// Package main is zinit, the command that people and scripts use. It talks to
// zinit-server over its control socket and has no state of its own.
//
// commands.go holds the table of all commands; help, the documentation and
// completion come from it. There is one file for each group of commands, and
// output.go for what they print with. Everything that a command sees of the
// world is in its app, which belongs to one goroutine; the tests run whole
// command lines against a server of their own and compare the output with
// files in testdata.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/common/terminal"
	"github.com/threefoldtech/zinit/common/version"
	"github.com/threefoldtech/zinit/ctl/script"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// Exit codes, which scripts rely on.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitDenied      = 5
	exitTimeout     = 6
	exitInterrupted = 130 // as a shell says of SIGINT
)

// defaultTimeout bounds every command that does not follow something.
const defaultTimeout = 60 * time.Second

func main() {
	// A command waits for one answer: a second processor would cost more threads
	// than it saves time.
	runtime.GOMAXPROCS(1)
	os.Exit(run(os.Args[1:], here()))
}

// app is one run of the command: its global flags and its surroundings.
type app struct {
	world
	out *bufio.Writer // standard output, flushed at the end

	socket  string
	json    bool
	noColor bool
	timeout seconds       // 0 = not given
	more    time.Duration // than that is waited for now
	help    bool
	version bool

	// progress is that of a command which waits for services.
	progress *progress
}

// world is what is outside of the program.
type world struct {
	stdout, stderr io.Writer
	// terminal says that stdout is one, with so many columns; 0 is unknown.
	terminal bool
	width    int
	getenv   func(string) string
	now      func() time.Time
	zone     *time.Location
}

func here() world {
	out := int(os.Stdout.Fd())
	return world{
		stdout: os.Stdout, stderr: os.Stderr,
		terminal: terminal.Is(out), width: terminal.Columns(out),
		getenv: os.Getenv, now: time.Now, zone: time.Local,
	}
}

// run is the whole program but for its exit.
func run(args []string, w world) int {
	a := &app{world: w, out: bufio.NewWriter(w.stdout)}
	err := a.dispatch(args)
	if flushErr := a.out.Flush(); flushErr != nil && err == nil {
		err = fmt.Errorf("cannot write the output: %w", flushErr)
	}
	return a.report(err)
}

// globals adds the flags that every command has. What was set before the
// command is the default after it.
func (a *app) globals(fs *pflag.FlagSet) {
	fs.StringVar(&a.socket, "socket", a.socket, "`PATH` of the control socket (default $ZINIT_SOCKET, else the system's, else your own)")
	fs.BoolVar(&a.json, "json", a.json, "print data as JSON, errors as JSON on stderr")
	fs.BoolVar(&a.noColor, "no-color", a.noColor, "print without colours, as NO_COLOR in the environment does")
	fs.Var(&a.timeout, "timeout", "how long to wait: 90, 2s, 1m30s (default 60s)")
	fs.BoolVarP(&a.help, "help", "h", a.help, "show help")
	fs.BoolVar(&a.version, "version", a.version, "show the version")
}

func newFlagSet() *pflag.FlagSet {
	fs := pflag.NewFlagSet("zinit", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	return fs
}

// dispatch finds the command among the arguments and runs it.
func (a *app) dispatch(args []string) error {
	global := newFlagSet()
	global.SetInterspersed(false)
	a.globals(global)
	if err := parse(global, args); err != nil {
		return err
	}
	args = global.Args()
	if len(args) > 0 && args[0] == "ctl" {
		if err := parse(global, args[1:]); err != nil {
			return err
		}
		args = global.Args()
	}
	switch {
	case len(args) > 0 && args[0] == completeWord:
		return a.complete(args[1:])
	case a.version:
		fmt.Fprintf(a.out, "zinit %s\n", version.Version)
		return nil
	case len(args) == 0 && a.help:
		overview(a.out)
		return nil
	case len(args) == 0:
		overview(a.stderr)
		return silent(exitUsage)
	case len(args) == 2 && (args[1] == "-h" || args[1] == "--help") && below(args[0]) != nil:
		listCommands(a.out, below(args[0]))
		return nil
	}
	cmd, words, err := find(args)
	if err != nil {
		return err
	}
	own, all := newFlagSet(), newFlagSet()
	do := cmd.setup(own)
	all.SetInterspersed(!cmd.passes)
	a.globals(all)
	all.AddFlagSet(own)
	if err := parse(all, args[words:]); err != nil {
		return usagef("%s: %v", cmd.name, err)
	}
	switch n := all.NArg(); {
	case a.version:
		fmt.Fprintf(a.out, "zinit %s\n", version.Version)
		return nil
	case a.help:
		describe(a.out, cmd)
		return nil
	case n < cmd.min && cmd.max == 1:
		return usagef("%s: it needs one argument: %s", cmd.name, cmd.usage())
	case n < cmd.min:
		return usagef("%s: it needs an argument: %s", cmd.name, cmd.usage())
	case cmd.max >= 0 && n > cmd.max:
		return usagef("%s: unexpected argument %q: %s", cmd.name, all.Arg(cmd.max), cmd.usage())
	}
	return do(a, all.Args())
}

// parse says of an unknown flag which one was probably meant.
func parse(flags *pflag.FlagSet, args []string) error {
	err := flags.Parse(args)
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var known []string
		flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		if near := spec.Nearest(unknown.GetSpecifiedName(), known); near != "" {
			return usagef("%v; did you mean --%s?", err, near)
		}
	}
	if err != nil {
		return usagef("%v", err)
	}
	return nil
}

// find returns the command that args begin with, and of how many words its name
// is.
func find(args []string) (cmd command, words int, err error) {
	name := args[0]
	var names, below []string
	for _, c := range commands() {
		names = append(names, c.name)
		group, rest, ok := strings.Cut(c.name, " ")
		switch {
		case c.name == name:
			return c, 1, nil
		case ok && group == name && len(args) > 1 && rest == args[1]:
			return c, 2, nil
		case ok && group == name:
			below = append(below, rest)
		}
	}
	if below != nil && len(args) == 1 {
		return command{}, 0, usagef("%s: what of it? %s", name, strings.Join(below, ", "))
	}
	if below != nil {
		name += " " + args[1]
	}
	if near := spec.Nearest(name, names); near != "" {
		return command{}, 0, usagef("unknown command %q; did you mean %q?", name, near)
	}
	return command{}, 0, usagef("unknown command %q; see zinit help", name)
}

// limit is the value of --timeout or its default.
func (a *app) limit() time.Duration {
	if a.timeout > 0 {
		return time.Duration(a.timeout)
	}
	return defaultTimeout
}

// findSocket returns the path of the socket of the server.
func (a *app) findSocket() (string, error) {
	socket, tried := paths.Client(a.socket)
	if socket == "" {
		return "", &noSocketError{tried}
	}
	return socket, nil
}

// dial connects to the server.
func (a *app) dial(ctx context.Context) (*client.Client, error) {
	socket, err := a.findSocket()
	if err != nil {
		return nil, err
	}
	return client.Dial(ctx, socket)
}

// dialInTime connects within the timeout, however long the whole may take.
func (a *app) dialInTime(ctx context.Context) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, a.limit())
	defer cancel()
	return a.dial(ctx)
}

// ask runs what is to be asked within the timeout; the first question connects.
func (a *app) ask(f func(context.Context, *client.Client) error) error {
	socket, err := a.findSocket()
	if err != nil {
		return err
	}
	c := client.New(socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), a.limit())
	defer cancel()
	return f(ctx, c)
}

// silent is an error that is only an exit code: all has been said.
type silent int

func (s silent) Error() string { return fmt.Sprintf("exit code %d", int(s)) }

// usageError is a mistake in the command line.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// noSocketError says that no default place has a socket.
type noSocketError struct{ tried []string }

func (e *noSocketError) Error() string {
	return "cannot reach zinit-server: there is no socket at " + strings.Join(e.tried, " or ")
}

// report prints an error and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitDone
	}
	var only silent
	if errors.As(err, &only) {
		return int(only)
	}
	// Whoever read the output has had enough. Go ends the process by SIGPIPE
	// then, unless the parent had that signal ignored.
	if errors.Is(err, syscall.EPIPE) {
		return exitFailed
	}
	kind, message, hint, code := a.explain(err)
	if a.json {
		printJSON(a.stderr, map[string]any{"error": map[string]any{"kind": kind, "message": message}})
		return code
	}
	for i, line := range strings.Split(message, "\n") {
		if i == 0 {
			line = "zinit: " + line
		}
		fmt.Fprintln(a.stderr, clean(line))
	}
	if hint != "" {
		fmt.Fprintln(a.stderr, hint)
	}
	return code
}

// explain maps an error to its kind on the wire, its words and its exit code,
// in this one place.
func (a *app) explain(err error) (kind ipc.ErrorKind, message, hint string, code int) {
	const start = "Start one with: zinit-server --config-dir DIR"
	message = err.Error()
	var (
		usage       *usageError
		scripted    *script.Error
		refused     *ipc.Error
		unreachable *client.Unreachable
		noSocket    *noSocketError
	)
	switch {
	case errors.As(err, &usage):
		return ipc.ErrInvalid, message, "", exitUsage
	case errors.As(err, &scripted):
		kind, message, hint, code = a.explain(scripted.Err)
		return kind, scripted.At(message), hint, code
	case errors.Is(err, script.ErrInterrupted):
		return ipc.ErrFailed, message, "", exitInterrupted
	case errors.As(err, &refused):
		if refused.Nearest != "" && !strings.Contains(message, "did you mean") {
			message += fmt.Sprintf("; did you mean %s?", refused.Nearest)
		}
		for _, p := range refused.Problems {
			message += "\n" + problem(p)
		}
		return refused.Kind, message, "", refusalCode(refused)
	case errors.As(err, &noSocket):
		return ipc.ErrUnavailable, message, start, exitUnreachable
	case errors.As(err, &unreachable) && errors.Is(err, fs.ErrPermission):
		return ipc.ErrDenied, message, "It answers root, its own user and the members of its socket group.", exitDenied
	case errors.Is(err, fs.ErrNotExist) && unreachable != nil, errors.Is(err, syscall.ECONNREFUSED):
		return ipc.ErrUnavailable, message, start, exitUnreachable
	case errors.Is(err, context.DeadlineExceeded):
		message = fmt.Sprintf("timed out after %v", a.limit()+a.more)
		if unreachable != nil {
			message = (&client.Unreachable{Socket: unreachable.Socket, Pid: unreachable.Pid, Err: errors.New(message)}).Error()
		}
		return ipc.ErrTimeout, message, hangs(unreachable), exitTimeout
	case unreachable != nil: // it is there and does not answer
		return ipc.ErrUnavailable, message, hangs(unreachable), exitUnreachable
	case errors.Is(err, client.ErrLost):
		return ipc.ErrUnavailable, message + " before it answered", "", exitFailed
	}
	return ipc.ErrFailed, message, "", exitFailed
}

// hangs says what to do about a server that does not answer.
func hangs(u *client.Unreachable) string {
	if u == nil || u.Pid == 0 {
		return ""
	}
	return fmt.Sprintf("If it stays so, kill -KILL %d: another takes its place, and no service is touched.", u.Pid)
}

func refusalCode(err *ipc.Error) int {
	switch err.Kind {
	case ipc.ErrNotFound:
		return exitNotFound
	case ipc.ErrDenied:
		return exitDenied
	case ipc.ErrTimeout:
		return exitTimeout
	case ipc.ErrUnavailable:
		return exitUnreachable
	case ipc.ErrInvalid:
		// What is wrong with files is not wrong with the command line.
		if len(err.Problems) == 0 {
			return exitUsage
		}
	}
	return exitFailed
}

// seconds is a duration on the command line.
type seconds time.Duration

// String is what help shows as the default: nothing where there is none.
func (s *seconds) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// Type is the placeholder in help.
func (s *seconds) Type() string { return "T" }

// Set is called by pflag.
func (s *seconds) Set(text string) error {
	d, err := parseDuration(text)
	if err != nil {
		return err
	}
	*s = seconds(d)
	return nil
}

// parseDuration reads 90, 2s or 1m30s.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d <= 0 {
		return 0, errors.New("expected a duration above 0 such as 90, 2s or 1m30s")
	}
	return d, nil
}

// oneOf refuses a value of a flag that is none of those known.
func oneOf(flag, value string, known ...string) error {
	if value == "" || slices.Contains(known, value) {
		return nil
	}
	message := fmt.Sprintf("--%s: %q is none of %s", flag, value, strings.Join(known, ", "))
	if near := spec.Nearest(value, known); near != "" {
		message += fmt.Sprintf("; did you mean %s?", near)
	}
	return usagef("%s", message)
}
