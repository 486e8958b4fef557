package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// What comes from a file into the environment of a service is shown by nothing
// that zinit says or writes, whatever goes wrong with it; but for get --reveal.
func TestSecretsAreShownNowhere(t *testing.T) {
	const (
		value = "s3cret-of-a-file"   // of { file }
		entry = "s3cret-of-env-file" // of an env_file
		text  = "s3cret-in-a-text"   // where only a text was meant to be
	)
	l := newLive(t)
	for name, content := range map[string]string{
		"value":       value + "\n",
		"good.env":    "TOKEN=" + entry + "\n",
		"path.env":    "PATH=/opt/" + entry + ":" + l.work + "/" + entry + "\n",
		"bad.env":     "A=1\n" + entry + "\nB=\"" + entry + "\n",
		"unset.env":   "A=${NOT_SET:?" + text + "}\n",
		"plain.env":   "A=${TOKEN}\n",
		entry + "/no": "", // found in PATH, and cannot be executed
	} {
		path := filepath.Join(l.work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const secret = "env = { PASSWORD = { file = \"value\" }, URL = \"x-${PASSWORD}\", URL_TWICE = \"${URL}\" }\n"
	const never = "[lifecycle]\nrestart = \"never\"\n"
	failing := map[string]string{
		"program":    "exec = \"/opt/${PASSWORD}/bin\"\n" + secret,
		"derived":    "exec = [\"/opt/${URL_TWICE}/bin\", \"${PASSWORD}\"]\n" + secret,
		"default":    "exec = \"/opt/${NOT_SET:-${PASSWORD}}/bin\"\n" + secret,
		"dir":        "exec = \"true\"\ndir = \"/opt/${TOKEN}\"\nenv_file = [\"good.env\"]\n",
		"search":     "exec = \"nowhere\"\nenv_file = [\"path.env\"]\n",
		"found":      "exec = \"no\"\nenv_file = [\"path.env\"]\n",
		"file":       "exec = \"true\"\nenv_file = [\"good.env\", \"${TOKEN}.env\"]\n",
		"lines":      "exec = \"true\"\nenv_file = [\"good.env\", \"bad.env\"]\n",
		"unset":      "exec = \"true\"\nenv_file = [\"unset.env\"]\n",
		"expand":     "exec = \"echo ${NOT_SET}\"\n" + secret + "env_file = [\"good.env\", \"plain.env\"]\n",
		"exits":      "exec = \"false\"\n" + secret + "env_file = [\"good.env\", \"plain.env\"]\n",
		"pre":        "exec = \"true\"\n" + secret + never + "pre_start = \"/opt/${PASSWORD}\"\n",
		"directory":  "exec = \"true\"\nenv_file = [\"good.env\"]\nenv = { A = { file = \"/\" } }\n",
		"interprets": "exec = \"./${PASSWORD}\"\n" + secret,
	}
	if err := os.WriteFile(filepath.Join(l.work, value), []byte("#!/no/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range failing {
		if !strings.Contains(text, never) {
			text += never
		}
		l.write(map[string]string{name: "[service]\n" + text})
	}
	l.write(map[string]string{
		"well": "[service]\nexec = \"sleep 1000\"\n" + secret + "env_file = [\"good.env\", \"plain.env\"]\n[lifecycle]\nstop_exec = \"/opt/${PASSWORD}/stop\"\n",
		"gone": "[service]\nexec = \"sleep 1000\"\n" + secret + "env_file = [\"good.env\"]\n",
	})
	l.env = append(l.env, "ZINIT_LOG_LEVEL=trace")
	l.up()
	l.settled("services fail", func(all map[string]ipc.Service) error {
		for name := range failing {
			if s := all[name]; s.State != ipc.StateFailed {
				return fmt.Errorf("%s is %s", name, s.State)
			}
		}
		return nil
	})
	if s := l.list()["program"]; s.Reason.Message != "cannot execute /opt/${PASSWORD}/bin: no such file or directory" {
		t.Errorf("the reason says %q", s.Reason.Message)
	}

	search := func(where, what string) {
		t.Helper()
		for _, secret := range []string{value, entry, text} {
			if at := strings.Index(what, secret); at >= 0 {
				t.Errorf("%s shows a secret: …%s…", where, what[max(0, at-100):min(len(what), at+len(secret)+20)])
			}
		}
	}
	ask := func(method string, isStream bool, params map[string]any) {
		t.Helper()
		var answer any
		var err error
		if isStream {
			var all []any
			err = l.client.Stream(l.ctx, method, params, func(i client.Item) error {
				var v any
				all = append(all, &v)
				return i.Decode(&v)
			})
			for _, v := range all {
				search(method, fmt.Sprint(*v.(*any)))
			}
		} else {
			err = l.client.Call(l.ctx, method, params, &answer)
		}
		search(fmt.Sprintf("%s%v", method, params), fmt.Sprint(answer, err))
	}
	methods, err := l.client.Discover(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	l.write(map[string]string{"gone": "[service]\nexec = \"sleep 1000\"\nenv_file = [\"path.env\"]\n"})
	ask("service.reload", false, map[string]any{"dry_run": true})
	ask("service.reload", false, nil)
	names := slices.AppendSeq([]string{"well", "gone"}, maps.Keys(failing))
	for _, m := range methods {
		switch m.Name {
		case "system.shutdown", "system.poweroff", "system.reboot", "service.delete_all", "logs.follow":
			continue // asked last, or the same as logs.get
		}
		for _, name := range names {
			switch m.Name {
			case "service.set", "service.add", "service.remove", "xinet.set", "xinet.delete":
				name = "added"
			}
			params := map[string]any{}
			for _, p := range m.Params {
				switch p.Name {
				case "name", "service":
					params[p.Name] = name
				case "listen":
					params[p.Name] = []string{"unix:" + l.work + "/listen.sock"}
				case "backend":
					params[p.Name] = "unix:" + l.work + "/backend.sock"
				case "names":
					params[p.Name] = []string{name}
				case "config":
					params[p.Name] = "[service]\n" + failing["program"]
				case "lines":
					params[p.Name] = 100
				case "no_wait":
					params[p.Name] = true
				case "timeout_ms":
					params[p.Name] = 1
				default:
					if !p.Optional {
						t.Fatalf("which %s is %s to be called with?", p.Name, m.Name)
					}
				}
			}
			ask(m.Name, m.Items, params)
			if params["name"] == nil && params["names"] == nil {
				break
			}
		}
	}
	for _, command := range [][]string{
		{"list"}, {"status"}, {"status", "well", "program", "dir"}, {"why", "derived"}, {"get", "well"}, {"get", "well", "--json"},
		{"incidents"}, {"events"}, {"debug-state"}, {"debug-procs", "well"}, {"stats"}, {"tree"}, {"start", "program"},
		{"check"}, {"restart", "found"}, {"logs"},
	} {
		out, _ := l.command("zinit", command...).CombinedOutput()
		search("zinit "+strings.Join(command, " "), string(out))
	}
	for _, p := range l.own() {
		if strings.HasPrefix(p.name, "zinit") {
			search("the command line of "+p.name, p.command())
		}
	}
	runtime := strings.TrimSuffix(l.socket, ".sock")
	if err := filepath.WalkDir(runtime, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		search(path, string(b))
		return err
	}); err != nil {
		t.Error(err)
	}

	revealed, err := l.client.Get(l.ctx, "well", true)
	if got := fmt.Sprint(revealed.Secrets); err != nil || !strings.Contains(got, value) || !strings.Contains(got, entry) {
		t.Errorf("get --reveal shows %v, %v", revealed.Secrets, err)
	}
	ask("service.delete_all", true, map[string]any{})
	ask("system.shutdown", false, nil)
	<-l.keepers[0].ended
	search("the log", l.log())
}
