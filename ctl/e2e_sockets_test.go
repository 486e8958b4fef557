package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
)

// TestPageOnSockets does what docs/sockets.md says: with its service files and
// its commands, but for directories, ports and the time until an idle stop.
func TestPageOnSockets(t *testing.T) {
	for _, program := range []string{"redis-server", "redis-cli", "python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	l := newLive(t)
	for _, dir := range []string{"run/redis", "var/lib/redis", "srv/files"} {
		if err := os.MkdirAll(filepath.Join(l.work, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(l.work, "srv/files/index.html"), []byte("it works"), 0o644); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/sockets.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	ports := map[string]int{}
	for _, port := range []string{"6379", "6380", "8080", "5432"} {
		ports[port] = l.port()
		text = strings.ReplaceAll(text, "127.0.0.1:"+port, fmt.Sprint("127.0.0.1:", ports[port]))
	}
	for _, dir := range []string{"/run/redis", "/var/lib/redis", "/srv/files", "/run/postgresql", "/etc/postgresql/15/main"} {
		text = strings.ReplaceAll(text, dir, l.work+dir)
	}
	text = strings.ReplaceAll(text, "idle_timeout = 300", "idle_timeout = 1")

	files := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```toml\n# /etc/zinit/services/([^\n]*)\\.toml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		files[m[1]] = m[2]
	}
	if len(files) != 4 {
		t.Fatalf("the page has %d service files", len(files))
	}
	postgres := l.cluster("/run/postgresql", "/etc/postgresql/15/main")
	if postgres == "" { // the story xinet-real-servers has it
		delete(files, "postgres")
	} else {
		files["postgres"] = strings.ReplaceAll(files["postgres"], "/usr/lib/postgresql/15/bin", postgres)
	}
	l.write(files)
	l.up()

	ping := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("redis-cli", append(args, "ping")...).CombinedOutput(); err != nil || string(out) != "PONG\n" {
			t.Fatalf("redis-cli %q: %s, %v", args, out, err)
		}
	}
	redis := func(state ipc.State) {
		t.Helper()
		l.settled("redis is "+string(state), func(all map[string]ipc.Service) error {
			if s := all["redis"].State; s != state {
				return fmt.Errorf("it is %s", s)
			}
			return nil
		})
	}
	redis(ipc.StateInactive)
	ping("-p", fmt.Sprint(ports["6379"]))
	ping("-s", l.work+"/run/redis/front.sock")
	ping("-s", l.work+"/run/redis/cache.sock")
	redis(ipc.StateExited) // both of its proxies are idle
	ping("-p", fmt.Sprint(ports["6379"]))

	if postgres != "" {
		out, err := exec.Command("psql", "-h", "127.0.0.1", "-p", fmt.Sprint(ports["5432"]), "-U", "postgres", "-Atqc", "select 6 * 7").CombinedOutput()
		if err != nil || string(out) != "42\n" {
			t.Errorf("psql: %s, %v", out, err)
		}
	}

	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/index.html", ports["8080"]))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "it works" {
		t.Fatalf("got %q, %v", body, err)
	}

	_, shell, _ := strings.Cut(text, "```sh\n")
	shell, _, _ = strings.Cut(shell, "```")
	for line := range strings.Lines(shell) {
		words := strings.Fields(line)
		if out, err := l.command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s%s%v", line, out, err)
		}
		if words[2] == "set" {
			ping("-p", fmt.Sprint(ports["6380"]))
		}
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
