package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/failpoint"
	"github.com/threefoldtech/zinit/common/fdlimit"
	"github.com/threefoldtech/zinit/common/terminal"
	"github.com/threefoldtech/zinit/ipc"
)

const (
	// maxChildFd bounds the descriptor numbers of a child.
	maxChildFd = 1 << 10
	// maxPipes is how many pipes a spawn may ask for: their read ends go with
	// one frame.
	maxPipes = ipc.MaxFds
	// atOnce is how many spawns of runs look at files at the same time, and
	// forksAtOnce how many of them fork. A fork holds one of the runtime's
	// processors until the child has executed, so there is one more processor than
	// forks (procs). With more of either nothing is quicker on two processors, and
	// each that is idle is woken to look for work at each event.
	atOnce      = 8
	forksAtOnce = 3
	procs       = forksAtOnce + 1
	// defaultPath is the search path where PATH is unset.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// jobKind is what a job starts.
type jobKind uint8

const (
	runJob        jobKind = iota
	supervisorJob         // which has no run
	shellJob              // nor has this one
)

// job is a spawn on its way through a thread that forks, or through a goroutine of
// its own. It owns its descriptors.
type job struct {
	Spawn ipc.Spawn
	kind  jobKind
	// Files are the descriptors of the child by number, -1 for none.
	Files []int
	// Opened are those of Files that close with the job.
	Opened []int
	pipes  []namedFd // read ends
	forked bool      // the keeper knows that it has forked
}

type namedFd struct {
	name string
	fd   int
}

// close closes what the child got, and the read ends if nobody wants them.
func (j *job) close(readEnds bool) {
	for _, fd := range j.Opened {
		unix.Close(fd)
	}
	j.Opened = nil
	if readEnds {
		for _, p := range j.pipes {
			unix.Close(p.fd)
		}
		j.pipes = nil
	}
}

// outcome is what a job tells the keeper: that it has forked, and how it came
// out.
type outcome struct {
	job *job
	// pid is the child, since a moment before it was forked, at one after it has
	// executed; both are CLOCK_MONOTONIC.
	pid   int
	since time.Duration
	// done is false for the helper's child that has not executed yet.
	done  bool
	start uint64 // clock ticks since boot
	at    time.Duration
	fail  *ipc.SpawnFailed
}

// launcher runs jobs. What it does outside of the keeper shares nothing with that
// but jobs and outcomes.
type launcher struct {
	forkers  *forkers
	forks    chan struct{}
	outcomes chan outcome
	answers  chan error // of the program on disk
	checks   checks     // the keeper's
	log      *logger
}

// newLauncher makes the threads that fork; old are the descriptors that are there
// already.
func newLauncher(log *logger, old []int) *launcher {
	l := &launcher{
		forks:    make(chan struct{}, forksAtOnce),
		outcomes: make(chan outcome, 64),
		answers:  make(chan error, 1),
		log:      log,
	}
	var err error
	if l.forkers, err = startForkers(atOnce, old, l.direct); err != nil {
		log.warn("starts will be slower: cannot make threads that fork", "error", err)
	}
	return l
}

// begin has a job run, and an outcome told. It belongs to the keeper.
func (l *launcher) begin(j *job) {
	if fail := l.checks.check(&j.Spawn); fail != nil {
		l.fail(j, fail)
		return
	}
	if err := j.makePipes(); err != nil {
		l.fail(j, explain(&j.Spawn, failure{ipc.StageFork, errno(err), ""}))
		return
	}
	// Those threads may all be held up by a file system, which the supervisor and a
	// shell must not be.
	switch {
	case needsHelper(&j.Spawn):
		go l.helped(j)
	case j.kind != runJob || !l.forkers.hand(j):
		go l.direct(j, j.Files)
	}
}

// direct runs a job whose child is forked as it is, with those descriptors of this
// thread.
func (l *launcher) direct(j *job, files []int) {
	defer l.guard(j)
	path, local, fail := preflight(j)
	if fail != nil {
		l.fail(j, fail)
		return
	}
	if local {
		o, fail := l.fork(j, func(cgroup int) (int, error) { return forkDirect(j, path, files, cgroup) })
		if fail == nil {
			o.done = true
			l.outcomes <- o
			return
		}
	}
	// Its one error number stands for all that may go wrong up to execve: the helper
	// says which it was.
	go l.helped(j)
}

// helped runs a job by way of the exec helper, which says on a pipe what became
// of it.
func (l *launcher) helped(j *job) {
	defer l.guard(j)
	path, _, fail := preflight(j)
	if fail != nil {
		l.fail(j, fail)
		return
	}
	status := -1
	o, fail := l.fork(j, func(cgroup int) (pid int, err error) {
		pid, status, err = forkHelper(j, path, cgroup)
		return pid, err
	})
	if fail != nil {
		l.fail(j, fail)
		return
	}
	l.outcomes <- o
	// No thread waits here: the descriptor is with the runtime's poller.
	if f, failed := readStatus(status); failed {
		l.fail(j, explain(&j.Spawn, f))
		return
	}
	o.done, o.at = true, monotonic()
	l.outcomes <- o
}

// guard has a job whose goroutine has panicked fail.
func (l *launcher) guard(j *job) {
	if p := recover(); p != nil {
		l.log.panicked("a spawn", p)
		l.fail(j, &ipc.SpawnFailed{Stage: ipc.StageFork, Message: fmt.Sprintf("cannot start %s: pid1 has a bug: %v", j.Spawn.Tag, p)})
	}
}

// fork has a child forked in its cgroup, and notes when that was.
func (l *launcher) fork(j *job, fork func(cgroup int) (pid int, err error)) (o outcome, fail *ipc.SpawnFailed) {
	cgroup, fail := openCgroup(&j.Spawn)
	if fail != nil {
		return o, fail
	}
	if cgroup >= 0 {
		defer unix.Close(cgroup)
	}
	l.forks <- struct{}{}
	defer func() { <-l.forks }()
	o.job, o.since = j, monotonic()
	before := ticks()
	var err error
	if o.pid, err = fork(cgroup); err != nil {
		return o, explain(&j.Spawn, failure{ipc.StageFork, errno(err), ""})
	}
	failpoint.Hit("forked")
	o.at = monotonic()
	if o.start = ticks(); o.start != before {
		if st, err := readStat(o.pid); err == nil {
			o.start = st.start
		}
	}
	return o, nil
}

func (l *launcher) fail(j *job, f *ipc.SpawnFailed) {
	f.Run = j.Spawn.Run
	l.outcomes <- outcome{job: j, done: true, fail: f}
}

// prepare checks the order of a job and collects the descriptors of the child.
func (j *job) prepare(store fdStore, null int) (err error) {
	defer func() {
		if err != nil {
			j.close(true)
		}
	}()
	sp := &j.Spawn
	if err := checkSpawn(sp); err != nil {
		return err
	}
	j.Files = []int{null, 1, 2}
	if sp.Console || sp.Stdin && !terminal.Is(0) {
		j.Files[0] = 0
	}
	for _, u := range sp.Fds {
		fd, ok := store[u.Name]
		if !ok {
			return fmt.Errorf("no descriptor %s is stored", u.Name)
		}
		d, err := dup(fd)
		if err != nil {
			return fmt.Errorf("cannot duplicate descriptor %s: %w", u.Name, err)
		}
		j.give(u.Fd, d)
	}
	return nil
}

// makePipes makes the pipes of the child.
func (j *job) makePipes() error {
	most := fdlimit.Pipes()
	for _, p := range j.Spawn.Pipes {
		ends, err := pipeFor(p.Fd)
		if err != nil {
			return err
		}
		j.give(p.Fd, ends[1])
		j.pipes = append(j.pipes, namedFd{p.Name, ends[0]})
		if max(ends[0], ends[1]) >= most {
			return unix.EMFILE
		}
		// Each end has its own file description, so the child's stays blocking.
		if _, err := unix.FcntlInt(uintptr(ends[0]), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
			return err
		}
	}
	return nil
}

// give makes fd the child's descriptor n; the job closes it.
func (j *job) give(n, fd int) {
	for len(j.Files) <= n {
		j.Files = append(j.Files, -1)
	}
	j.Files[n] = fd
	j.Opened = append(j.Opened, fd)
}

// checkSpawn refuses what no kernel would take, and what would break a bound.
func checkSpawn(sp *ipc.Spawn) error {
	if sp.Run == 0 {
		return fmt.Errorf("the order has no run id")
	}
	if len(sp.Argv) == 0 || sp.Argv[0] == "" {
		return fmt.Errorf("the command is empty")
	}
	for _, list := range [][]string{sp.Argv, sp.Env, {sp.Dir, sp.Cgroup}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fmt.Errorf("%q has a NUL byte", s)
			}
		}
	}
	if len(sp.Pipes) > maxPipes {
		return fmt.Errorf("%d pipes are asked for, at most %d can be had", len(sp.Pipes), maxPipes)
	}
	var nums []int
	names := map[string]bool{}
	for _, p := range sp.Pipes {
		nums = append(nums, p.Fd)
		if names[p.Name] || p.Name == "" || len(p.Name) > maxFdName {
			return fmt.Errorf("pipe name %q is empty, too long or used twice", p.Name)
		}
		names[p.Name] = true
	}
	for _, u := range sp.Fds {
		nums = append(nums, u.Fd)
	}
	slices.Sort(nums)
	for i, n := range nums {
		if n < 0 || n >= maxChildFd || i > 0 && n == nums[i-1] {
			return fmt.Errorf("descriptor number %d is used twice or not from 0 to %d", n, maxChildFd-1)
		}
	}
	return nil
}

// needsHelper says whether something is asked for that cannot be done between
// fork and execve of a Go program.
func needsHelper(sp *ipc.Spawn) bool {
	return sp.Umask != nil || len(sp.Rlimits) > 0 || sp.Nice != nil || sp.OOMScoreAdj != nil ||
		sp.NoNewPrivs || len(sp.AmbientCaps) > 0 || len(sp.ListenNames) > 0
}

// preflight finds the program and says whether it and the directory are on
// local file systems. It opens both before anything is forked: on a file
// system that does not answer, this thread hangs and nothing else does.
func preflight(j *job) (path string, local bool, fail *ipc.SpawnFailed) {
	sp := &j.Spawn
	dir, local := unix.AT_FDCWD, true
	if sp.Dir != "" {
		fd, err := open(sp.Dir, lookOnly|unix.O_DIRECTORY)
		if err != nil && err != unix.EACCES && err != unix.EPERM {
			return "", false, explain(sp, failure{ipc.StageDir, errno(err), sp.Dir})
		}
		if err != nil {
			// It may be open to the identity that the process is going to have.
			local = false
		} else {
			defer unix.Close(fd)
			dir, local = fd, onLocalFS(fd)
		}
	}
	path = sp.Argv[0]
	if !strings.Contains(path, "/") {
		var e syscall.Errno
		if path, e = lookPath(dir, path, envPath(sp.Env)); e != 0 {
			return "", false, explain(sp, failure{ipc.StageExec, e, path})
		}
	}
	fd, err := unix.Openat(dir, path, lookOnly|unix.O_CLOEXEC, 0)
	switch {
	case err == unix.EACCES, err == unix.EPERM:
		return path, false, nil
	case err != nil:
		return "", false, explain(sp, failure{ipc.StageExec, errno(err), path})
	}
	defer unix.Close(fd)
	return path, local && onLocalFS(fd), nil
}

// lookPath finds a program in a search path whose relative elements start at
// dir, as execvp(3) does for who may enter them all: where the service's user may
// not, the exec helper goes on from there.
func lookPath(dir int, name, search string) (string, syscall.Errno) {
	var denied string
	for _, p := range candidates(name, search) {
		var st unix.Stat_t
		if err := retry(func() error { return unix.Fstatat(dir, p, &st, 0) }); err != nil {
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Mode&0o111 != 0 {
			return p, 0
		}
		if denied == "" {
			denied = p
		}
	}
	if denied != "" {
		return denied, unix.EACCES
	}
	return name, unix.ENOENT
}

// candidates are the places of a program in a search path.
func candidates(name, search string) []string {
	list := strings.Split(search, ":")
	for i, d := range list {
		if d == "" {
			d = "."
		}
		list[i] = strings.TrimSuffix(d, "/") + "/" + name
	}
	return list
}

// envPath is PATH of an environment.
func envPath(env []string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			return v
		}
	}
	return defaultPath
}

func errno(err error) syscall.Errno {
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return 0
}
