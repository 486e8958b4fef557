package spec

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoadDir(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"b.toml":      "[service]\nname = \"web\"\nexec = \"true\"\n[xinet]\nlisten = [\":80\"]\nbackend = \"a:1\"",
		"c.toml":      "[service]\nname = \"web\"\nexec = \"false\"",
		"d.toml":      "[service]\nname = \"db\"\nexce = \"true\"",
		"e.toml":      "[target]",
		"f.toml":      "[xinet]\nname = \"web\"\nservice = \"e\"\nlisten = [\":81\"]\nbackend = \"a:1\"",
		"g.toml":      "[xinet]\nname = \"other\"\nservice = \"e\"\nlisten = [\":81\"]\nbackend = \"a:1\"",
		"h.toml":      "#" + strings.Repeat("x", maxFile),
		".i.toml":     "not TOML",
		"j.toml.orig": "not TOML",
	})
	for _, err := range []error{
		os.Symlink("e.toml", filepath.Join(dir, "k.toml")),
		os.Symlink("nowhere", filepath.Join(dir, "l.toml")),
		os.Mkdir(filepath.Join(dir, "m.toml"), 0o755),
		unix.Mkfifo(filepath.Join(dir, "n.toml"), 0o644),
		os.Symlink("/dev/null", filepath.Join(dir, "o.toml")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	plan, problems, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(plan.Services)), []string{"e", "k", "web"}; !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(plan.Proxies)), []string{"other", "web"}; !slices.Equal(got, want) {
		t.Errorf("proxies %v, want %v", got, want)
	}
	if s := plan.Services["web"]; s.File != filepath.Join(dir, "b.toml") || plan.Proxies["web"] != s.Xinet || plan.Services["e"].Kind != KindTarget {
		t.Errorf("got %+v", s)
	}
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %s: %s", strings.TrimPrefix(p.File, dir+"/"), p.Service, p.Message))
	}
	want := []string{
		"c.toml web: there is already a service named web: " + dir + "/b.toml",
		"d.toml db: unknown key exce in [service]: did you mean \"exec\"?",
		"f.toml web: there is already a proxy named web: " + dir + "/b.toml",
		"h.toml h: cannot read file: it is larger than 1048576 bytes",
		"l.toml l: cannot read file: it is a link to \"nowhere\", which does not exist",
		"m.toml m: cannot read file: it is a directory, expected a regular file",
		"n.toml n: cannot read file: it is a FIFO, expected a regular file",
		"o.toml o: cannot read file: it is a device, expected a regular file",
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, _, err := LoadDir(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
}

// services makes "a: b c; after d" lines into a graph. Names that begin with a
// capital are of early services.
func services(lines ...string) map[string]*Service {
	m := map[string]*Service{}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, ":")
		requires, after, _ := strings.Cut(rest, ";")
		s := Default(name)
		s.File = name + ".toml"
		s.Early = name < "a"
		s.Requires, s.After = strings.Fields(requires), strings.Fields(after)
		m[name] = s
	}
	return m
}

func TestCycles(t *testing.T) {
	for _, tt := range []struct {
		name  string
		graph map[string]*Service
		want  [][]string
	}{
		{"none", services("a: b c", "b: d", "c: d", "d:; gone"), nil},
		{"two", services("b: a", "a: b"), [][]string{{"a", "b"}}},
		{"itself", services("a: a"), [][]string{{"a"}}},
		{"through after", services("a: b", "b:; c", "c: a"), [][]string{{"a", "b", "c"}}},
		{"early ones come first", services("Net:; Log", "Log: ", "web: db", "db:; Net"), nil},
		{"an early one waits for a late one", services("Net: dns", "dns: ", "web: dns"), [][]string{{"Net", "dns"}}},
		{"two of those", services("Log: syslog", "Net: dns", "dns: ", "syslog: ", "web: "), [][]string{{"Log", "syslog"}, {"Net", "dns"}}},
		{"members only", services("a: b", "b: c", "c: d", "d: b", "e: a d"), [][]string{{"b", "c", "d"}}},
		{"two of them", services("x: y", "y: x", "a: c x", "c: a"), [][]string{{"a", "c"}, {"x", "y"}}},
		{"one inside another", services("a: b", "b: c a", "c: d", "d: c a"), [][]string{{"a", "b"}, {"c", "d"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Cycles(tt.graph); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// Of a graph of any shape, what Cycles finds are cycles, and without their
// members there is none left.
func TestCyclesOfRandomGraphs(t *testing.T) {
	seed := uint32(1)
	random := func(n int) int {
		seed = seed*1664525 + 1013904223
		return int(seed>>8) % n
	}
	for range 2000 {
		n := 1 + random(12)
		graph := map[string]*Service{}
		for i := range n {
			s := Default(fmt.Sprint(i))
			for range random(4) {
				s.Requires = append(s.Requires, fmt.Sprint(random(n)))
			}
			graph[s.Name] = s
		}
		for _, cycle := range Cycles(graph) {
			for i, name := range cycle {
				if graph[name] == nil {
					t.Fatalf("%s is in two cycles", name)
				}
				if next := cycle[(i+1)%len(cycle)]; !slices.Contains(graph[name].Requires, next) {
					t.Fatalf("%s does not require %s", name, next)
				}
			}
			for _, name := range cycle {
				delete(graph, name)
			}
		}
		// Take away what depends on nothing that is left, until nothing is.
		for len(graph) > 0 {
			before := len(graph)
			maps.DeleteFunc(graph, func(_ string, s *Service) bool {
				return !slices.ContainsFunc(s.Requires, func(name string) bool { return graph[name] != nil })
			})
			if len(graph) == before {
				t.Fatalf("a cycle among %v is not found", slices.Collect(maps.Keys(graph)))
			}
		}
	}
}

func TestCyclesOfLargeGraphs(t *testing.T) {
	chain := map[string]*Service{}
	const n = 10_000
	for i := range n {
		s := Default(fmt.Sprintf("%05d", i))
		s.Requires = []string{fmt.Sprintf("%05d", (i+1)%n), fmt.Sprintf("%05d", (i+n-1)%n)}
		chain[s.Name] = s
	}
	members := 0
	for _, cycle := range Cycles(chain) {
		members += len(cycle)
	}
	if members == 0 || members > n {
		t.Errorf("%d members of cycles", members)
	}
}

func TestSharedLogFiles(t *testing.T) {
	plan := Plan{Services: services("a:", "b:", "c:", "d:", "e:", "f:", "g:")}
	for name, file := range map[string]string{
		"a": "/var/log/one.log", "b": "/var/log//one.log", "c": "/var/log/two.log", "d": "/var/log/one.log.12",
		"e": "/var/log/one.log12", "f": "/var/log/three.log.1",
	} {
		plan.Services[name].Logging.File = file
	}
	var got []string
	for _, p := range plan.Check() {
		got = append(got, p.File+": "+p.Message)
	}
	want := []string{
		"b.toml: logging.file: /var/log/one.log is also the log file of a",
		"d.toml: logging.file: /var/log/one.log.12 is what the log file of a is renamed to when it is rotated",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestCheckAndWarnings(t *testing.T) {
	plan := Plan{Services: services("web: databse; web2", "database: db2", "db2: database", "web2:"), Proxies: map[string]*Proxy{
		"p": {Name: "p", Service: "wbe", File: "p.toml"},
	}}
	plan.Services["web"].Ports = []uint16{80, 81}
	plan.Services["web2"].Ports = []uint16{80}
	plan.Services["db2"].Ports = []uint16{81}
	plan.Services["db2"].Conflicts = []string{"web"}
	text := func(problems []Problem) (lines []string) {
		for _, p := range problems {
			lines = append(lines, fmt.Sprintf("%s %s: %s", p.File, p.Service, p.Message))
		}
		return lines
	}
	want := []string{"database.toml database: dependency cycle: database -> db2 -> database"}
	if got := text(plan.Check()); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	want = []string{
		`p.toml p: xinet.service: there is no wbe: did you mean "web"?`,
		`web.toml web: dependencies.requires: there is no databse: did you mean "database"?`,
		`web2.toml web2: service.ports: 80 is also a port of web; if only one of them is to run, name it in dependencies.conflicts`,
	}
	if got := text(plan.Warnings(nil)); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSharedListeners(t *testing.T) {
	at := func(addresses ...string) (list []Address) {
		for _, a := range addresses {
			list = append(list, Address{Network: "tcp", Address: a})
		}
		return list
	}
	plan := Plan{Proxies: map[string]*Proxy{
		"a": {Name: "a", File: "a.toml", Listen: at(":80", ":81")},
		"b": {Name: "b", File: "b.toml", Listen: at(":82", ":81", ":82")},
	}}
	var got []string
	for _, p := range plan.Check() {
		got = append(got, p.File+": "+p.Message)
	}
	want := []string{
		"b.toml: xinet.listen: tcp::81 is also where the proxy a listens",
		"b.toml: xinet.listen: tcp::82 is there twice",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestProxiesThatLeadBackToThemselves(t *testing.T) {
	for _, tt := range []struct {
		listen, backend string
		loop            bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "localhost:80", true},
		{"localhost:80", "[::1]:80", true},
		{":80", "127.0.0.1:80", true},
		{":80", "[::1]:80", true},
		{"0.0.0.0:80", "localhost:80", true},
		{"[::]:80", "[::1]:80", true},
		{"127.0.0.1:80", "0.0.0.0:80", true},
		{"db:80", "tcp:db:80", true},
		{"unix:/run/a", "unix:/run/../run/a", true},

		{"127.0.0.1:80", "", false},
		{"127.0.0.1:80", "127.0.0.1:81", false},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:80", "[::1]:80", false},
		{"0.0.0.0:80", "[::1]:80", false},
		{":80", "192.0.2.1:80", false},
		{"unix:/run/a", "unix:/run/b", false},
		{"unix:/run/80", "127.0.0.1:80", false},
	} {
		address := func(s string) (a Address) {
			if s != "" {
				var err error
				if a, err = ParseAddress(s); err != nil {
					t.Fatal(err)
				}
			}
			return a
		}
		other := Address{Network: "unix", Address: "/other"}
		plan := Plan{Proxies: map[string]*Proxy{
			"a": {Name: "a", File: "a.toml", Listen: []Address{address(tt.listen)}, Backend: other},
			"b": {Name: "b", File: "b.toml", Listen: []Address{{Network: "unix", Address: "/more"}, other}, Backend: address(tt.backend)},
			"c": {Name: "c", File: "c.toml", Listen: []Address{{Network: "unix", Address: "/c"}}, Backend: address(tt.listen)},
		}}
		var got string
		for _, p := range plan.Check() {
			got += p.File + ": " + p.Message
		}
		want := ""
		if tt.loop {
			want = "a.toml: xinet.backend: clients would go round in a circle: a -> b -> a"
		}
		if got != want {
			t.Errorf("%s and %s: got %q, want %q", tt.listen, tt.backend, got, want)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	writeFiles(t, dir, map[string]string{name: text})
}

func TestLoaderReadsWhatHasChanged(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"changed", "kept", "replaced", "touched"} {
		write(t, dir, name+".toml", "[service]\nexec = \"old\"")
	}
	write(t, dir, "proxy.toml", "[xinet]\nname = \"p\"\nservice = \"kept\"\nlisten = [\"unix:/p\"]\nbackend = \"unix:/b\"")
	later := time.Now().Add(time.Hour) // by then all these changes are old
	var l Loader
	load := func() Plan {
		t.Helper()
		plan, problems, err := l.loadDirs("", dir, later)
		if err != nil || problems != nil {
			t.Fatal(err, problems)
		}
		return plan
	}
	first := load()
	write(t, dir, "changed.toml", "[service]\nexec = \"longer\"")
	write(t, dir, ".new", "[service]\nexec = \"new\"")
	if err := os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "replaced.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "touched.toml"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	second := load()
	for name, same := range map[string]bool{"changed": false, "kept": true, "replaced": false, "touched": false} {
		if is := first.Services[name] == second.Services[name]; is != same {
			t.Errorf("%s is what was read before: %v, want %v", name, is, same)
		}
	}
	if first.Proxies["p"] != second.Proxies["p"] {
		t.Error("the proxy was read again")
	}
	for name, exec := range map[string]string{"changed": "longer", "kept": "old", "replaced": "new", "touched": "old"} {
		if got := second.Services[name].Exec[0][0].Text; got != exec {
			t.Errorf("%s has exec %s, want %s", name, got, exec)
		}
	}
	l.Keep(map[string]*Service{"touched": first.Services["touched"], "kept": {Name: "kept", File: "elsewhere"}})
	third := load()
	if third.Services["touched"] != first.Services["touched"] || third.Services["kept"] != first.Services["kept"] {
		t.Error("what is in effect is not handed out again")
	}
}

// A file may change again within what its times can tell.
func TestLoaderReadsAgainWhatHasJustChanged(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.toml", "[service]\nexec = \"true\"")
	var l Loader
	first, _, _ := l.LoadDirs("", dir)
	second, _, err := l.LoadDirs("", dir)
	if err != nil || first.Services["web"] == nil || first.Services["web"] == second.Services["web"] {
		t.Errorf("a new file was read once: %v, %v", first.Services["web"], err)
	}
}

func TestEqualTablesAreShared(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		write(t, dir, fmt.Sprintf("same-%d.toml", i), "[service]\nexec = \"true\"\n[lifecycle]\nrestart = \"always\"")
	}
	write(t, dir, "other.toml", "[service]\nexec = \"true\"\n[limits]\nnofile = 5")
	plan, _, err := LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	a, b, other := plan.Services["same-0"], plan.Services["same-2"], plan.Services["other"]
	if a.Lifecycle != b.Lifecycle || a.Logging != other.Logging || a.Limits != b.Limits {
		t.Error("tables that are equal are there twice")
	}
	if a.Lifecycle == other.Lifecycle || a.Limits == other.Limits || *other.Limits.NoFile != 5 || a.Limits.NoFile != nil || a.Lifecycle.Restart != RestartAlways {
		t.Error("tables that are not equal are shared")
	}
}
