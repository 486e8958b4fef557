package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// End-to-end stories: ../testdata/*.txtar run the real programs, up to four
// stories at a time. testdata/README.md says what a story may use.
//
//	go test ./ctl -run 'TestStories/^start-order$' -v
//
// ZINIT_TEST_BIN is a directory with the programs, for a test binary that runs
// where nothing can be built; else they are built here. ZINIT_TEST_RACE=1
// builds all but zinit with the race detector.

// atOnce bounds the stories that run at the same time: they mostly wait, and
// more would only wait for each other.
const atOnce = 4

// patience is how long anything in a story may take before it has failed. It
// is only ever spent on failure.
const patience = 30 * time.Second

func TestStories(t *testing.T) {
	root := shortTempDir(t)
	bin := programs(t, root)
	s := &stories{T: t, limit: make(chan struct{}, atOnce)}
	testscript.RunT(s, testscript.Params{
		Dir:                 filepath.Join("..", "testdata"),
		WorkdirRoot:         root,
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return newStage(env, bin, root) },
		Cmds:                storyCommands(),
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Getuid() == 0, nil
			case "cgroups":
				return ownCgroup() != "", nil
			case "vm":
				return vmsPossible(), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
	s.running.Wait()
}

// stories runs each script on a goroutine of its own: t.Parallel would bound
// them by the number of processors.
type stories struct {
	*testing.T
	limit   chan struct{}
	running sync.WaitGroup
}

func (s *stories) Parallel()     {}
func (s *stories) Verbose() bool { return testing.Verbose() }

func (s *stories) Run(name string, f func(testscript.T)) {
	s.running.Go(func() {
		s.limit <- struct{}{}
		defer func() { <-s.limit }()
		s.T.Run(name, func(t *testing.T) { f(&stories{T: t}) })
	})
}

// shortTempDir is like t.TempDir with a path that leaves room for sockets: one
// of those ends at 107 bytes. Services of other users may enter it.
func shortTempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "z")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// testServer and testKeeper are zinit-server and zinit-pid1 of another version,
// 9.9.9, and with failpoints.
const (
	testServer = "zinit-server-test"
	testKeeper = "zinit-pid1-test"
)

// programs returns a directory with the programs of zinit, those for tests, and
// with svc, the service of the stories, which is this test binary.
func programs(t *testing.T, root string) string {
	bin := filepath.Join(root, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{"zinit": "ctl", "zinit-server": "supervisord", "zinit-pid1": "pid1", "zinit-healthd": "healthd", "zinit-proxyd": "proxyd", testServer: "supervisord", testKeeper: "pid1"}
	from := map[string]string{"svc": self}
	if prebuilt := os.Getenv("ZINIT_TEST_BIN"); prebuilt != "" {
		for program := range programs {
			from[program] = filepath.Join(prebuilt, program)
		}
	} else {
		for program, folder := range programs {
			build := exec.Command("go", "build", "-o", filepath.Join(bin, program), "../"+folder)
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if program != "zinit" && os.Getenv("ZINIT_TEST_RACE") != "" {
				build.Args = append(build.Args[:2:2], append([]string{"-race"}, build.Args[2:]...)...)
				build.Env = append(os.Environ(), "CGO_ENABLED=1")
			}
			if program == testServer || program == testKeeper {
				build.Args = append(build.Args[:2:2], append([]string{"-tags", "failpoint",
					"-ldflags", "-X github.com/threefoldtech/zinit/common/version.Version=9.9.9"}, build.Args[2:]...)...)
			}
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("cannot build %s: %v\n%s", program, err, out)
			}
		}
	}
	for name, file := range from {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

// stage is where one story is played: its directory and its processes.
type stage struct {
	// mark is an environment variable that every process of the story is given,
	// and work the directory in which they begin.
	mark    string
	work    string
	keepers []*keeper
	// runtime is the directory of zinit where the story does not choose one.
	runtime string
	vm      *vm
	bin     string
}

// keeper is a zinit that the story has started, by the process that is or
// becomes its pid1.
type keeper struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended, and cmd.ProcessState is set
}

type stageKey struct{}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func newStage(env *testscript.Env, bin, root string) error {
	sockets, err := os.MkdirTemp(root, "")
	if err != nil {
		return err
	}
	for _, dir := range []string{env.WorkDir, sockets} {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	s := &stage{mark: "ZINIT_STORY=" + sockets, work: env.WorkDir, runtime: sockets + "/z", bin: bin}
	env.Values[stageKey{}] = s
	env.Vars = append(env.Vars, s.mark,
		"GORACE=atexit_sleep_ms=0", // a program with the race detector ends as fast as one without
		"PATH="+bin+":"+os.Getenv("PATH"),
		"HOME="+env.WorkDir,
		"ZINIT_SOCKET="+sockets+"/z.sock",
		"ZINIT_CONFIG_DIR="+env.WorkDir+"/services",
		"ZINIT_FAILPOINT_MARK="+env.WorkDir+"/hit")
	if err := os.MkdirAll(filepath.Join(env.WorkDir, "services"), 0o755); err != nil {
		return err
	}
	env.Defer(func() { s.close(env.T().(testing.TB), env.WorkDir) })
	return nil
}

// close ends what the story has started, and fails it if anything is left
// over that zinit should have ended or reaped.
func (s *stage) close(t testing.TB, work string) {
	for _, k := range s.keepers {
		if k.done() {
			continue
		}
		if z := s.zombies(k.cmd.Process.Pid); !t.Failed() && len(z) > 0 {
			t.Errorf("zinit-pid1 does not reap its children:\n%s", strings.Join(z, "\n"))
		}
		k.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-k.ended:
		case <-time.After(patience):
			t.Errorf("zinit does not end %s after SIGTERM; what there is:\n%s", patience, strings.Join(s.processes(), "\n"))
			k.cmd.Process.Kill()
			<-k.ended
		}
	}
	if s.vm != nil {
		s.vm.end(t)
	}
	if left := s.cgroups(); len(left) > 0 && !t.Failed() {
		t.Errorf("cgroups are left over when zinit has ended:\n%s", strings.Join(left, "\n"))
	}
	if left := s.processes(); len(left) > 0 {
		if !t.Failed() {
			t.Errorf("processes are left over when zinit has ended:\n%s", strings.Join(left, "\n"))
		}
		s.killAll()
	}
	if t.Failed() {
		for _, dir := range slices.Backward(s.cgroups()) { // those below first
			os.Remove(dir)
		}
		if log, err := os.ReadFile(filepath.Join(work, "zinit.log")); err == nil {
			t.Logf("zinit.log:\n%s", log)
		}
	}
}

func (k *keeper) done() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// zombies lists the children of a process that stay dead and unreaped.
func (s *stage) zombies(parent int) []string {
	var list []string
	eventually(5*time.Second, func() error {
		list = nil
		for _, p := range allProcesses() {
			if p.parent == parent && p.state == 'Z' {
				list = append(list, p.String())
			}
		}
		if len(list) > 0 {
			return fmt.Errorf("zombies")
		}
		return nil
	})
	return list
}

// own returns the living processes of the story.
func (s *stage) own() []procEntry {
	var list []procEntry
	for _, p := range allProcesses() {
		if p.state != 'Z' && s.has(p) {
			list = append(list, p)
		}
	}
	return list
}

// has says whether a process belongs to the story. Some servers, such as Redis,
// write over their environment what ps(1) is to show of them: these are known by
// their directory.
func (s *stage) has(p procEntry) bool {
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
	if strings.Contains(string(environ), "=") {
		return slices.Contains(strings.Split(string(environ), "\x00"), s.mark)
	}
	dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid))
	return s.work != "" && strings.HasPrefix(dir+"/", s.work+"/")
}

func (s *stage) processes() []string {
	var list []string
	for _, p := range s.own() {
		list = append(list, p.String())
	}
	return list
}

// killAll ends all processes of the story, also those that are made meanwhile.
func (s *stage) killAll() {
	for own := s.own(); len(own) > 0; own = s.own() {
		for _, p := range own {
			syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// procEntry is a line of the process table (proc(5)).
type procEntry struct {
	pid, parent, group, session int
	state                       byte
	name                        string
}

func (p procEntry) String() string {
	return fmt.Sprintf("pid %d, parent %d, group %d, session %d, state %c: %s", p.pid, p.parent, p.group, p.session, p.state, p.command())
}

// command is the command line, or the name where there is none.
func (p procEntry) command() string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
	if len(b) == 0 {
		return p.name
	}
	return strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
}

// gone says that nothing is left of a process but its exit status. The first
// thread of one is a zombie already while others still hold its files.
func (p procEntry) gone() bool {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	return p.state == 'Z' && (err != nil || len(threads) <= 1)
}

func allProcesses() []procEntry {
	var list []procEntry
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := processOf(pid); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

func processOf(pid int) (procEntry, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	text := string(b)
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if err != nil || open < 0 || end < open {
		return procEntry{}, false
	}
	p := procEntry{pid: pid, name: text[open+1 : end]}
	_, err = fmt.Sscanf(text[end+1:], " %c %d %d %d", &p.state, &p.parent, &p.group, &p.session)
	return p, err == nil
}

// eventually repeats an attempt until it succeeds, and returns its last error
// when the time is over.
func eventually(limit time.Duration, attempt func() error) error {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := attempt()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause) // between two looks at what sends no event
	}
}
