package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupSite is the cgroup that zinit was started in.
type cgroupSite struct {
	own  string // its directory
	path string // as /proc/self/cgroup has it, "/" for the root of its namespace
	// systemd is the directory that is there where systemd is init
	// (sd_booted(3)).
	systemd string
}

// findCgroup finds the cgroup of this process.
func findCgroup() (cgroupSite, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return cgroupSite{}, err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cgroupSite{}, err
	}
	return parseCgroup(string(mounts), string(self))
}

// parseCgroup finds a cgroup in the texts of /proc/PID/mountinfo (proc(5)) and
// /proc/PID/cgroup (cgroups(7)). cgroup v2 may be mounted beside controllers of
// v1, and the mount may show a part of the tree only.
func parseCgroup(mounts, self string) (cgroupSite, error) {
	path, found := "", false
	for line := range strings.Lines(self) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path, found = p, true
		}
	}
	if !found {
		return cgroupSite{}, fmt.Errorf("this kernel has no cgroup v2")
	}
	for line := range strings.Lines(mounts) {
		mount, kind, _ := strings.Cut(line, " - ")
		f := strings.Fields(mount)
		if !strings.HasPrefix(kind, "cgroup2 ") || len(f) < 5 {
			continue
		}
		if rest, ok := below(f[3], path); ok {
			return cgroupSite{own: filepath.Join(unescape(f[4]), rest), path: path, systemd: "/run/systemd/system"}, nil
		}
	}
	return cgroupSite{}, fmt.Errorf("cgroup v2 is not mounted")
}

// below is the way from one path down to another.
func below(root, path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	return rest, ok && (rest == "" || rest[0] == '/')
}

// unescape turns the octal escapes of mountinfo into what they stand for.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// root says that it is the root of the whole tree, which has no such file.
func (s cgroupSite) root() bool { return !exists(filepath.Join(s.own, "cgroup.type")) }

// mayDivide says why zinit may not make cgroups there. It may if pid1 is init,
// if it is the top of a container's own cgroup namespace, if systemd has
// delegated it (Delegate=yes of a unit), or if there is no systemd, which wants
// to be the only one who writes to the tree.
func (s cgroupSite) mayDivide(pid1 int) error {
	if pid1 == 1 || s.path == "/" && !s.root() || !exists(s.systemd) {
		return nil
	}
	b := make([]byte, 8)
	for _, name := range []string{"user.delegate", "trusted.delegate"} { // since systemd 251 and 236
		if n, err := unix.Getxattr(s.own, name, b); err == nil && string(b[:n]) == "1" {
			return nil
		}
	}
	return fmt.Errorf("systemd has not delegated %s to zinit (Delegate=yes of its unit)", s.own)
}
