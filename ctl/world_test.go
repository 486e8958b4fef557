package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

var testNow = time.Date(2026, 11, 22, 18, 30, 0, 0, time.UTC)

func ago(d time.Duration) *ipc.Time {
	at := ipc.Time(testNow.Add(-d))
	return &at
}

func ptr(n int) *int { return &n }

// services is a system with one of each kind.
func services() []ipc.Service {
	in := func(file string) ipc.Origin { return ipc.Origin{File: "/etc/zinit/services/" + file} }
	return []ipc.Service{
		{
			Name: "api", Kind: "service", State: ipc.StateBlocked, Class: "user", Status: "start", Desired: "up",
			Note: "waits for cache: failed", Requires: []string{"cache", "db"}, After: []string{"logger"},
			BlockedBy: []ipc.Block{{Kind: "requires", Name: "cache", Detail: "failed, retry in 4 s"}},
			Since:     ago(20 * time.Second), Origin: in("api.toml"),
		},
		{
			Name: "cache", Kind: "service", State: ipc.StateFailed, Class: "user", Status: "start", Desired: "up",
			Restarts: 3, RestartsTotal: 12, Since: ago(4 * time.Second), NextStart: ago(-4 * time.Second),
			Exit:   &ipc.Exit{Code: ptr(1), At: *ago(4 * time.Second)},
			Reason: &ipc.Reason{Kind: "exit_code", Message: "exit code 1", Code: ptr(1)}, Note: "exit code 1, retry in 4 s",
			Dependents: []string{"api"}, Origin: in("cache.toml"),
		},
		{
			Name: "db", Kind: "service", State: ipc.StateRunning, Class: "system", Status: "start", Desired: "up",
			Pid: 812, Since: ago(2*time.Hour + 3*time.Minute), UptimeMS: (2*time.Hour + 3*time.Minute).Milliseconds(),
			Health:     &ipc.Health{Status: "healthy", LatencyMS: 0.84, CheckedAt: ago(3 * time.Second), Message: "HTTP 200"},
			StatusText: "ready for \x1b[31mqueries", Dependents: []string{"api"}, Wants: []string{"metrics"}, Origin: in("db.toml"),
		},
		{
			Name: "logger", Kind: "service", State: ipc.StateStopping, Class: "user", Status: "start", Desired: "down",
			Pid: 901, Since: ago(time.Second), RestartsTotal: 1, Origin: in("logger.toml"),
		},
		{
			Name: "migrate", Kind: "service", State: ipc.StateExited, Class: "user", Status: "start", Desired: "up",
			Oneshot: true, Since: ago(26 * time.Hour), Exit: &ipc.Exit{Code: ptr(0), At: *ago(26 * time.Hour)}, Origin: in("migrate.toml"),
		},
		{
			Name: "multi-user", Kind: "target", State: ipc.StateRunning, Class: "user", Status: "start", Desired: "up",
			Since: ago(72 * time.Second), UptimeMS: 72_000, Requires: []string{"db"}, Origin: in("multi-user.toml"),
		},
		{
			Name: "scratch", Kind: "service", State: ipc.StateInactive, Class: "user", Status: "ignore", Desired: "down",
			Origin: ipc.Origin{Ephemeral: true},
		},
		{
			Name: "web", Kind: "service", State: ipc.StateStarting, Class: "user", Status: "start", Desired: "up",
			Pid: 20977, Since: ago(2 * time.Second), UptimeMS: 2000, Health: &ipc.Health{Status: "unknown"}, Note: "waits for its health check",
			Origin: in("web.toml"),
		},
	}
}

func info() ipc.Info {
	return ipc.Info{
		Version: "0.1.0", Pid: 43, KeeperPid: 1, Mode: "vm", UptimeMS: (50 * time.Hour).Milliseconds(),
		Socket: "/run/zinit.sock", RuntimeDir: "/run/zinit", ConfigDir: "/etc/zinit/services",
		Services: map[string]int{"running": 2, "failed": 1, "blocked": 1, "starting": 1, "stopping": 1, "exited": 1, "inactive": 1},
		ConfigErrors: []ipc.Problem{{
			File: "/etc/zinit/services/mail.toml", Line: 3, Column: 1, Message: `unknown key "exce"; did you mean "exec"?`,
		}},
		ServerRestarts: 2, LastEnd: "upgrade from 0.0.9 to 0.1.0", DownMS: 4,
		Replaced: []ipc.Replaced{
			{At: ago(30 * time.Hour), Why: "killed by SIGKILL", TookMS: 6.13, Version: "0.0.9"},
			{At: ago(2 * time.Hour), Why: "upgrade from 0.0.9 to 0.1.0", TookMS: 4.2, Version: "0.1.0"},
		},
	}
}

func logLines() []ipc.LogLine {
	line := func(d time.Duration, service, stream, text string) ipc.LogLine {
		return ipc.LogLine{Time: ago(d), Service: service, Stream: stream, Text: text}
	}
	piece := line(3*time.Second, "db", "stdout", "half ")
	piece.Partial = true
	return []ipc.LogLine{
		line(9*time.Second, "cache", "stdout", "starting"),
		line(8*time.Second, "db", "stderr", "\x1b[31mred\x1b[0m and a \xff byte"),
		piece,
		line(2*time.Second, "db", "stdout", "a line"),
		line(time.Second, "cache", "stderr", "tab\tand ü"),
	}
}

// answer is a zinit-server with those services.
func answer(r *ipctest.Request) {
	var p struct {
		Names []string  `msgpack:"names"`
		Name  string    `msgpack:"name"`
		State ipc.State `msgpack:"state"`
	}
	r.Params(&p)
	byName := map[string]ipc.Service{}
	for _, s := range services() {
		byName[s.Name] = s
	}
	for _, name := range append(p.Names, p.Name) {
		if _, ok := byName[name]; name != "" && !ok {
			r.Fail(&ipc.Error{Kind: ipc.ErrNotFound, Message: fmt.Sprintf("there is no service %s", name), Service: name, Nearest: "db"})
			return
		}
	}
	switch r.Method {
	case "service.list":
		list := services()
		if p.State != "" {
			list = slices.DeleteFunc(list, func(s ipc.Service) bool { return s.State != p.State })
		}
		ipctest.Items(r, list)
	case "service.status", "service.wait":
		var list []ipc.Service
		for _, name := range p.Names {
			list = append(list, byName[name])
		}
		ipctest.Items(r, list)
	case "service.start":
		ipctest.Items(r, []ipc.Moved{
			{Name: "db", From: ipc.StateInactive, To: ipc.StateStarting},
			{Name: "db", From: ipc.StateStarting, To: ipc.StateRunning, Pid: 123},
			{Name: "web", From: ipc.StateRunning, To: ipc.StateRunning, Pid: 20977},
		})
	case "service.stop":
		ipctest.Items(r, []ipc.Moved{
			{Name: "api", From: ipc.StateRunning, To: ipc.StateExited, Note: "it requires db"},
			{Name: "db", From: ipc.StateRunning, To: ipc.StateExited},
		})
	case "service.restart":
		failed := ipc.Moved{Name: "db", From: ipc.StateStarting, To: ipc.StateFailed, Reason: &ipc.Reason{Kind: "exit_code", Message: "exit code 3"}}
		r.Item(failed)
		r.Fail(&ipc.Error{Kind: ipc.ErrFailed, Message: "db failed: exit code 3", Service: "db", Moved: []ipc.Moved{failed}})
	case "service.kill":
		r.Respond(map[string]any{})
	case "service.why":
		r.Respond(ipc.Why{
			Name: "api", State: ipc.StateBlocked, Detail: "waits for cache and db",
			BlockedBy: []ipc.Block{
				{Kind: "requires", Name: "cache", Detail: "blocked", Because: &ipc.Why{
					Name: "cache", State: ipc.StateBlocked, BlockedBy: []ipc.Block{{
						Kind: "requires", Name: "disk", Because: &ipc.Why{
							Name: "disk", State: ipc.StateFailed, Reason: &ipc.Reason{Message: "exit code 32"},
						}}, {
						Kind: "port", Name: "6379", Detail: "held by redis-server (pid 77)",
					}},
				}},
				{Kind: "after", Name: "db", State: ipc.StateStarting, Detail: "is starting"},
			},
		})
	case "service.tree":
		cache := ipc.Tree{Name: "cache", State: ipc.StateFailed}
		db := ipc.Tree{Name: "db", State: ipc.StateRunning}
		ipctest.Items(r, []ipc.Tree{
			{Name: "api", State: ipc.StateBlocked, Requires: []ipc.Tree{cache, db}},
			{Name: "multi-user", State: ipc.StateRunning, Requires: []ipc.Tree{{
				Name: "web", State: ipc.StateStarting, Requires: []ipc.Tree{db}}, {Name: "migrate", State: ipc.StateExited},
			}},
		})
	case "service.boot":
		at := func(ms float64) *float64 { return &ms }
		ipctest.Items(r, []ipc.BootService{
			{Name: "api", WantedAtMS: 12, WaitedFor: "cache"},
			{Name: "cache", WantedAtMS: 12, SpawnedAtMS: at(15.2)},
			{Name: "db", WantedAtMS: 12, SpawnedAtMS: at(14), ReadyAtMS: at(620.5)},
			{Name: "logger", WantedAtMS: 12, SpawnedAtMS: at(14.1), ReadyAtMS: at(14.1)},
			{Name: "migrate", WantedAtMS: 12, SpawnedAtMS: at(621), ReadyAtMS: at(1240), WaitedFor: "db"},
			{Name: "multi-user", WantedAtMS: 12, ReadyAtMS: at(1750), WaitedFor: "web"},
			{Name: "scratch", WantedAtMS: 50_000, SpawnedAtMS: at(50_001), ReadyAtMS: at(50_001)},
			{Name: "web", WantedAtMS: 12, SpawnedAtMS: at(1241), ReadyAtMS: at(1749), WaitedFor: "migrate"},
		})
	case "logs.get", "logs.follow":
		var list []ipc.LogLine
		for _, l := range logLines() {
			if len(p.Names) == 0 || slices.Contains(p.Names, l.Service) {
				list = append(list, l)
			}
		}
		if r.Method == "logs.follow" {
			list = append(list, ipc.LogLine{Service: "db", Missed: 12})
		}
		ipctest.Items(r, list)
	case "xinet.list", "xinet.status":
		active := time.Date(2026, 11, 22, 18, 20, 0, 0, time.UTC)
		ipctest.Items(r, []ipc.ProxyStatus{
			{
				Name: "db", Service: "db", Listen: []string{"tcp:127.0.0.1:5432", "unix:/run/db"}, Backend: "unix:/run/postgresql/.s.PGSQL.5432",
				Mode: "proxy", State: ipc.ProxyActive, ConnectionsActive: 3, ConnectionsTotal: 1204, ConnectionsFailed: 1,
				BytesToBackend: 5_300_000, BytesFromBackend: 1 << 40, LastActivity: &active,
			},
			{Name: "mail", Service: "mail", Listen: []string{"tcp:[::1]:25"}, Mode: "pass", State: ipc.ProxyIdle, Ephemeral: true},
			{
				Name: "old-web", Service: "scratch", Listen: []string{"tcp:127.0.0.1:80"}, Backend: "tcp:127.0.0.1:8080",
				Mode: "proxy", State: ipc.ProxyStarting, ConnectionsTotal: 2, ConnectionsFailed: 2, LastError: "service scratch has failed: ended with exit code 1",
			},
		})
	case "system.info":
		r.Respond(info())
	}
}
