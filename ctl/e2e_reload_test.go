package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// stackFiles are 50 services as a machine has them: a network and a logger,
// databases that require these, APIs on them, workers, and a target.
func stackFiles() map[string]string {
	service := func(requires, after string, lines ...string) string {
		return "[service]\nexec = \"sleep 1000\"\n" + strings.Join(lines, "\n") +
			fmt.Sprintf("\n[dependencies]\nrequires = [%s]\nafter = [%s]\n[lifecycle]\nstop_timeout_ms = 5000\n", requires, after)
	}
	files := map[string]string{
		"network": "[service]\nexec = \"true\"\noneshot = true\n",
		"logger":  service("", ""),
		"cron":    service("", `"logger"`),
		"spare":   service("", "", `status = "stop"`),
		"rival":   service("", "", `status = "stop"`),
		"system":  "[target]\n[dependencies]\nrequires = [\"network\", \"api00\", \"api14\"]\n",
	}
	for i := range 8 {
		files[fmt.Sprintf("db%02d", i)] = service(`"network"`, `"logger"`)
	}
	for i := range 16 {
		files[fmt.Sprintf("api%02d", i)] = service(fmt.Sprintf(`"db%02d"`, i/2), `"cron"`)
	}
	for i := range 20 {
		files[fmt.Sprintf("worker%02d", i)] = service(fmt.Sprintf(`"api%02d"`, i/2), "", fmt.Sprintf("env = { N = %q }", fmt.Sprint(i)))
	}
	return files
}

// stack is a live zinit with a stack, and the files as they are.
type stack struct {
	*live
	files map[string]string
}

// atRest says that nothing is about to move by itself.
func atRest(all map[string]ipc.Service) error {
	for name, s := range all {
		switch {
		case s.State == ipc.StateStarting || s.State == ipc.StateStopping || s.NextStart != nil:
			return fmt.Errorf("%s is %s: %s", name, s.State, s.Note)
		case s.State == ipc.StateBlocked && !slices.ContainsFunc(s.BlockedBy, func(b ipc.Block) bool {
			return all[b.Name].Desired == "down" || all[b.Name].State == ipc.StateBlocked || all[b.Name].State == ipc.StateFailed || b.Kind == "conflicts"
		}):
			return fmt.Errorf("%s is blocked by %v", name, s.BlockedBy)
		}
	}
	return nil
}

// change makes files with these texts, "" for none.
func (s *stack) change(files map[string]string) {
	s.t.Helper()
	for name, text := range files {
		path := filepath.Join(s.services, name+".toml")
		if text == "" {
			delete(s.files, name)
			if err := os.Remove(path); err != nil {
				s.t.Fatal(err)
			}
			continue
		}
		s.files[name] = text
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
}

// with returns the text of a file in which one text is replaced.
func (s *stack) with(name, old, text string) map[string]string {
	s.t.Helper()
	if !strings.Contains(s.files[name], old) {
		s.t.Fatalf("%s.toml has no %q", name, old)
	}
	return map[string]string{name: strings.Replace(s.files[name], old, text, 1)}
}

// shape is a plan of a reload in one line.
func shape(r ipc.Reloaded) string {
	var parts []string
	for _, n := range r.Added {
		parts = append(parts, "+"+n)
	}
	for _, n := range r.Removed {
		parts = append(parts, "-"+n)
	}
	for _, c := range r.Changed {
		how := "in place"
		if c.Restart {
			how = "restarted"
		} else if c.Stop {
			how = "stopped"
		}
		parts = append(parts, fmt.Sprintf("~%s %s %s", c.Name, how, strings.Join(c.Fields, " ")))
	}
	for _, n := range r.Along {
		parts = append(parts, "along "+n)
	}
	return strings.Join(parts, ", ")
}

// One thing at a time is changed in a running stack. Each time exactly those
// processes are others afterwards that the plan has named, --dry-run before and
// reload itself.
func TestReloadOfAStack(t *testing.T) {
	s := &stack{newLive(t), map[string]string{}}
	s.change(stackFiles())
	s.up()
	s.settled("the stack is up", atRest)
	if n := len(pidsOf(s.list())); n != 46 {
		t.Fatalf("%d services have a process, not 46", n)
	}
	ended := fmt.Sprintf("touch %s/ended", s.work)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"a command", s.with("worker00", "sleep 1000", "sleep 2000"), "~worker00 restarted service.exec"},
		{"a comment", map[string]string{"worker01": s.files["worker01"] + "# a comment\n"}, ""},
		{"an environment", s.with("worker02", `N = "2"`, `N = "two"`), "~worker02 restarted service.env"},
		{"a directory", s.with("worker03", "[service]\n", "[service]\ndir = \"/\"\n"), "~worker03 restarted service.dir"},
		{"a limit", map[string]string{"worker04": s.files["worker04"] + "[limits]\nnofile = 64\n"}, "~worker04 restarted limits.nofile"},
		{"a mask", s.with("worker05", "[service]\n", "[service]\numask = \"027\"\n"), "~worker05 restarted service.umask"},
		{"a timeout", s.with("worker06", "stop_timeout_ms = 5000", "stop_timeout_ms = 6000"), "~worker06 in place lifecycle.stop_timeout_ms"},
		{"a policy", map[string]string{"worker07": s.files["worker07"] + "restart = \"always\"\nmax_restarts = 3\nstop_signal = \"INT\"\n"},
			"~worker07 in place lifecycle.restart lifecycle.max_restarts lifecycle.stop_signal"},
		{"what is run around it", map[string]string{"worker08": s.files["worker08"] + "stop_exec = \"" + ended + "\"\npre_start = \"true\"\n"},
			"~worker08 in place lifecycle.pre_start lifecycle.stop_exec"},
		{"a log", map[string]string{"worker09": s.files["worker09"] + "[logging]\nbuffer_lines = 5\nfile = \"" + s.work + "/worker.log\"\n"},
			"~worker09 in place logging.buffer_lines logging.file"},
		{"a port", s.with("worker10", "[service]\n", "[service]\nports = [1]\n"), "~worker10 in place service.ports"},
		{"a class", s.with("worker11", "[service]\n", "[service]\nclass = \"system\"\ncritical = true\n"),
			"~worker11 in place service.class service.critical lifecycle.max_restarts"},
		{"readiness", map[string]string{"worker12": strings.Replace(s.files["worker12"], "sleep 1000", "svc notify=READY=1 sleep", 1) + "ready = \"notify\"\n"},
			"~worker12 restarted service.exec lifecycle.ready"},
		{"a kind of process", s.with("spare", "[service]\n", "[service]\noneshot = true\n"), "~spare in place service.oneshot lifecycle.start_timeout_ms"},
		{"what others require", s.with("db03", "sleep 1000", "sleep 3000"),
			"~db03 restarted service.exec, along api06, along api07, along worker12, along worker13, along worker14, along worker15"},
		{"in the middle", s.with("api08", "sleep 1000", "sleep 4000"), "~api08 restarted service.exec, along worker16, along worker17"},
		{"two that hang together", map[string]string{
			"db00":  strings.Replace(s.files["db00"], "sleep 1000", "sleep 5000", 1),
			"api00": strings.Replace(s.files["api00"], "sleep 1000", "sleep 5000", 1),
		}, "~api00 restarted service.exec, ~db00 restarted service.exec, along api01, along system, along worker00, along worker01, along worker02, along worker03"},
		{"an order", s.with("worker13", "after = []", `after = ["cron"]`), "~worker13 in place dependencies.after"},
		{"a new need that is there", s.with("worker13", `requires = ["api06"]`, `requires = ["api06", "logger"]`), "~worker13 in place dependencies.requires dependencies.after"},
		{"a need less", s.with("worker15", `requires = ["api07"]`, `requires = []`), "~worker15 in place dependencies.requires"},
		{"a new need that is not there", s.with("worker14", `requires = ["api07"]`, `requires = ["api07", "nobody"]`), "~worker14 stopped dependencies.requires"},
		{"a conflict with what is down", map[string]string{"rival": strings.Replace(s.files["rival"], "[dependencies]\n", "[dependencies]\nconflicts = [\"cron\"]\n", 1)},
			"~rival in place dependencies.conflicts"},
		{"an addition", map[string]string{"fresh": "[service]\nexec = \"sleep 1000\"\n[dependencies]\nrequires = [\"api10\"]\n"}, "+fresh"},
		{"an addition that is not started", map[string]string{"idle": "[service]\nexec = \"sleep 1000\"\nstatus = \"stop\"\n"}, "+idle"},
		{"a removal", map[string]string{"fresh": ""}, "-fresh"},
		{"a removal of what others require", map[string]string{"api09": ""}, "-api09, along worker18, along worker19"},
		{"its return", map[string]string{"api09": s.files["api09"]}, "+api09"},
		{"another name", map[string]string{"cron": "", "timer": s.files["cron"]}, "+timer, -cron"},
		{"another file name", map[string]string{"logger": "", "10-logger": strings.Replace(s.files["logger"], "[service]\n", "[service]\nname = \"logger\"\n", 1)}, ""},
		{"status stop", s.with("api11", "[service]\n", "[service]\nstatus = \"stop\"\n"), "~api11 stopped service.status"},
		{"status start", map[string]string{"api11": s.files["api11"]}, "~api11 in place service.status"},
		{"status ignore", s.with("api12", "[service]\n", "[service]\nstatus = \"ignore\"\n"), "~api12 in place service.status"},
		{"a target", s.with("system", `, "api14"`, ""), "~system in place dependencies.requires"},
		{"a service that becomes a target", map[string]string{"api13": "[target]\n"}, "~api13 restarted kind"},
	} {
		before := pidsOf(s.list())
		s.change(tt.files)
		planned, err := s.client.Reload(s.ctx, true)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := pidsOf(s.list()); !maps.Equal(got, before) {
			t.Fatalf("%s: --dry-run has changed something", tt.name)
		}
		done, err := s.client.Reload(s.ctx, false)
		if err != nil || !reflect.DeepEqual(done, planned) {
			t.Fatalf("%s: --dry-run said %s, and reload %s, %v", tt.name, shape(planned), shape(done), err)
		}
		if got := shape(done); got != tt.want {
			t.Errorf("%s: the plan is\n%s, expected\n%s", tt.name, got, tt.want)
		}
		s.settled(tt.name, atRest)
		after := pidsOf(s.list())
		moved := map[string]bool{}
		for _, c := range done.Changed {
			moved[c.Name] = c.Restart || c.Stop
		}
		for _, n := range slices.Concat(done.Added, done.Removed, done.Along) {
			moved[n] = true
		}
		for name, pid := range before {
			if is := after[name] != pid; is != moved[name] {
				t.Errorf("%s: %s had pid %d and has %d, and the plan was %s", tt.name, name, pid, after[name], shape(done))
			}
		}
		again, err := s.client.Reload(s.ctx, false)
		if err != nil || shape(again) != "" {
			t.Errorf("%s: the same reload again does %s, %v", tt.name, shape(again), err)
		}
	}

	// An error anywhere changes nothing.
	before := s.list()
	for name, files := range map[string]map[string]string{
		"a broken file":    {"broken": "[service]\nexce = 1\n", "worker00": s.files["worker01"]},
		"a cycle":          {"logger2": "[service]\nexec = \"true\"\n[dependencies]\nafter = [\"logger3\"]\n", "logger3": "[service]\nexec = \"true\"\n[dependencies]\nrequires = [\"logger2\"]\n"},
		"a name twice":     {"double": "[service]\nname = \"db00\"\nexec = \"true\"\n"},
		"a log file twice": {"log2": "[service]\nexec = \"true\"\n[logging]\nfile = \"" + s.work + "/worker.log\"\n"},
	} {
		kept := maps.Clone(s.files)
		s.change(files)
		for _, dry := range []bool{true, false} {
			if _, err := s.client.Reload(s.ctx, dry); len(problemsOf(err)) == 0 {
				t.Errorf("%s: it is not refused: %v", name, err)
			}
		}
		if after := s.list(); len(after) != len(before) || !maps.Equal(pidsOf(after), pidsOf(before)) {
			t.Errorf("%s: what was refused has changed something", name)
		}
		for n := range files {
			s.change(map[string]string{n: kept[n]})
		}
	}
	if again, err := s.client.Reload(s.ctx, false); err != nil || shape(again) != "" {
		t.Errorf("when all is mended, a reload does %s, %v", shape(again), err)
	}
}

// A reload meets services in the middle of a start, a stop, a wait, or before
// their next start, and the end is what was written last.
func TestReloadInTheMiddle(t *testing.T) {
	s := &stack{newLive(t), map[string]string{}}
	const sleep = "[service]\nexec = \"sleep 1000\"\n"
	s.change(map[string]string{
		"starting": sleep + "[lifecycle]\nready = \"notify\"\nstart_timeout_ms = 0\n",
		"stopping": "[service]\nexec = \"svc ignore=TERM append=stopping:ready\"\n[lifecycle]\nstop_timeout_ms = 1000000\n",
		"blocked":  sleep + "[dependencies]\nrequires = [\"starting\"]\n",
		"waiting":  "[service]\nexec = \"svc exit=3\"\n[lifecycle]\nrestart_delay_ms = 1000000\n",
	})
	s.up()
	s.settled("it stands", func(all map[string]ipc.Service) error {
		_, err := os.Stat(filepath.Join(s.work, "stopping"))
		if err != nil || all["starting"].State != ipc.StateStarting || all["blocked"].State != ipc.StateBlocked || all["waiting"].NextStart == nil {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := s.client.Stop(s.ctx, client.Options{NoWait: true}, func(ipc.Moved) {}, "stopping"); err != nil {
		t.Fatal(err)
	}
	before := s.list()
	s.change(map[string]string{
		"starting": sleep + "env = { A = \"1\" }\n",
		"stopping": sleep + "[lifecycle]\nstop_timeout_ms = 100\n",
		"blocked":  "[service]\nexec = \"sleep 2000\"\n",
		"waiting":  sleep,
	})
	done, err := s.client.Reload(s.ctx, false)
	if got, want := shape(done), "~blocked in place service.exec dependencies.requires, "+
		"~starting restarted service.env lifecycle.start_timeout_ms lifecycle.ready, "+
		"~stopping in place service.exec lifecycle.stop_timeout_ms, ~waiting in place service.exec lifecycle.restart_delay_ms lifecycle.restart_delay_max_ms"; err != nil || got != want {
		t.Errorf("the plan is\n%s, expected\n%s (%v)", got, want, err)
	}
	s.settled("all is as it was written last", func(all map[string]ipc.Service) error {
		for _, name := range []string{"starting", "blocked", "waiting"} {
			if all[name].State != ipc.StateRunning {
				return fmt.Errorf("%s is %s", name, all[name].State)
			}
		}
		if all["stopping"].State != ipc.StateFailed { // killed, by its new timeout
			return fmt.Errorf("stopping is %s", all["stopping"].State)
		}
		return nil
	})
	if s.list()["starting"].Pid == before["starting"].Pid {
		t.Error("what was starting was not restarted with its new environment")
	}
}
