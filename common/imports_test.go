// Package common_test holds the tests on the tree as a whole: who may import
// whom.
package common_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/threefoldtech/zinit/"

// arrows says what of ours each part may import, and why.
var arrows = []struct {
	part string
	may  []string
	why  string
}{
	{"common", []string{"common"}, "it is the ground that everything stands on"},
	{"ipc", []string{"common", "ipc"}, "messages know nothing of the programs that send them"},
	{"supervisord/core", []string{"common/spec"}, "decisions are pure: no paths, no links, no logs"},
	{"supervisord/logs", []string{"common"}, "the store of output knows nothing of services' states"},
	{"supervisord", []string{"common", "ipc", "supervisord"}, "programs do not import each other"},
	{"pid1", []string{"common", "ipc"}, "programs do not import each other"},
	{"healthd", []string{"common", "ipc"}, "programs do not import each other"},
	{"proxyd", []string{"common", "ipc"}, "programs do not import each other"},
	{"ctl", []string{"common", "ipc", "ctl"}, "the command talks to the supervisor by its socket alone"},
}

// coreMay lists the standard packages of the core: none can do I/O, tell the
// time or start a goroutine's lock.
var coreMay = []string{
	"cmp", "container/heap", "errors", "fmt", "hash/fnv", "maps", "math", "slices", "sort", "strconv", "strings",
	"syscall", // for the numbers of signals
	"time",    // for durations in words
}

func TestImportsFollowTheArrows(t *testing.T) {
	for dir, imports := range ours(t) {
		rule := slices.IndexFunc(arrows, func(a struct {
			part string
			may  []string
			why  string
		}) bool {
			return within(dir, a.part)
		})
		if rule < 0 {
			t.Errorf("%s is in no part of the tree that the rules know", dir)
			continue
		}
		for _, imp := range imports {
			rest, isOurs := strings.CutPrefix(imp, module)
			if isOurs && !slices.ContainsFunc(arrows[rule].may, func(m string) bool { return within(rest, m) }) {
				t.Errorf("%s imports %s: %s", dir, rest, arrows[rule].why)
			}
			if !isOurs && dir == "supervisord/core" && !slices.Contains(coreMay, imp) {
				t.Errorf("supervisord/core imports %s: it decides, it does nothing", imp)
			}
		}
	}
}

func TestPid1DoesNotLinkNet(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../pid1").Output()
	if err != nil {
		t.Fatalf("cannot list what pid1 links: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if slices.Contains([]string{"net", "os/exec", "github.com/spf13/pflag", "github.com/BurntSushi/toml"}, dep) {
			t.Errorf("zinit-pid1 links %s: the one process that must live stays small", dep)
		}
	}
}

func TestCoreDoesNotReadTheClock(t *testing.T) {
	files, _ := filepath.Glob("../supervisord/core/*.go")
	if len(files) == 0 {
		t.Fatal("there are no files of the core")
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "Tick"} {
			if strings.Contains(string(text), "time."+call+"(") {
				t.Errorf("%s calls time.%s: the core is handed the time", file, call)
			}
		}
	}
}

// ours returns the imports of each folder with Go files, tests left out.
func ours(t *testing.T) map[string][]string {
	imports := map[string][]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, _ := filepath.Rel("..", filepath.Dir(path))
		for _, imp := range f.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			imports[dir] = append(imports[dir], p)
		}
		return nil
	})
	if err != nil || len(imports) < 5 {
		t.Fatalf("cannot read the tree: %d folders, %v", len(imports), err)
	}
	return imports
}

func within(dir, part string) bool { return dir == part || strings.HasPrefix(dir, part+"/") }
