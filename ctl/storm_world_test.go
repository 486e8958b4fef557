//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// stormWorld is one life of one zinit, from boot to shutdown.
type stormWorld struct {
	*testing.T
	*storm
	*stage // what its processes are known by
	kind   string
	dir    string
	seed   uint64
	cred   *syscall.Credential // of the user that all of it runs as; nil for the own

	services map[string]*stormService
	lanes    [][]stormStep
	model    *stormModel

	cmd   *exec.Cmd
	pid1  int
	ended chan struct{} // closed when cmd has ended

	phase stormPhase
	// commanded and journaled have a token when something has just happened
	// that is worth a kill.
	commanded, journaled chan struct{}

	mu      sync.Mutex // guards what follows
	kills   []*stormKill
	wrong   []string
	counts  stormTotals
	follows []*exec.Cmd

	// What is seen when all is settled and before it is shut down.
	list map[string]ipc.Service
	gets map[string]string
	fds  int
}

func (w *stormWorld) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// violate notes that a promise is broken.
func (w *stormWorld) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// fatal is violate for what nothing can follow.
func (w *stormWorld) fatal(format string, args ...any) {
	w.violate(format, args...)
	panic(errStorm)
}

var errStorm = errors.New("the storm cannot go on")

// endure is where a lane, or the whole of a world, ends after fatal.
func endure() {
	if r := recover(); r != nil && r != errStorm {
		panic(r)
	}
}

// live is the whole life of a world.
func (w *stormWorld) live() {
	defer w.close()
	defer endure()
	w.phase.set("boot")
	w.start()
	killer := w.newKiller()
	defer killer.stop()
	killer.loose(stormBoot, 100*time.Millisecond)
	w.follow("events", "events", "-f", "--json")
	w.follow("follow", append([]string{"logs", "-f", "-n", "all", "--json"}, w.printers(true)...)...)
	w.zinit("wait", "init", "--for", "exited")
	killer.wait()
	killer.loose(stormWishes, time.Second)
	var lanes sync.WaitGroup
	for _, steps := range w.lanes {
		lanes.Go(func() {
			defer endure()
			for _, step := range steps {
				w.phase.set(step.phase)
				step.do(w)
			}
		})
	}
	lanes.Wait()
	w.phase.set("between")
	killer.wait()
	killer.rest()
	w.settle()
	killer.wait()
	w.phase.set("shutdown")
	killer.loose(stormShutdown, 200*time.Millisecond)
	w.shutdown()
	killer.wait()
	w.checkAll()
}

// start starts zinit as this kind of world has it.
func (w *stormWorld) start() {
	flags := []string{"--config-dir", w.path("services"), "--socket", w.path("z.sock")}
	argv := append([]string{filepath.Join(w.storm.bin, "zinit-server")}, flags...)
	if w.kind == "pid1" {
		argv = []string{"unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"}
		if os.Getuid() != 0 {
			argv = append(argv, "--user", "--map-root-user")
		}
		argv = append(append(argv, filepath.Join(w.storm.bin, "zinit-pid1"), "--container", "--attach-logs=false"), flags...)
	}
	w.cmd = w.command(context.Background(), argv...)
	log, err := os.Create(w.path("zinit.log"))
	if err != nil {
		w.fatal("%v", err)
	}
	defer log.Close()
	w.cmd.Stdout, w.cmd.Stderr = log, log
	if err := w.cmd.Start(); err != nil {
		w.fatal("cannot start zinit: %v", err)
	}
	go func() {
		w.cmd.Wait()
		close(w.ended)
	}()
	w.pid1 = w.cmd.Process.Pid
	if w.kind == "pid1" {
		w.must(func() error {
			for _, p := range allProcesses() {
				if p.parent == w.cmd.Process.Pid && p.name == "zinit-pid1" {
					w.pid1 = p.pid
					return nil
				}
			}
			return errors.New("there is no zinit-pid1")
		})
	}
}

// command makes a command that belongs to this world.
func (w *stormWorld) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = w.dir
	cmd.Env = []string{
		w.mark, "PATH=" + w.storm.bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "ZINIT_SOCKET=" + w.path("z.sock"),
		"GORACE=atexit_sleep_ms=0", "GOMAXPROCS=2", "ZINIT_LOG_LEVEL=debug",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.cred}
	return cmd
}

// must waits until something is so; not for long where something is wrong
// already.
func (w *stormWorld) must(attempt func() error) {
	limit := 2 * patience
	w.mu.Lock()
	if len(w.wrong) > 0 {
		limit = 5 * time.Second
	}
	w.mu.Unlock()
	if err := eventually(limit, attempt); err != nil {
		w.fatal("not within %s: %v", limit, err)
	}
}

// zinit runs a command that has to succeed and returns what it prints.
func (w *stormWorld) zinit(args ...string) []byte {
	out, err := w.try("", args...)
	if err != nil {
		w.fatal("zinit %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// try runs a command of zinit.
func (w *stormWorld) try(stdin string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	cmd := w.command(ctx, append([]string{filepath.Join(w.storm.bin, "zinit")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	looks := slices.Contains([]string{"list", "get", "status", "events", "incidents", "wait"}, args[0])
	if !looks {
		hint(w.commanded) // it begins
	}
	out, err := cmd.Output()
	if !looks {
		hint(w.commanded) // it is answered
	}
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	if !looks {
		w.mu.Lock()
		w.counts.wishes++
		w.mu.Unlock()
	}
	return out, nil
}

// hint leaves a token, if there is none yet.
func hint(tokens chan struct{}) {
	select {
	case tokens <- struct{}{}:
	default:
	}
}

// follow starts a command that goes on through all of the storm. It is there
// as soon as there is a socket.
func (w *stormWorld) follow(file string, args ...string) {
	w.must(func() error {
		_, err := os.Stat(w.path("z.sock"))
		return err
	})
	cmd := w.command(context.Background(), append([]string{filepath.Join(w.storm.bin, "zinit")}, args...)...)
	out, err := os.Create(w.path(file))
	if err != nil {
		w.fatal("%v", err)
	}
	defer out.Close()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		w.fatal("%v", err)
	}
	w.mu.Lock()
	w.follows = append(w.follows, cmd)
	w.mu.Unlock()
}

// shutdown ends zinit, which says with its exit code that all went well.
func (w *stormWorld) shutdown() {
	if rand.New(rand.NewPCG(w.seed, 2)).IntN(2) == 0 {
		w.zinit("shutdown", "--timeout", "60s")
	} else {
		syscall.Kill(w.pid1, syscall.SIGTERM)
	}
	select {
	case <-w.ended:
	case <-time.After(2 * patience):
		w.fatal("zinit does not end; there is:\n%s", strings.Join(w.processes(), "\n"))
	}
	if state := w.cmd.ProcessState; state.ExitCode() != 0 {
		w.violate("zinit ended with %v, expected exit code 0", state)
	}
	for _, f := range w.follows {
		f.Wait()
	}
	w.must(func() error {
		if left := w.processes(); len(left) > 0 {
			return fmt.Errorf("processes are left over:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
}

// close ends what is left of a world, and shows what is wrong with it.
func (w *stormWorld) close() {
	w.killAll()
	if w.cmd != nil && w.cmd.Process != nil {
		<-w.ended
	}
	if len(w.wrong) > 0 && *stormKeep != "" {
		if out, err := exec.Command("cp", "-a", w.dir, *stormKeep).CombinedOutput(); err != nil {
			w.violate("cannot keep what is left: %v: %s", err, out)
		}
	}
}

// report adds what was counted to the table, and fails the test for what is
// wrong.
func (w *stormWorld) report() {
	for _, k := range w.kills {
		w.storm.kills = append(w.storm.kills, *k)
	}
	a, b := &w.total, w.counts
	a.worlds++
	a.wishes += b.wishes
	a.replaced += b.replaced
	a.starts += b.starts
	a.ends += b.ends
	a.events += b.events
	a.incidents += b.incidents
	a.printed += b.printed
	a.followed += b.followed
	a.stored += b.stored
	a.violations += len(w.wrong)
	for _, text := range w.wrong {
		w.Errorf("%s (%s, seed %d): %s", w.kind, filepath.Base(w.dir), *stormSeed, text)
	}
	if len(w.wrong) > 0 {
		log, _ := os.ReadFile(w.path("zinit.log"))
		w.Logf("zinit.log of %s ends with:\n%s", w.kind, log[max(0, len(log)-6000):])
	}
}

// server finds zinit-server among the children of pid1. known has those that
// it cannot be.
func (w *stormWorld) server(known map[int]bool) int {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || known[pid] {
			continue
		}
		p, ok := processOf(pid)
		switch {
		case ok && p.parent == w.pid1 && p.name == "zinit-server":
			if p.state != 'Z' {
				return pid
			}
		case ok && p.parent == w.pid1 && p.name == "zinit-pid1": // not executed yet
		default:
			known[pid] = true
		}
	}
	return 0
}

// stormKiller kills zinit-server again and again.
type stormKiller struct {
	w       *stormWorld
	rng     *rand.Rand
	probes  sync.WaitGroup
	round   sync.WaitGroup
	inotify *os.File
	done    chan struct{}
}

func (w *stormWorld) newKiller() *stormKiller {
	k := &stormKiller{w: w, rng: rand.New(rand.NewPCG(w.seed, 3)), done: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, w.path("j"), unix.IN_MODIFY)
	}
	if err != nil {
		w.fatal("cannot watch the journals: %v", err)
	}
	k.inotify = os.NewFile(uintptr(fd), "inotify")
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := k.inotify.Read(buf); err != nil {
				return
			}
			hint(w.journaled)
		}
	}()
	return k
}

func (k *stormKiller) stop() {
	close(k.done)
	k.inotify.Close()
	k.round.Wait()
	k.probes.Wait()
}

// wait returns when all kills of this phase, or its rest, are over.
func (k *stormKiller) wait() { k.round.Wait() }

// rest lets zinit-server live for so long that the next kill is the first of a
// row.
func (k *stormKiller) rest() {
	if k.w.kind == "quiet" {
		return
	}
	k.round.Go(func() {
		pid, since := 0, time.Time{}
		eventually(2*patience, func() error {
			if now := k.w.server(map[int]bool{}); now != pid || now == 0 {
				pid, since = now, time.Now()
			}
			if lived := time.Since(since); lived <= stormRest {
				return fmt.Errorf("zinit-server lives for %s", lived)
			}
			return nil
		})
	})
}

// pause is how long zinit-pid1 waited on purpose the last time, as it has said.
func (k *stormKiller) pause() time.Duration {
	log, _ := os.ReadFile(k.w.path("zinit.log"))
	all := stormPauses.FindAllSubmatch(log, -1)
	if len(all) == 0 {
		return 0
	}
	d, _ := time.ParseDuration(string(all[len(all)-1][1]))
	return d
}

var stormPauses = regexp.MustCompile(`the supervisor has ended: starting it again .* in=(\S+)`)

// loose lets it kill so often, with pauses of up to longest.
func (k *stormKiller) loose(times int, longest time.Duration) {
	if k.w.kind == "quiet" {
		return
	}
	k.round.Go(func() {
		for range times {
			if !k.kill(k.moment(longest)) {
				return
			}
		}
	})
}

// moment waits for the moment of the next kill, and says which it is.
func (k *stormKiller) moment(longest time.Duration) string {
	after := func(shortest, longest time.Duration) <-chan time.Time { // evenly over the orders of magnitude
		return time.After(time.Duration(float64(shortest) * math.Pow(float64(longest)/float64(shortest), k.rng.Float64())))
	}
	name, token := "service", k.w.journaled
	switch k.rng.IntN(6) {
	case 0:
		select {
		case <-after(time.Microsecond, longest):
		case <-k.done:
		}
		return "time"
	case 1:
		select {
		case <-after(time.Microsecond, 20*time.Millisecond): // as long as the new one finds its feet
		case <-k.done:
		}
		return "replacement"
	case 2, 3:
		name, token = "command", k.w.commanded
	}
	select {
	case <-token: // an old one
	default:
	}
	select {
	case <-token:
		select {
		case <-after(time.Microsecond, 30*time.Millisecond):
		case <-k.done:
		}
	case <-time.After(longest):
		name = "time"
	case <-k.done:
	}
	return name
}

// kill kills the next zinit-server that there is.
func (k *stormKiller) kill(trigger string) bool {
	known := map[int]bool{}
	for begun := time.Now(); ; time.Sleep(200 * time.Microsecond) {
		select {
		case <-k.done:
			return false
		case <-k.w.ended:
			return false
		default:
		}
		if time.Since(begun) > time.Second {
			known, begun = map[int]bool{}, time.Now() // pids come again
		}
		pid := k.w.server(known)
		if pid == 0 {
			continue
		}
		phase := k.w.phase.get()
		if syscall.Kill(pid, syscall.SIGKILL) != nil {
			continue
		}
		at := time.Now()
		kill := &stormKill{phase: phase, trigger: trigger}
		k.w.mu.Lock()
		k.w.kills = append(k.w.kills, kill)
		n := len(k.w.kills)
		k.w.mu.Unlock()
		if phase != "shutdown" {
			k.probe(kill, n, at)
		}
		for { // it may have been killed twice otherwise
			if p, ok := processOf(pid); !ok || p.gone() || p.parent != k.w.pid1 {
				return true
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// probe measures the time until the next one answers, if no other kill comes
// before that.
func (k *stormKiller) probe(kill *stormKill, n int, at time.Time) {
	k.probes.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for over := false; !over; time.Sleep(time.Millisecond) {
			err := k.ping(ctx)
			took := time.Since(at)
			k.w.mu.Lock()
			over = err == nil || ctx.Err() != nil || len(k.w.kills) > n
			if err == nil && len(k.w.kills) == n {
				kill.answer, kill.pause = took, k.pause()
			}
			k.w.mu.Unlock()
		}
	})
}

// ping returns when zinit answers; before its first start it has no socket.
func (k *stormKiller) ping(ctx context.Context) error {
	c, err := client.Dial(ctx, k.w.path("z.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Ping(ctx)
	return err
}

// status reads zinit list.
func (w *stormWorld) status() map[string]ipc.Service {
	var list []ipc.Service
	if err := json.Unmarshal(w.zinit("list", "--json"), &list); err != nil {
		w.fatal("cannot read zinit list: %v", err)
	}
	byName := map[string]ipc.Service{}
	for _, s := range list {
		byName[s.Name] = s
	}
	return byName
}

// info reads zinit status.
func (w *stormWorld) info() (info ipc.Info) {
	if err := json.Unmarshal(w.zinit("status", "--json"), &info); err != nil {
		w.fatal("cannot read zinit status: %v", err)
	}
	return info
}
