package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// run starts a shell script in a session of its own, as pid1 does, and returns
// its pid and the numbers that it has printed, which end with a dot.
func run(t *testing.T, script string) (pid int, printed []int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		for _, pid := range printed {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		cmd.Wait()
	})
	text, err := bufio.NewReader(out).ReadString('.')
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(strings.TrimSuffix(text, ".")) {
		var n int
		fmt.Sscan(word, &n)
		printed = append(printed, n)
	}
	return cmd.Process.Pid, printed
}

func (o *owners) of(t *testing.T, name string) []int {
	t.Helper()
	all, err := o.processes()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, p := range all[name] {
		pids = append(pids, p.pid)
	}
	return pids
}

// TestWhoseAProcessIs: those of the session, also when their parent has gone,
// and what descends from them in a session of its own.
func TestWhoseAProcessIs(t *testing.T) {
	web, more := run(t, `sh -c 'sleep 1000 >/dev/null & echo $!'; setsid sleep 1000 >/dev/null & echo $! .; wait`)
	db, _ := run(t, `echo .; sleep 1000`)
	run(t, `echo .; sleep 1000`)
	o := &owners{pids: map[string]int{}, leaders: map[int]string{}, sessions: map[int]string{}}
	o.add("web", &core.Run{Pid: web})
	o.add("db", &core.Run{Pid: db})
	want := append([]int{web}, more...)
	slices.Sort(want)
	if got := o.of(t, "web"); !slices.Equal(got, want) {
		t.Errorf("web has %v, want %v", got, want)
	}
	if got := o.of(t, "db"); !slices.Contains(got, db) || slices.Contains(got, web) {
		t.Errorf("db has %v, want %d and its children", got, db)
	}

	// A leader that has ended leaves its session.
	o = &owners{pids: map[string]int{}, leaders: map[int]string{}, sessions: map[int]string{}}
	o.add("web", &core.Run{Pid: web, Exited: true})
	if got := o.of(t, "web"); !slices.Equal(got, want) {
		t.Errorf("the session of web has %v, want %v", got, want)
	}
}

func TestUsageOfAService(t *testing.T) {
	busy, _ := run(t, `echo .; while :; do :; done`)
	o := &owners{pids: map[string]int{}, leaders: map[int]string{}, sessions: map[int]string{}}
	o.add("busy", &core.Run{Pid: busy})
	all, err := o.processes()
	if err != nil {
		t.Fatal(err)
	}
	before := measure(all["busy"])
	for now := before; now.cpu-before.cpu < 300*time.Millisecond; now = measure(all["busy"]) {
		time.Sleep(time.Millisecond) // its use of the processor is the subject
	}
	s := summarize("busy", busy, all["busy"], before)
	if s.Pid != busy || s.Processes != 1 || s.MemoryBytes < 4096 || s.CPUTimeMS < 300 || s.CPUPercent <= 0 || s.CPUPercent > 110 {
		t.Errorf("it uses %+v", s)
	}
	if s.Fds == nil || *s.Fds < 3 {
		t.Errorf("it has %v descriptors, want at least 3", s.Fds)
	}
}

func TestUsageOfAServiceWithoutProcesses(t *testing.T) {
	s := summarize("web", 0, nil, usage{})
	if s.Processes != 0 || s.CPUPercent != 0 || s.MemoryBytes != 0 {
		t.Errorf("it uses %+v", s)
	}
}

// TestProcessTreesFitIntoFrames: whatever a service makes, its trees pass the
// check for frames, and no process is lost or told twice.
func TestProcessTreesFitIntoFrames(t *testing.T) {
	long := strings.Repeat("x", maxCommand)
	chain, wide := []process{}, []process{}
	for i := range 50 {
		chain = append(chain, process{10 + i, stat{ppid: 9 + i}})
	}
	wide = append(wide, process{pid: 10})
	for i := range 3 * maxProcesses {
		wide = append(wide, process{11 + i, stat{ppid: 10 + i%2}})
	}
	for name, processes := range map[string][]process{"chain": chain, "wide": wide, "none": nil} {
		seen := map[int]int{}
		for _, p := range processTrees(processes, func(int) string { return long }) {
			b, err := msgpack.Marshal([]any{ipc.KindItem, ipc.Item{ID: 1, Item: p}})
			if err != nil {
				t.Fatal(err)
			}
			if err := ipc.Check(b); err != nil || len(b) > ipc.MaxFrame {
				t.Errorf("%s: an item of %d bytes: %v", name, len(b), err)
			}
			seen[p.Pid] = max(seen[p.Pid], 1)
			count(p.Children, seen)
		}
		for _, p := range processes {
			if n := seen[p.pid]; n != 1 {
				t.Errorf("%s: process %d is there %d times", name, p.pid, n)
			}
			delete(seen, p.pid)
		}
		if len(seen) > 0 {
			t.Errorf("%s: there are other processes: %v", name, seen)
		}
	}
}

func count(children []ipc.Process, seen map[int]int) {
	for _, p := range children {
		seen[p.Pid]++
		count(p.Children, seen)
	}
}

func TestCommandOfAProcess(t *testing.T) {
	if got := commandOf(os.Getpid()); !strings.HasPrefix(got, strings.Join(os.Args[:1], " ")) {
		t.Errorf("the command of this test is %q", got)
	}
}
