package main

import (
	"os"
	"strings"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   string
		pid    int
		env    string
		file   string
		mode   ipc.Mode
		server string
		main   string
		note   bool
	}{
		{args: "", pid: 1, mode: ipc.ModeVM},
		{args: "", pid: 1, env: "ZINIT_CONTAINER", mode: ipc.ModeContainer},
		{args: "", pid: 1, env: "container", mode: ipc.ModeContainer},
		{args: "", pid: 1, file: "/.dockerenv", mode: ipc.ModeContainer},
		{args: "", pid: 1, file: "/run/.containerenv", mode: ipc.ModeContainer},
		{args: "--vm", pid: 1, env: "container", mode: ipc.ModeVM},
		{args: "splash single", pid: 1, mode: ipc.ModeVM},
		{args: "splash --log-level debug", pid: 1, mode: ipc.ModeVM, server: "--log-level debug"},
		{args: "splash", pid: 1, env: "container", mode: ipc.ModeContainer, server: "splash"},
		{args: "--container", pid: 1, mode: ipc.ModeContainer},
		{args: "", pid: 7, mode: ipc.ModeContainer, note: true},
		{args: "--vm", pid: 7, mode: ipc.ModeContainer, note: true},
		{args: "--container --config-dir /x --log-level debug", pid: 1, mode: ipc.ModeContainer, server: "--config-dir /x --log-level debug"},
		{args: "--container -- sh -c --vm", pid: 1, mode: ipc.ModeContainer, main: "sh -c --vm"},
		{args: "--container --", pid: 1, mode: ipc.ModeContainer},
		{args: "--subreaper -- /bin/zinit-server --socket /s", pid: 7, mode: ipc.ModeStandalone, server: "/bin/zinit-server --socket /s"},
		{args: "--subreaper --supervisor=12,5 -- /bin/zinit-server", pid: 7, mode: ipc.ModeStandalone, server: "/bin/zinit-server"},
	} {
		opt := parse(strings.Fields(c.args), c.pid,
			func(k string) string { return map[string]string{c.env: "yes"}[k] },
			func(p string) bool { return p == c.file })
		server := opt.server
		if opt.mode != ipc.ModeStandalone {
			server = server[1:]
		}
		if opt.mode != c.mode || strings.Join(server, " ") != c.server || strings.Join(opt.main, " ") != c.main || (opt.note != "") != c.note {
			t.Errorf("%+v gives %+v", c, opt)
		}
	}
	for _, flag := range []string{"--version", "-h", "--help"} {
		if opt := parse([]string{flag}, 1, os.Getenv, exists); !strings.Contains(opt.show, "zinit-pid1") {
			t.Errorf("%s shows %q", flag, opt.show)
		}
	}
}
