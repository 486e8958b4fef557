package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// storyCommands are what stories have beside the commands of testscript.
func storyCommands() map[string]func(*testscript.TestScript, bool, []string) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"zinit":       storyZinit,
		"code":        storyCode,
		"within":      storyWithin,
		"waitfor":     storyWaitfor,
		"zinit-up":    storyUp,
		"zinit-down":  storyDown,
		"zinit-ended": storyEnded,
		"crash":       storyCrash,
		"pids":        storyPids,
		"keeper":      storyKeeper,
		"generate":    storyGenerate,
		"ports":       storyPorts,
		"vm-up":       vmUp,
		"vm-debian":   vmDebian,
		"vm-disk":     vmDisk,
		"vm-console":  vmConsole,
		"vm-type":     vmType,
		"vm-key":      vmKey,
		"vm-ended":    vmEnded,
	}
	for name := range storyChecks {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if err := check(ts, neg, name, args); err != nil {
				ts.Fatalf("%v", err)
			}
		}
	}
	return commands
}

// storyChecks look at something once: as commands they have to hold at once,
// after waitfor within the patience of the story.
var storyChecks = map[string]func(ts *testscript.TestScript, args []string) error{
	"json":   checkJSON,
	"output": checkOutput,
	"file":   checkFile,
	"alive":  checkAlive,
	"halted": checkHalted,
	"procs":  checkProcs,
	"cgroup": checkCgroup,
	"vm":     checkVM,
}

func check(ts *testscript.TestScript, neg bool, name string, args []string) error {
	err := storyChecks[name](ts, args)
	switch {
	case errors.Is(err, errUsage):
		ts.Fatalf("%s: wrong arguments, see testdata/README.md", name)
	case neg && err == nil:
		return fmt.Errorf("%s %s: it does, and should not", name, strings.Join(args, " "))
	case neg:
		return nil
	}
	return err
}

var errUsage = errors.New("usage")

func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// exitCode runs a command; -1 says that it could not be run.
func exitCode(ts *testscript.TestScript, command []string) int {
	err := ts.Exec(command[0], command[1:]...)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	ts.Fatalf("cannot run %s: %v", command[0], err)
	return -1
}

// storyZinit is exec zinit.
func storyZinit(ts *testscript.TestScript, neg bool, args []string) {
	code := exitCode(ts, append([]string{"zinit"}, args...))
	switch {
	case neg && code == 0:
		ts.Fatalf("zinit %s: it should fail", strings.Join(args, " "))
	case !neg && code != 0:
		ts.Fatalf("zinit %s: exit code %d", strings.Join(args, " "), code)
	}
}

// storyCode is exec with the exit code that is expected.
func storyCode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) > 1 && !neg, "code N COMMAND [ARG...]")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := exitCode(ts, args[1:]); got != want {
		ts.Fatalf("%s: exit code %d, expected %d", strings.Join(args[1:], " "), got, want)
	}
}

// storyWithin is exec with a bound for its time.
func storyWithin(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) > 1 && !neg, "within DURATION COMMAND [ARG...]")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	start := time.Now()
	code := exitCode(ts, args[1:])
	if took := time.Since(start); took > limit {
		ts.Fatalf("%s: took %s, expected at most %s", strings.Join(args[1:], " "), took, limit)
	}
	if code != 0 {
		ts.Fatalf("%s: exit code %d", strings.Join(args[1:], " "), code)
	}
}

func storyWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 && args[0] == "!" {
		neg, args = !neg, args[1:]
	}
	need(ts, len(args) > 1 && storyChecks[args[0]] != nil, "waitfor [!] CHECK ARG...")
	limit := patience
	if args[0] == "vm" {
		limit = vmPatience
	}
	if err := eventually(limit, func() error { return check(ts, neg, args[0], args[1:]) }); err != nil {
		ts.Fatalf("not within %s: %v", limit, err)
	}
}

// programCmd makes a command as ts.Exec would, without touching stdout and stderr
// of the story.
func programCmd(ts *testscript.TestScript, name string, args ...string) *exec.Cmd {
	path := name
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if file := filepath.Join(dir, name); !strings.Contains(path, "/") {
			if info, err := os.Stat(file); err == nil && info.Mode()&0o111 != 0 {
				path = file
			}
		}
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"WORK", "PATH", "HOME", "TMPDIR", "ZINIT_STORY", "ZINIT_SOCKET", "ZINIT_CONFIG_DIR", "ZINIT_LOG_LEVEL", "ZINIT_CONTAINER", "ZINIT_FAILPOINTS", "ZINIT_FAILPOINT_MARK", "GORACE"} {
		if value := ts.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// storyUp starts zinit on $WORK/services and returns when it answers.
func storyUp(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg, "zinit-up [zinit-server|zinit-pid1|svc launch ...] [FLAG...]")
	argv := []string{"zinit-server"}
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		argv, args = args[:1], args[1:]
	}
	argv = append(argv, args...)
	cmd := programCmd(ts, argv[0], argv[1:]...)
	var err error
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
	cmd.Stdout, err = os.OpenFile(ts.MkAbs("zinit.out"), flags, 0o644)
	ts.Check(err)
	defer cmd.Stdout.(*os.File).Close()
	cmd.Stderr, err = os.OpenFile(ts.MkAbs("zinit.log"), flags, 0o644)
	ts.Check(err)
	defer cmd.Stderr.(*os.File).Close()
	ts.Check(cmd.Start())
	k := &keeper{cmd: cmd, ended: make(chan struct{})}
	s := stageOf(ts)
	s.keepers = append(s.keepers, k)
	go func() {
		cmd.Wait()
		close(k.ended)
	}()
	if err := eventually(patience, func() error {
		c, err := net.Dial("unix", ts.Getenv("ZINIT_SOCKET"))
		if err == nil {
			return c.Close()
		}
		if k.done() {
			return nil
		}
		return err
	}); err != nil {
		ts.Fatalf("%s does not open its socket: %v", argv[0], err)
	}
	if k.done() {
		ts.Fatalf("%s has ended: %v", argv[0], cmd.ProcessState)
	}
}

// last is the zinit that the story started last.
func (s *stage) last(ts *testscript.TestScript) *keeper {
	if len(s.keepers) == 0 {
		ts.Fatalf("no zinit-up before this")
	}
	return s.keepers[len(s.keepers)-1]
}

// storyDown ends zinit by a signal to its pid1.
func storyDown(ts *testscript.TestScript, neg bool, args []string) {
	sig := "TERM"
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		sig, args = args[0][1:], args[1:]
	}
	k := stageOf(ts).last(ts)
	ts.Check(k.cmd.Process.Signal(storySignal(ts, sig)))
	storyEnded(ts, neg, args)
}

// storyEnded waits for the end of zinit and compares its exit code.
func storyEnded(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) <= 1, "zinit-ended [CODE]")
	want := 0
	if len(args) == 1 {
		var err error
		want, err = strconv.Atoi(args[0])
		ts.Check(err)
	}
	s := stageOf(ts)
	k := s.last(ts)
	select {
	case <-k.ended:
	case <-time.After(patience):
		ts.Fatalf("zinit has not ended within %s", patience)
	}
	status := k.cmd.ProcessState.Sys().(syscall.WaitStatus)
	got := status.ExitStatus()
	if status.Signaled() {
		got = 128 + int(status.Signal())
	}
	if got != want {
		ts.Fatalf("zinit ended with exit code %d, expected %d", got, want)
	}
}

func storySignal(ts *testscript.TestScript, name string) syscall.Signal {
	signals := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
		"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
	}
	sig, ok := signals[name]
	if !ok {
		ts.Fatalf("unknown signal %q", name)
	}
	return sig
}

// supervisor returns the pid of the zinit-server of the last zinit.
func (s *stage) supervisor(ts *testscript.TestScript) (int, error) {
	pid1 := s.last(ts).cmd.Process.Pid
	for _, p := range allProcesses() {
		if p.parent == pid1 && strings.HasPrefix(p.name, "zinit-server") && p.state != 'Z' {
			return p.pid, nil
		}
	}
	return 0, fmt.Errorf("zinit-pid1 (pid %d) has no zinit-server", pid1)
}

// storyCrash kills the supervisor so often, each time as soon as there is a
// new one and it has lived for a while that differs from time to time.
func storyCrash(ts *testscript.TestScript, neg bool, args []string) {
	times := 1
	if len(args) > 0 {
		var err error
		times, err = strconv.Atoi(args[0])
		ts.Check(err)
	}
	s := stageOf(ts)
	for i := range times {
		var pid int
		err := eventually(patience, func() (err error) {
			pid, err = s.supervisor(ts)
			if s.last(ts).done() {
				return nil
			}
			return err
		})
		ts.Check(err)
		if pid == 0 {
			return // zinit has ended
		}
		if i > 0 {
			// Before it has said hello, while it takes over, and when it works.
			time.Sleep([...]time.Duration{60, 1, 15, 100, 5, 35}[i%6] * time.Millisecond)
		}
		if syscall.Kill(pid, syscall.SIGKILL) == syscall.ESRCH {
			continue // the end of zinit was quicker
		}
		if err := eventually(patience, func() error {
			if p, ok := processOf(pid); ok && !p.gone() {
				return fmt.Errorf("zinit-server %d is still there", pid)
			}
			return nil
		}); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// storyKeeper puts the pid of zinit-pid1 and of zinit-server into variables.
func storyKeeper(ts *testscript.TestScript, neg bool, args []string) {
	s := stageOf(ts)
	server, err := s.supervisor(ts)
	ts.Check(err)
	ts.Setenv("PID1", strconv.Itoa(s.last(ts).cmd.Process.Pid))
	ts.Setenv("SERVER", strconv.Itoa(server))
}

// storyPids writes the names and pids of all running services to a file.
func storyPids(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 1 && !neg, "pids FILE")
	services, err := zinitJSON(ts, "list")
	ts.Check(err)
	var lines []string
	for _, s := range services.([]any) {
		s := s.(map[string]any)
		if s["pid"] != nil {
			lines = append(lines, fmt.Sprintf("%s %v\n", s["name"], s["pid"]))
		}
	}
	sort.Strings(lines)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "")), 0o644))
}

// storyGenerate writes N copies of a file, with % replaced by 0001 and so on
// in its name and its content.
func storyGenerate(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 3 && !neg, "generate N TEMPLATE FILE%")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	template := ts.ReadFile(args[1])
	for i := 1; i <= n; i++ {
		number := fmt.Sprintf("%04d", i)
		file := ts.MkAbs(strings.ReplaceAll(args[2], "%", number))
		ts.Check(os.WriteFile(file, []byte(strings.ReplaceAll(template, "%", number)), 0o644))
	}
}

// zinitJSON runs zinit ARGS --json.
func zinitJSON(ts *testscript.TestScript, args ...string) (any, error) {
	cmd := programCmd(ts, "zinit", append(args, "--json")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("zinit %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, fmt.Errorf("zinit %s: %w", strings.Join(args, " "), err)
	}
	return v, nil
}

// checkJSON compares a field of a service, or puts it into a variable:
//
//	json NAME.FIELD... VALUE    json -env VAR NAME.FIELD...
//
// An absent field is "-". The name "zinit" is the answer without a name.
func checkJSON(ts *testscript.TestScript, args []string) error {
	variable := ""
	if len(args) == 3 && args[0] == "-env" {
		variable, args = args[1], args[2:]
	} else if len(args) != 2 {
		return errUsage
	}
	name, path, _ := strings.Cut(args[0], ".")
	query := []string{"status", name}
	if name == "zinit" {
		query = query[:1]
	}
	v, err := zinitJSON(ts, query...)
	if err != nil {
		return err
	}
	if list, ok := v.([]any); ok && len(list) == 1 {
		v = list[0]
	}
	got := "-"
	for _, key := range strings.Split(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[key]
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i < len(in) {
				v = in[i]
			} else {
				v = nil
			}
		default:
			v = nil
		}
	}
	switch v := v.(type) {
	case nil:
	case string:
		got = v
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		got = string(b)
	}
	if variable != "" {
		ts.Setenv(variable, got)
		return nil
	}
	if got != args[1] {
		return fmt.Errorf("%s is %s, expected %s", args[0], got, args[1])
	}
	return nil
}

// checkOutput runs a command and looks for a pattern in what it prints.
func checkOutput(ts *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	out, _ := programCmd(ts, args[1], args[2:]...).CombinedOutput()
	if !pattern.Match(out) {
		return fmt.Errorf("%s prints nothing like %q but:\n%s", strings.Join(args[1:], " "), args[0], out)
	}
	return nil
}

// checkFile looks for a pattern in a file, -count=N for so many matches.
func checkFile(ts *testscript.TestScript, args []string) error {
	count := -1
	if len(args) == 3 {
		n, err := strconv.Atoi(strings.TrimPrefix(args[0], "-count="))
		if err != nil {
			return errUsage
		}
		count, args = n, args[1:]
	}
	if len(args) != 2 {
		return errUsage
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	text, err := os.ReadFile(ts.MkAbs(args[1]))
	if err != nil {
		return err
	}
	n := len(pattern.FindAll(text, -1))
	if count >= 0 && n != count || count < 0 && n == 0 {
		return fmt.Errorf("%s has %d times %q:\n%s", args[1], n, args[0], text)
	}
	return nil
}

// checkHalted looks whether no thread of a process runs any more: SIGSTOP has been
// sent before each of them stands still.
func checkHalted(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	threads, _ := filepath.Glob("/proc/" + args[0] + "/task/*/status")
	for _, file := range threads {
		if text, err := os.ReadFile(file); err == nil && !strings.Contains(string(text), "\nState:\tT") {
			return fmt.Errorf("pid %s has a thread that runs", args[0])
		}
	}
	if len(threads) == 0 {
		return fmt.Errorf("there is no process %s", args[0])
	}
	return nil
}

// checkAlive says whether a process is there and no zombie.
func checkAlive(ts *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		ts.Check(err)
		if p, ok := processOf(pid); !ok || p.gone() {
			return fmt.Errorf("there is no process %d", pid)
		}
	}
	return nil
}

// checkProcs counts the processes of the story by their command lines.
func checkProcs(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	var found []string
	for _, p := range stageOf(ts).own() {
		if pattern.MatchString(p.command()) {
			found = append(found, p.String())
		}
	}
	if len(found) != want {
		return fmt.Errorf("there are %d processes like %q, expected %d:\n%s", len(found), args[1], want, strings.Join(found, "\n"))
	}
	return nil
}
