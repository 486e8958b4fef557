package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Checks for stories with real servers and with a lot of output.
func init() {
	storyChecks["http"] = checkHTTP
	storyChecks["here"] = checkHere
	storyChecks["idle"] = checkIdle
	storyChecks["peak"] = checkPeak
}

// checkHTTP looks for a pattern in the page that a server on a unix socket
// gives: http SOCKET PATTERN.
func checkHTTP(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", ts.MkAbs(args[0]))
		},
	}}
	answer, err := client.Get("http://localhost/")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK || !pattern.Match(page) {
		return fmt.Errorf("%s answers %s, expected %q:\n%s", args[0], answer.Status, args[1], page)
	}
	return nil
}

// checkHere counts the processes whose working directory is in that of the
// story. Servers overwrite their environment and command line, and change
// their session, but stay where their files are.
func checkHere(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	work := ts.Getenv("WORK")
	var found []string
	for _, p := range allProcesses() {
		dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.pid))
		if p.state != 'Z' && (dir == work || strings.HasPrefix(dir, work+"/")) {
			found = append(found, p.String())
		}
	}
	if len(found) != want {
		return fmt.Errorf("%d processes are here, expected %d:\n%s", len(found), want, strings.Join(found, "\n"))
	}
	return nil
}

// checkIdle says that neither zinit-pid1 nor zinit-server uses the processor
// for so long: less than a hundredth of it, or than can be told.
func checkIdle(ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	used := func() (sum time.Duration) {
		for _, pid := range zinitPids(ts) {
			sum += cpuTime(pid)
		}
		return sum
	}
	before := used()
	time.Sleep(d) // the time is the subject
	if got, most := used()-before, max(d/100, 20*time.Millisecond); got > most {
		return fmt.Errorf("zinit used the processor for %s in %s of nothing to do", got, d)
	}
	return nil
}

// cpuTime is from utime and stime of proc(5), in hundredths of a second.
func cpuTime(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// zinitPids returns zinit-pid1 and zinit-server of the last zinit.
func zinitPids(ts *testscript.TestScript) []int {
	s := stageOf(ts)
	server, err := s.supervisor(ts)
	ts.Check(err)
	return []int{s.last(ts).cmd.Process.Pid, server}
}

// checkPeak says that no zinit process has ever had more memory than so many
// MiB, and the runtime directory not more on its disk: peak MEMORY DISK.
func checkPeak(ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	memory, err := strconv.Atoi(args[0])
	ts.Check(err)
	disk, err := strconv.Atoi(args[1])
	ts.Check(err)
	for _, pid := range zinitPids(ts) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		ts.Check(err)
		var kib int
		for line := range strings.Lines(string(status)) {
			fmt.Sscanf(line, "VmHWM: %d kB", &kib)
		}
		if kib == 0 || kib > memory<<10 {
			p, _ := processOf(pid)
			return fmt.Errorf("%s had %d KiB of memory, expected at most %d MiB", p.name, kib, memory)
		}
	}
	var size int64
	dir := strings.TrimSuffix(ts.Getenv("ZINIT_SOCKET"), ".sock")
	ts.Check(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if info, e := os.Lstat(path); e == nil {
			size += info.Size()
		}
		if os.IsNotExist(err) {
			return nil // dropped meanwhile
		}
		return err
	}))
	if size > int64(disk)<<20 {
		return fmt.Errorf("%s has %d KiB, expected at most %d MiB", dir, size>>10, disk)
	}
	return nil
}
