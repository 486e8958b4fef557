package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// listFiles sets files to the descriptors of the shell, without opening any.
const listFiles = `
n=0; files=
while [ $n -lt 256 ]; do
	[ -h /proc/$$/fd/$n ] && files="$files $n"
	n=$((n+1))
done
`

// look is a command that describes its own process: what execve gave it.
const look = listFiles + `
cat /proc/self/status
echo "limit: $(grep 'Max open files' /proc/self/limits | tr -s ' ')"
echo "cwd: $(pwd)"
echo "files:$files"
echo "stdin: $(readlink /proc/$$/fd/0)"
echo "session: $(cut -d' ' -f5,6 /proc/$$/stat) $$"
echo "oom: $(cat /proc/self/oom_score_adj)"
echo "nice: $(cut -d' ' -f19 /proc/self/stat)"
echo "env: $(tr '\000' ' ' </proc/$$/environ)"
`

// seen runs look as ordered and returns what it printed, by name.
func seen(t *testing.T, s *super, sp ipc.Spawn) map[string]string {
	t.Helper()
	sp.Argv = []string{"/bin/sh", "-c", look}
	s.spawn(output(sp))
	f := s.next()
	for f.Kind != ipc.KindSpawned {
		if f.Kind == ipc.KindSpawnFailed {
			var m ipc.SpawnFailed
			s.decode(f, &m)
			t.Fatalf("spawn failed: %s", m.Message)
		}
		f = s.next()
	}
	t.Cleanup(f.CloseFds)
	return procStatus(readAll(t, f.Fds[0]))
}

// checkClean checks what every service may rely on.
func checkClean(t *testing.T, what string, got map[string]string) {
	t.Helper()
	const none = "0000000000000000"
	for _, k := range []string{"SigBlk", "SigIgn"} {
		if got[k] != none {
			t.Errorf("%s: %s is %s", what, k, got[k])
		}
	}
	if got["files"] != "0 1 2" {
		t.Errorf("%s: descriptors are %q, want 0 1 2", what, got["files"])
	}
	if got["stdin"] != "/dev/null" {
		t.Errorf("%s: stdin is %s", what, got["stdin"])
	}
	f := strings.Fields(got["session"])
	if len(f) != 3 || f[0] != f[2] || f[1] != f[2] {
		t.Errorf("%s: group, session and pid are %v, want the same", what, f)
	}
	if got["env"] != "A=b PATH=/usr/bin:/bin" {
		t.Errorf("%s: environment is %q", what, got["env"])
	}
}

func cleanSpawn(id ipc.RunID) ipc.Spawn {
	return ipc.Spawn{Run: id, Tag: "look", Env: []string{"A=b", "PATH=/usr/bin:/bin"}, Dir: "/usr"}
}

func TestChildGetsACleanProcess(t *testing.T) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		t.Fatal(err)
	}
	// The dirty start blocks and ignores signals and leaks descriptors, as a
	// careless parent does, and has a soft limit below the hard one.
	dirty := []string{"/usr/bin/python3", "-c", `
import os, signal, sys, resource
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for n in list(range(1, 32)) + list(range(34, 65)):
    if n not in (9, 17, 19): signal.signal(n, signal.SIG_IGN)
os.dup2(0, 7, inheritable=True); os.dup2(0, 200, inheritable=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.umask(0o027)
os.execv(sys.argv[1], sys.argv[1:])`}
	if _, err := exec.LookPath(dirty[0]); err != nil {
		dirty[0] = "python3"
	}
	for _, c := range []struct {
		name  string
		setup setup
		soft  string
		umask string
	}{
		{"clean start", setup{prefix: []string{"/bin/sh", "-c", `umask 022; ulimit -S -n 1000; exec "$@"`, "sh"}}, "1000", "0022"},
		{"dirty start", setup{prefix: dirty}, "512", "0027"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.setup)
			s := w.supervisor()
			for _, path := range []string{"direct", "helper"} {
				sp := cleanSpawn(1)
				if path == "helper" {
					sp.Run, sp.Nice = 2, new(int)
				}
				got := seen(t, s, sp)
				checkClean(t, path, got)
				if want := fmt.Sprintf("Max open files %s %d files", c.soft, lim.Max); got["limit"] != want {
					t.Errorf("%s: limit is %q, want %q", path, got["limit"], want)
				}
				if got["cwd"] != "/usr" || got["Umask"] != c.umask {
					t.Errorf("%s: directory %s, umask %s, want /usr, %s", path, got["cwd"], got["Umask"], c.umask)
				}
			}
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
			if err != nil {
				t.Fatal(err)
			}
			if st := procStatus(string(b)); st["SigBlk"] != "0000000000000000" {
				t.Errorf("the supervisor starts with the signals %s blocked", st["SigBlk"])
			}
		})
	}
}

func TestHelperAppliesEverything(t *testing.T) {
	s := start(t, setup{}).supervisor()
	umask, nice, oom := uint32(0o077), 5, 300
	sp := cleanSpawn(1)
	sp.Umask, sp.Nice, sp.OOMScoreAdj, sp.NoNewPrivs = &umask, &nice, &oom, true
	sp.Rlimits = []ipc.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 300, Hard: 400}, {Resource: unix.RLIMIT_AS, Soft: 1 << 30, Hard: 1 << 30}}
	got := seen(t, s, sp)
	checkClean(t, "all", got)
	for k, want := range map[string]string{
		"Umask": "0077", "nice": "5", "oom": "300", "NoNewPrivs": "1", "limit": "Max open files 300 400 files",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
}

func TestRefusedLimitIsNamed(t *testing.T) {
	s := start(t, setup{}).supervisor()
	for i, c := range []struct {
		change func(*ipc.Spawn)
		stage  string
		says   string
	}{
		{func(sp *ipc.Spawn) { sp.Rlimits = []ipc.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: 2, Hard: 1}} },
			"nofile", "nofile to 1: invalid argument (zinit's own hard limit is "},
		{func(sp *ipc.Spawn) {
			sp.Rlimits = []ipc.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}}
		}, "nofile", "nofile to unlimited: operation not permitted (/proc/sys/fs/nr_open allows "},
		{func(sp *ipc.Spawn) { sp.Rlimits = []ipc.Rlimit{{Resource: 99, Soft: 2, Hard: 2}} },
			"resource limit 99", "resource limit 99 to 2: invalid argument"},
		{func(sp *ipc.Spawn) { n := 5000; sp.OOMScoreAdj = &n }, "oom_score_adj", "oom_score_adj to 5000: "},
		{func(sp *ipc.Spawn) { sp.AmbientCaps = []int{63} }, "capabilities", "capabilities: "},
	} {
		sp := shell(ipc.RunID(i+1), "true")
		c.change(&sp)
		s.spawn(sp)
		if m := s.failed(sp.Run); m.Stage != c.stage || m.Errno == 0 || !strings.HasPrefix(m.Message, "cannot set "+c.says) {
			t.Errorf("%s: %+v", c.stage, m)
		}
	}
	s.spawn(shell(1, "exit 5"))
	if ex := s.exited(1); ex.Code != 5 {
		t.Errorf("after a failure run 1 ended with %+v", ex)
	}
}

func TestIdentity(t *testing.T) {
	s := start(t, setup{}).supervisor()
	if os.Getuid() != 0 {
		sp := shell(1, "true")
		sp.Cred = &ipc.Cred{UID: 1, GID: 1}
		s.spawn(sp)
		if m := s.failed(1); m.Stage != ipc.StageCred || m.Errno != int(unix.EPERM) {
			t.Errorf("an ordinary user became another: %+v", m)
		}
		sp = cleanSpawn(2)
		sp.Cred = &ipc.Cred{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
		groups, _ := os.Getgroups()
		for _, g := range groups {
			sp.Cred.Groups = append(sp.Cred.Groups, uint32(g))
		}
		checkClean(t, "own identity", seen(t, s, sp))
		return
	}
	for _, path := range []string{"direct", "helper"} {
		sp := cleanSpawn(1)
		sp.Cred = &ipc.Cred{UID: 12345, GID: 23456, Groups: []uint32{23456, 34567}}
		if path == "helper" {
			const netBindService = 10
			sp.Run, sp.AmbientCaps = 2, []int{netBindService}
		}
		got := seen(t, s, sp)
		checkClean(t, path, got)
		if got["Uid"] != "12345\t12345\t12345\t12345" || got["Gid"] != "23456\t23456\t23456\t23456" || got["Groups"] != "23456 34567" {
			t.Errorf("%s: uid %q, gid %q, groups %q", path, got["Uid"], got["Gid"], got["Groups"])
		}
		want := "0000000000000000"
		if path == "helper" {
			want = "0000000000000400"
		}
		if got["CapEff"] != want || got["CapAmb"] != want {
			t.Errorf("%s: capabilities are %s, ambient %s, want %s", path, got["CapEff"], got["CapAmb"], want)
		}
	}
	// A directory that only the service's user may enter, and one it may not.
	dir := t.TempDir()
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o755)
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	sp := shell(3, "true")
	sp.Dir, sp.Cred = closed, &ipc.Cred{UID: 12345, GID: 12345}
	s.spawn(sp)
	if m := s.failed(3); m.Stage != ipc.StageDir || m.Path != closed || m.Message != "cannot enter directory "+closed+": permission denied (as user 12345, group 12345)" {
		t.Errorf("closed directory: %+v", m)
	}
	// A search goes on after a directory that this user may not enter, and names
	// what it has found there only if there is nothing else.
	for file, text := range map[string]string{"true": "#!/bin/false\n", "only-here": "#!/bin/true\n"} {
		if err := os.WriteFile(filepath.Join(closed, file), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	search := ipc.Spawn{Run: 5, Tag: "t", Argv: []string{"true"}, Cred: &ipc.Cred{UID: 12345, GID: 12345, Name: "app"},
		Env: []string{"PATH=" + closed + ":/usr/bin:/bin"}}
	s.spawn(search)
	if ex := s.exited(5); ex.Code != 0 {
		t.Errorf("search: %+v", ex)
	}
	search.Run, search.Argv = 6, []string{"only-here"}
	s.spawn(search)
	if m := s.failed(6); m.Path != closed+"/only-here" || !strings.HasPrefix(m.Message, "cannot execute "+m.Path+": permission denied") ||
		!strings.HasSuffix(m.Message, " (as user app)") {
		t.Errorf("search: %+v", m)
	}
	if err := os.Chown(closed, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	sp.Run = 4
	s.spawn(sp)
	if ex := s.exited(4); ex.Code != 0 {
		t.Errorf("own directory: %+v", ex)
	}
}

func TestListenDescriptors(t *testing.T) {
	s := start(t, setup{}).supervisor()
	f, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.send(ipc.KindStore, ipc.Store{Name: "listen/a"}, int(f.Fd()))
	s.send(ipc.KindStore, ipc.Store{Name: "listen/b"}, int(f.Fd()))
	sp := output(shell(1, listFiles+`echo "$LISTEN_FDS $LISTEN_FDNAMES $(( LISTEN_PID == $$ ))$files $(readlink /proc/$$/fd/3)"`))
	sp.Env = append(sp.Env, "LISTEN_PID=1", "LISTEN_FDS=9")
	sp.Fds = []ipc.FdUse{{Name: "listen/a", Fd: 3}, {Name: "listen/b", Fd: 4}}
	sp.ListenNames = []string{"a", "b"}
	s.spawn(sp)
	_, fds := s.spawned(1)
	if got := readAll(t, fds[0]); got != "2 a:b 1 0 1 2 3 4 /\n" {
		t.Errorf("the service saw %q", got)
	}
}

func TestDescriptorsComeAtTheirNumbers(t *testing.T) {
	s := start(t, setup{}).supervisor()
	sp := shell(1, "echo out; echo err >&2; "+listFiles+" echo seven$files >&7")
	sp.Pipes = []ipc.Pipe{{Name: "o", Fd: 1}, {Name: "e", Fd: 2}, {Name: "s", Fd: 7}}
	s.spawn(sp)
	m, fds := s.spawned(1)
	if !slices.Equal(m.Pipes, []string{"o", "e", "s"}) {
		t.Fatalf("pipes are %q", m.Pipes)
	}
	for i, want := range []string{"out\n", "err\n", "seven 0 1 2 7\n"} {
		if got := readAll(t, fds[i]); got != want {
			t.Errorf("pipe %s gave %q, want %q", m.Pipes[i], got, want)
		}
	}
}

func TestPathLookup(t *testing.T) {
	s := start(t, setup{}).supervisor()
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/tool": 0o644, "b/tool": 0o755, "c/denied": 0o644} {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte("#!/bin/sh\nexit 42\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := "PATH=" + dir + "/none:" + dir + "/a:" + dir + "/b:" + dir + "/c"
	s.spawn(ipc.Spawn{Run: 1, Argv: []string{"tool"}, Env: []string{path}})
	if ex := s.exited(1); ex.Code != 42 {
		t.Errorf("tool ended with %+v", ex)
	}
	s.spawn(ipc.Spawn{Run: 2, Argv: []string{"denied"}, Env: []string{path}})
	if m := s.failed(2); m.Errno != int(unix.EACCES) || m.Path != dir+"/c/denied" {
		t.Errorf("denied: %+v", m)
	}
	s.spawn(ipc.Spawn{Run: 3, Argv: []string{"b/tool"}, Dir: dir})
	if ex := s.exited(3); ex.Code != 42 {
		t.Errorf("relative to the directory: %+v", ex)
	}
	s.spawn(ipc.Spawn{Run: 4, Argv: []string{"sh", "-c", "exit 43"}})
	if ex := s.exited(4); ex.Code != 43 {
		t.Errorf("default path: %+v", ex)
	}
}

func TestSpawnFailuresSayWhatIsWrong(t *testing.T) {
	s := start(t, setup{}).supervisor()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	self, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	foreign := slices.Clone(self)
	foreign[18], foreign[19] = 22, 0 // s390x
	loaderless := strings.Replace(string(self), "/lib64/ld-linux", "/lib64/xx-linux", 1)
	if runtime.GOARCH == "arm64" {
		loaderless = strings.Replace(string(self), "/lib/ld-linux", "/lib/xx-linux", 1)
	}
	busy := file("busy", string(self), 0o755)
	writer, err := os.OpenFile(busy, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	loop := filepath.Join(dir, "loop")
	os.Symlink(loop, loop)

	for i, c := range []struct {
		path, dir string
		stage     string
		errno     syscall.Errno
		says      string
	}{
		{dir + "/none", "", ipc.StageExec, unix.ENOENT, "cannot execute " + dir + "/none: no such file or directory"},
		{"no-such-tool", "", ipc.StageExec, unix.ENOENT, "cannot execute no-such-tool: it is in no directory of PATH"},
		{file("script", "#!/usr/bin/pythn -u\n", 0o755), "", ipc.StageExec, unix.ENOENT, dir + "/script: its interpreter /usr/bin/pythn does not exist"},
		{file("windows", "#!/bin/sh\r\necho\r\n", 0o755), "", ipc.StageExec, unix.ENOENT,
			dir + `/windows: its interpreter "/bin/sh\r" does not exist: the file has Windows line ends`},
		{file("loaderless", loaderless, 0o755), "", ipc.StageExec, unix.ENOENT, dir + "/loaderless: its loader "},
		{dir, "", ipc.StageExec, unix.EACCES, "cannot execute " + dir + ": it is a directory"},
		{file("plain", "#!/bin/sh\n", 0o640), "", ipc.StageExec, unix.EACCES, "cannot execute " + dir + "/plain: it has no execute permission (mode 0640)"},
		{file("foreign", string(foreign), 0o755), "", ipc.StageExec, unix.ENOEXEC, "cannot execute " + dir + "/foreign: exec format error: it is built for s390x, this machine is " + runtime.GOARCH},
		{file("text", "echo hello\n", 0o755), "", ipc.StageExec, unix.ENOEXEC, "cannot execute " + dir + "/text: exec format error: a script needs a first line like #!/bin/sh"},
		{busy, "", ipc.StageExec, unix.ETXTBSY, "cannot execute " + busy + ": text file busy"},
		{loop, "", ipc.StageExec, unix.ELOOP, "cannot execute " + loop + ": too many levels of symbolic links"},
		{"/bin/sh", dir + "/none", ipc.StageDir, unix.ENOENT, "cannot enter directory " + dir + "/none: no such file or directory"},
		{"/bin/sh", busy, ipc.StageDir, unix.ENOTDIR, "cannot enter directory " + busy + ": not a directory"},
		{"/bin/sh/x", "", ipc.StageExec, unix.ENOTDIR, "cannot execute /bin/sh/x: not a directory"},
	} {
		for n, nice := range []*int{nil, new(int)} { // direct, and through the helper
			id := ipc.RunID(2*i + n + 1)
			s.spawn(ipc.Spawn{Run: id, Tag: "t", Argv: []string{c.path}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: c.dir, Nice: nice})
			m := s.failed(id)
			if m.Stage != c.stage || m.Errno != int(c.errno) || !strings.HasPrefix(m.Message, c.says) {
				t.Errorf("%s in %q: %+v, want %s, %d, %s", c.path, c.dir, m, c.stage, c.errno, c.says)
			}
		}
	}
	s.spawn(ipc.Spawn{Run: 99, Argv: []string{"/bin/true", strings.Repeat("x", 300<<10)}})
	if m := s.failed(99); m.Errno != int(unix.E2BIG) {
		t.Errorf("long argument: %+v", m)
	}
}

// TestChildrenHaveTheTimerSlackOfBefore: pid1 lets its own timers be late, which its
// children, forked either way, would inherit, and a pid1 that replaces it would take
// for what zinit was started with.
func TestChildrenHaveTheTimerSlackOfBefore(t *testing.T) {
	const file = "/proc/self/timerslack_ns"
	before, err := exec.Command("cat", file).Output() // of another thread only root may read it
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, setup{})
	s := w.supervisor()
	var id ipc.RunID
	check := func(when string) {
		umask := uint32(0o022)
		for _, mask := range []*uint32{nil, &umask} { // which takes the helper
			id++
			sp := output(shell(id, "exec cat "+file))
			sp.Umask = mask
			s.spawn(sp)
			_, fds := s.spawned(id)
			if got := readAll(t, fds[0]); got != string(before) {
				t.Errorf("%s run %d has a slack of %s ns, want %s", when, id, strings.TrimSpace(got), before)
			}
		}
	}
	check("at first")
	w.change()
	check("after a change")
}
