package paths

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// world is a system below a temporary directory, with the directories that a
// running machine has.
func world(t *testing.T, goos string, env map[string]string) (s system, root string) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"run", "shm", "tmp", "home", "xdg"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return system{
		goos: goos,
		uid:  os.Getuid(),
		getenv: func(key string) string {
			return strings.ReplaceAll(env[key], "ROOT", root)
		},
		etc: "/etc/zinit",
		run: filepath.Join(root, "run"), shm: filepath.Join(root, "shm"), tmp: filepath.Join(root, "tmp"),
	}, root
}

// own is the name of this user's directory where others may write, too.
func own(s system) string { return fmt.Sprintf("zinit-%d", s.uid) }

// TestServerTakesTheFirstPlaceThatWorks runs as whoever runs the tests: the
// place of root is the first one only for root.
func TestServerTakesTheFirstPlaceThatWorks(t *testing.T) {
	isRoot := os.Getuid() == 0
	type test struct {
		name       string
		goos       string
		env        map[string]string
		remove     []string // places that are missing on this system
		socketFlag string
		dirFlag    string
		socket     string // below root; OWN is zinit-UID
		dir        string
		notice     string // part of it
	}
	var noRun string // root, and only root, is told that /run is not there
	if isRoot {
		noRun = "cannot write in ROOT/run"
	}
	tests := []test{
		{
			name: "flag", socketFlag: "ROOT/a/b/my.sock", env: map[string]string{"ZINIT_SOCKET": "ROOT/env.sock"},
			socket: "a/b/my.sock", dir: "a/b/my",
		},
		{
			name: "environment", env: map[string]string{"ZINIT_SOCKET": "ROOT/env.sock", "XDG_RUNTIME_DIR": "ROOT/xdg"},
			socket: "env.sock", dir: "env",
		},
		{
			name: "socket without .sock", socketFlag: "ROOT/plain",
			socket: "plain", dir: "plain.d",
		},
		{
			name: "both flags", socketFlag: "ROOT/my.sock", dirFlag: "ROOT/some/where",
			socket: "my.sock", dir: "some/where",
		},
		{
			name: "XDG_RUNTIME_DIR", env: map[string]string{"XDG_RUNTIME_DIR": "ROOT/xdg"}, remove: []string{"run"},
			socket: "xdg/zinit.sock", dir: "xdg/zinit", notice: noRun,
		},
		{
			name: "runtime directory alone", env: map[string]string{"XDG_RUNTIME_DIR": "ROOT/xdg"}, remove: []string{"run"}, dirFlag: "ROOT/rt",
			socket: "xdg/zinit.sock", dir: "rt", notice: noRun,
		},
		{
			name: "relative XDG_RUNTIME_DIR is passed over", env: map[string]string{"XDG_RUNTIME_DIR": "xdg"}, remove: []string{"run"},
			socket: "shm/OWN/zinit.sock", dir: "shm/OWN/zinit", notice: noRun,
		},
		{
			name: "/dev/shm", remove: []string{"run"},
			socket: "shm/OWN/zinit.sock", dir: "shm/OWN/zinit", notice: "the control socket is ROOT/shm/OWN/zinit.sock",
		},
		{
			name: "/tmp", remove: []string{"run", "shm"}, env: map[string]string{"XDG_RUNTIME_DIR": "ROOT/gone"},
			socket: "tmp/OWN/zinit.sock", dir: "tmp/OWN/zinit", notice: "the runtime directory ROOT/tmp/OWN/zinit",
		},
		{
			name: "macOS", goos: "darwin", env: map[string]string{"HOME": "ROOT/home"},
			socket: "home/hero/var/zinit.sock", dir: "home/hero/var/zinit",
		},
	}
	if isRoot {
		tests = append(tests, test{
			name: "root", env: map[string]string{"XDG_RUNTIME_DIR": "ROOT/xdg"},
			socket: "run/zinit.sock", dir: "run/zinit",
		})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.goos == "" {
				test.goos = "linux"
			}
			s, root := world(t, test.goos, test.env)
			for _, dir := range test.remove {
				os.Remove(filepath.Join(root, dir))
			}
			full := strings.NewReplacer("ROOT", root, "OWN", own(s)).Replace
			for again := range 2 {
				p, notice, err := s.server(full(test.socketFlag), full(test.dirFlag))
				if err != nil {
					t.Fatal(err)
				}
				if p.Socket != full("ROOT/"+test.socket) || p.RuntimeDir != full("ROOT/"+test.dir) {
					t.Errorf("run %d: got %+v, want %s and %s", again, p, test.socket, test.dir)
				}
				if (notice == "") != (test.notice == "") || !strings.Contains(notice, full(test.notice)) {
					t.Errorf("notice %q, want %q in it", notice, full(test.notice))
				}
				fi, err := os.Stat(p.RuntimeDir)
				if err != nil || fi.Mode().Perm() != 0o711 {
					t.Errorf("runtime directory: %v, %v; want mode 0711", fi.Mode(), err)
				}
			}
		})
	}
}

func TestServerRefusesWhatOthersCouldHavePrepared(t *testing.T) {
	for name, prepare := range map[string]func(dir, root string) error{
		"symbolic link": func(dir, root string) error {
			return os.Symlink(filepath.Join(root, "home"), dir)
		},
		"dangling symbolic link": func(dir, root string) error {
			return os.Symlink(filepath.Join(root, "nowhere"), dir)
		},
		"file": func(dir, root string) error {
			return os.WriteFile(dir, nil, 0o600)
		},
		"writable by others": func(dir, root string) error {
			return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777|os.ModeSticky))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := world(t, "linux", nil)
			os.Remove(s.run)
			dir := filepath.Join(s.shm, own(s))
			if err := prepare(dir, root); err != nil {
				t.Fatal(err)
			}
			p, notice, err := s.server("", "")
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(s.tmp, own(s), "zinit.sock"); p.Socket != want {
				t.Errorf("socket is %s, want the next place, %s", p.Socket, want)
			}
			if notice == "" {
				t.Error("no notice")
			}
			if left, _ := os.ReadDir(filepath.Join(root, "home")); len(left) > 0 {
				t.Errorf("the link was followed: %v", left)
			}
			if _, err := os.Lstat(filepath.Join(root, "nowhere")); err == nil {
				t.Error("the link was followed")
			}
		})
	}
	t.Run("another user's", func(t *testing.T) {
		s, _ := world(t, "linux", nil)
		s.uid++
		if err := os.Mkdir(filepath.Join(s.shm, own(s)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(s.tmp, own(s)), 0o700); err != nil {
			t.Fatal(err)
		}
		if p, _, err := s.server("", ""); err == nil || !strings.Contains(err.Error(), "belongs to uid") {
			t.Errorf("got %+v, %v", p, err)
		}
	})
	t.Run("a shared directory as runtime directory", func(t *testing.T) {
		s, root := world(t, "linux", nil)
		if err := os.Chmod(s.tmp, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.server(filepath.Join(root, "a.sock"), s.tmp)
		if err == nil || !strings.Contains(err.Error(), "others may write there") {
			t.Errorf("got %v", err)
		}
		if fi, _ := os.Stat(s.tmp); fi.Mode().Perm() != 0o777 {
			t.Errorf("its mode was changed to %v", fi.Mode())
		}
	})
}

func TestServerMakesNothingBesideAFile(t *testing.T) {
	s, root := world(t, "linux", nil)
	file := filepath.Join(root, "precious")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.server(file, "")
	if err == nil || !strings.Contains(err.Error(), "which is no socket") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(file + ".d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a runtime directory: %v", err)
	}
}

func TestFallbackDirectoryIsPrivate(t *testing.T) {
	s, _ := world(t, "linux", nil)
	os.Remove(s.run)
	if _, _, err := s.server("", ""); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(s.shm, own(s)))
	if err != nil {
		t.Fatal(err)
	}
	want := os.FileMode(0o700)
	if s.uid == 0 {
		want = 0o711
	}
	if fi.Mode().Perm() != want {
		t.Errorf("mode is %v, want %v", fi.Mode().Perm(), want)
	}
}

func TestClientFindsTheServersSocket(t *testing.T) {
	s, root := world(t, "linux", map[string]string{"XDG_RUNTIME_DIR": "ROOT/xdg"})
	places := []string{
		filepath.Join(s.run, "zinit.sock"),
		filepath.Join(root, "xdg", "zinit.sock"),
		filepath.Join(s.shm, own(s), "zinit.sock"),
		filepath.Join(s.tmp, own(s), "zinit.sock"),
	}
	if socket, tried := s.client(""); socket != "" || !slices.Equal(tried, places) {
		t.Fatalf("without any socket: %q, tried %v", socket, tried)
	}
	if err := os.WriteFile(places[0], nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range slices.Backward(places) {
		os.Remove(want)
		os.Mkdir(filepath.Dir(want), 0o700)
		listen(t, want)
		if got, _ := s.client(""); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	if got, tried := s.client("/flag.sock"); got != "/flag.sock" || len(tried) != 1 {
		t.Errorf("with a flag: %q, %v", got, tried)
	}
	s.getenv = func(key string) string { return map[string]string{"ZINIT_SOCKET": "/env.sock"}[key] }
	if got, _ := s.client(""); got != "/env.sock" {
		t.Errorf("with ZINIT_SOCKET: %q", got)
	}
}

func TestClientTrustsNoOneElsesSocket(t *testing.T) {
	s, _ := world(t, "linux", nil)
	s.uid++
	if err := os.Mkdir(filepath.Join(s.shm, own(s)), 0o700); err != nil {
		t.Fatal(err)
	}
	listen(t, filepath.Join(s.shm, own(s), "zinit.sock"))
	if got, _ := s.client(""); got != "" {
		t.Errorf("found %q in a directory of another user", got)
	}
}

func listen(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
}

func TestServiceAndSystemDirectories(t *testing.T) {
	for _, test := range []struct {
		name           string
		goos           string
		uid            int
		system         bool
		env            map[string]string
		flag           string
		config, sysdir string // config "" = an error
	}{
		{name: "root", config: "/etc/zinit/services", sysdir: "/etc/zinit/system"},
		{name: "user", uid: 7, env: map[string]string{"HOME": "/h"}, config: "/h/.config/zinit/services"},
		{name: "user with XDG_CONFIG_HOME", uid: 7, env: map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, config: "/x/zinit/services"},
		{name: "user with a relative XDG_CONFIG_HOME", uid: 7, env: map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "x"}, config: "/h/.config/zinit/services"},
		{name: "user without HOME", uid: 7},
		{name: "user of a container", uid: 7, system: true, config: "/etc/zinit/services", sysdir: "/etc/zinit/system"},
		{name: "macOS", goos: "darwin", uid: 7, env: map[string]string{"HOME": "/h"}, config: "/h/hero/cfg/zinit"},
		{name: "macOS without HOME", goos: "darwin", uid: 7},
		{name: "environment", env: map[string]string{"ZINIT_CONFIG_DIR": "/e"}, config: "/e", sysdir: "/etc/zinit/system"},
		{name: "flag", flag: "/f", env: map[string]string{"ZINIT_CONFIG_DIR": "/e"}, config: "/f", sysdir: "/f"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := system{goos: test.goos, uid: test.uid, etc: "/etc/zinit", getenv: func(k string) string { return test.env[k] }}
			if got, err := s.configDir(test.flag, test.system); got != test.config || (err != nil) != (test.config == "") {
				t.Errorf("service directory %q, %v; want %q", got, err, test.config)
			}
			if got, err := s.systemDir(test.flag, test.system); got != test.sysdir || err != nil {
				t.Errorf("system directory %q, %v; want %q", got, err, test.sysdir)
			}
		})
	}
}

func TestPathsOfThisSystem(t *testing.T) {
	dir := t.TempDir()
	p, notice, err := Server(filepath.Join(dir, "z.sock"), "")
	if err != nil || notice != "" || p.RuntimeDir != filepath.Join(dir, "z") {
		t.Errorf("got %+v, %q, %v", p, notice, err)
	}
	if socket, _ := Client(p.Socket); socket != p.Socket {
		t.Errorf("client takes %s", socket)
	}
	if got, err := ConfigDir(dir, false); got != dir || err != nil {
		t.Errorf("service directory %s, %v", got, err)
	}
	if got, err := SystemDir(dir, false); got != dir || err != nil {
		t.Errorf("system directory %s, %v", got, err)
	}
}
