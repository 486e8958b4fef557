package spec

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	known := []string{"restart", "restart_delay_ms", "ready", "exec", "dir", "as"}
	for name, want := range map[string]string{
		"restrat": "restart", "Restart": "restart", "exce": "exec", "dri": "dir", "resart_delay": "",
		"restart_delay": "restart_delay_ms", "x": "", "": "", "sa": "as", "completely-other": "",
		strings.Repeat("x", 10_000): "",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("nearest to %.20q is %q, want %q", name, got, want)
		}
	}
	if got := Nearest("ab", []string{"ac", "ad"}); got != "ac" {
		t.Errorf("of two equally near names %q is chosen", got)
	}
	if got := Nearest("start", nil); got != "" {
		t.Errorf("nearest of nothing is %q", got)
	}
}

func TestSignals(t *testing.T) {
	tests := map[string]int{"SIGTERM": 15, "term": 15, "SigKill": 9, "1": 1, "64": 64}
	if runtime.GOOS == "linux" {
		for name, n := range map[string]int{"RTMIN": 34, "SIGRTMIN+3": 37, "rtmax": 64, "RTMAX-1": 63, "USR1": 10} {
			tests[name] = n
		}
	}
	for name, want := range tests {
		if got, err := SignalNumber(name); got != want || err != nil {
			t.Errorf("%s is %d, %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "SIG", "0", "65", "-1", "RTMIN+31", "RTMIN-1", "RTMAX+1", "RTMIN+", "RTMIN+ 1", "SIGSIGTERM"} {
		if got, err := SignalNumber(name); err == nil {
			t.Errorf("%q is %d, want an error", name, got)
		}
	}
	for n := 1; n <= 64; n++ {
		if got, err := SignalNumber(SignalName(n)); got != n || err != nil {
			t.Errorf("%d has the name %s, which is %d, %v", n, SignalName(n), got, err)
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "7": 7, "7B": 7, "10MiB": 10 << 20, "512KiB": 512 << 10, "1GiB": 1 << 30, "1TiB": 1 << 40,
		"10MB": 10e6, "1 kB": 1e3, "1KB": 1e3, "2GB": 2e9, "1TB": 1e12, "8388607TiB": 8388607 << 40,
	} {
		if got, ok := ParseSize(s); got != want || !ok {
			t.Errorf("%s is %d, %v, want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "MiB", "-1", "1.5GiB", "1mib", "8388608TiB", "99999999999999999999", "1 0"} {
		if got, ok := ParseSize(s); ok {
			t.Errorf("%q is %d, want an error", s, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", 1536 << 10: `"1536KiB"`, 10 << 20: `"10MiB"`, math.MaxInt64: "9223372036854775807"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "7B", "10MiB", "1 kB", "8388608TiB", "-1", "1.5GiB", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, ok := ParseSize(s)
		if !ok {
			return
		}
		if again, ok := ParseSize(strings.Trim(formatSize(n), `"`)); n < 0 || again != n || !ok {
			t.Fatalf("%q is %d, which is written %s, which is %d, %v", s, n, formatSize(n), again, ok)
		}
	})
}

func TestAddresses(t *testing.T) {
	for s, want := range map[string]Address{
		":80": {"tcp", ":80"}, "a:80": {"tcp", "a:80"}, "tcp:a.b:1": {"tcp", "a.b:1"},
		"[::1]:80": {"tcp", "[::1]:80"}, "tcp:[::]:80": {"tcp", "[::]:80"}, "unix:/a:b": {"unix", "/a:b"},
	} {
		got, err := ParseAddress(s)
		if got != want || err != nil {
			t.Errorf("%s is %v, %v, want %v", s, got, err, want)
		}
		if again, err := ParseAddress(got.String()); again != want || err != nil {
			t.Errorf("%s is written %s", s, got)
		}
	}
	for _, s := range []string{"", "80", "a:", "a:0", "a:65536", "a:+80", "::1:80", "[a]:80", "[::1:80", "a b:80", "tcp:", "unix:", "unix:a",
		"unix:/" + strings.Repeat("x", maxSocketPath)} {
		if got, err := ParseAddress(s); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		}
	}
}

func TestParseEnvFile(t *testing.T) {
	got, err := ParseEnvFile("e", []byte("\ufeff# comment\n\nA=1\r\nexport B = \" two \"\n\tC='$x \"y\"'\nD=\nE=a=b # kept\nA=${B}\nexport=3\nF=it's"))
	want := []EnvVar{{Name: "A", Value: "${B}"}, {Name: "B", Value: " two "}, {Name: "C", Value: `$$x "y"`}, {Name: "D"},
		{Name: "E", Value: "a=b # kept"}, {Name: "export", Value: "3"}, {Name: "F", Value: "it's"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for src, want := range map[string]string{
		"A=1\nsecret\n": "e:2: expected KEY=value",
		"=secret":       "e:1: expected KEY=value with a name before the =",
		"a b=secret":    "e:1: expected KEY=value with a name before the =",
		"A='secret":     "e:1: the value begins with ' and does not end with it",
		`A="`:           `e:1: the value begins with " and does not end with it`,
		"A=sec\x00ret":  "e:1: a value cannot contain a NUL byte",
		"x\n\ny\n":      "e:1: expected KEY=value; e:3: expected KEY=value",
	} {
		if got, err := ParseEnvFile("e", []byte(src)); got != nil || err == nil || err.Error() != want {
			t.Errorf("%q gives %v, %v, want %s", src, got, err, want)
		}
	}
	if _, err := ParseEnvFile("e", []byte(strings.Repeat("x\n", 1000))); len(strings.Split(err.Error(), "; ")) != 10 {
		t.Errorf("1000 bad lines give %v", err)
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add([]byte("A=1\nexport B='x'\n# c\nC=\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		vars, err := ParseEnvFile("e", data)
		if err != nil && vars != nil {
			t.Fatal("both variables and an error")
		}
		for i, v := range vars {
			if !validEnvName(v.Name) || strings.ContainsAny(v.Value, "\n\x00") {
				t.Fatalf("%q is not a variable", v)
			}
			if slices.ContainsFunc(vars[:i], func(o EnvVar) bool { return o.Name == v.Name }) {
				t.Fatalf("%s is there twice", v.Name)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, tt := range fieldTests {
		table, _, _ := strings.Cut(tt.field, ".")
		f.Add(set(table, tt.good))
		f.Add(set(table, tt.bad))
	}
	f.Fuzz(func(t *testing.T, src string) {
		s, x, problems := Parse("web.toml", []byte(src))
		switch {
		case len(problems) > 0:
			if s != nil || x != nil || len(problems) > maxProblems+1 {
				t.Fatalf("%d problems and %v %v", len(problems), s, x)
			}
			for _, p := range problems {
				if p.File == "" || p.Message == "" || p.Line > 0 && p.Column < 1 || p.Line > 1+strings.Count(src, "\n") {
					t.Fatalf("%+v", p)
				}
			}
			return
		case (s == nil) == (x == nil):
			t.Fatalf("got %v and %v", s, x)
		case x != nil:
			_, again, problems := Parse("", []byte(x.TOML()))
			if problems != nil || !again.Equal(x) {
				t.Fatalf("differs once written and read:\n%s%s", x.TOML(), report(problems))
			}
			return
		}
		for _, text := range []string{s.TOML(), s.Source()} {
			again, _, problems := Parse("", []byte(text))
			if problems != nil {
				t.Fatalf("%s\n%s", text, report(problems))
			}
			if diff := s.Diff(again); diff != nil {
				t.Fatalf("differs in %v once written and read:\n%s", diff, text)
			}
		}
	})
}

// FuzzPlan puts three files together: a cycle that is found is one, and the
// check finds a fault or the files go together.
func FuzzPlan(f *testing.F) {
	file := func(name, dependencies string) string {
		return fmt.Sprintf("[service]\nname = %q\nexec = \"x\"\nports = [80]\n[dependencies]\n%s\n[logging]\nfile = \"/var/log/%s\"\n", name, dependencies, name)
	}
	f.Add(file("a", `requires = ["b"]`), file("b", `after = ["c"]`), file("c", `requires = ["a"]`))
	f.Add(file("a", `wants = ["a", "nobody"]`), file("a", ""), "[target]\nname = \"t\"\n[dependencies]\nconflicts = [\"a\"]\n")
	f.Add("[xinet]\nname = \"p\"\nservice = \"a\"\nlisten = [\"tcp:127.0.0.1:80\"]\nbackend = \"unix:/b\"\n", "[service", "")
	f.Fuzz(func(t *testing.T, one, two, three string) {
		p := Plan{Services: map[string]*Service{}, Proxies: map[string]*Proxy{}}
		for i, src := range []string{one, two, three} {
			s, x, problems := Parse(fmt.Sprintf("f%d.toml", i), []byte(src))
			if problems == nil {
				p.Add(s, x)
			}
		}
		for _, problem := range append(p.Check(), p.Warnings(nil)...) {
			if problem.Message == "" || problem.File == "" {
				t.Fatalf("%+v", problem)
			}
		}
		for _, cycle := range Cycles(p.Services) {
			for i, name := range cycle {
				next := cycle[(i+1)%len(cycle)]
				if s := p.Services[name]; s == nil || !slices.Contains(s.Requires, next) && !slices.Contains(s.After, next) {
					t.Fatalf("%v is no cycle", cycle)
				}
			}
		}
	})
}
