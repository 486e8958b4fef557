package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// ownCgroup is the directory of the cgroup v2 of these tests, "" if they may
// not make any below it.
var ownCgroup = sync.OnceValue(func() string {
	self, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(self)) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			dir := filepath.Join(mount, path)
			if ok && unix.Access(dir+"/cgroup.procs", unix.W_OK) == nil {
				return dir
			}
		}
	}
	return ""
})

// cgroups lists those that the zinit of the story has made.
func (s *stage) cgroups() []string {
	info, err := os.Stat(s.runtime)
	if err != nil || ownCgroup() == "" {
		return nil
	}
	st := info.Sys().(*syscall.Stat_t)
	top := filepath.Join(ownCgroup(), fmt.Sprintf("zinit-%x-%x", st.Dev, st.Ino))
	var list []string
	filepath.WalkDir(top, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			list = append(list, path)
		}
		return nil
	})
	return list
}

// checkCgroup counts the cgroups of a service, and the processes in them.
func checkCgroup(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	cgroups, processes := 0, 0
	for _, path := range stageOf(ts).cgroups() {
		if strings.HasPrefix(filepath.Base(path), args[0]+".") {
			cgroups++
			pids, _ := os.ReadFile(path + "/cgroup.procs")
			processes += len(strings.Fields(string(pids)))
		}
	}
	if got := []string{strconv.Itoa(cgroups), strconv.Itoa(processes)}; got[0] != args[1] || got[1] != args[2] {
		return fmt.Errorf("%s has %s cgroups with %s processes, expected %s with %s", args[0], got[0], got[1], args[1], args[2])
	}
	return nil
}
