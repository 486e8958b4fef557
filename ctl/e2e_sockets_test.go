package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPostgresOfPageOnSockets runs the example of docs/sockets.md that takes root and
// Debian's PostgreSQL with a cluster; TestPages does all else on the page.
func TestPostgresOfPageOnSockets(t *testing.T) {
	l := newLive(t)
	programs := l.cluster("/run/postgresql", "/etc/postgresql/15/main")
	if programs == "" {
		t.Skip("there is no PostgreSQL, or this is not root")
	}
	page, err := os.ReadFile("../docs/sockets.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```toml[^\n]*\n# /etc/zinit/services/postgres\\.toml\n(.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("the page has no postgres.toml")
	}
	port := l.port()
	l.write(map[string]string{"postgres": strings.NewReplacer(
		"127.0.0.1:5432", fmt.Sprint("127.0.0.1:", port),
		"/run/postgresql", l.work+"/run/postgresql",
		"/etc/postgresql/15/main", l.work+"/etc/postgresql/15/main",
		"/usr/lib/postgresql/15/bin", programs,
	).Replace(string(m[1]))})
	l.up()
	out, err := exec.Command("psql", "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-U", "postgres", "-Atqc", "select 6 * 7").CombinedOutput()
	if err != nil || string(out) != "42\n" {
		t.Errorf("psql: %s, %v", out, err)
	}
}

// cluster makes what Debian's package does: the directories of a cluster of
// PostgreSQL, and where its programs are, "" where they are not or this is not
// root.
func (l *live) cluster(run, data string) (programs string) {
	l.t.Helper()
	initdb, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(initdb) == 0 || os.Geteuid() != 0 {
		return ""
	}
	for _, dir := range []string{run, data} {
		if err := os.MkdirAll(l.work+dir, 0o755); err != nil {
			l.t.Fatal(err)
		}
		if out, err := exec.Command("chown", "postgres", l.work+dir).CombinedOutput(); err != nil {
			l.t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := exec.Command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups",
		initdb[0], "-D", l.work+data, "-A", "trust", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return filepath.Dir(initdb[0])
}
