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
	for _, port := range []string{"6379", "6380", "8080"} {
		ports[port] = l.port()
		text = strings.ReplaceAll(text, "127.0.0.1:"+port, fmt.Sprint("127.0.0.1:", ports[port]))
	}
	for _, dir := range []string{"/run/redis", "/var/lib/redis", "/srv/files"} {
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
	delete(files, "postgres") // see testdata/xinet-real-servers.txtar
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
