package spec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

// LoadFile reads one file, as Parse does. A file that cannot be read, is not
// regular or is larger than 1 MiB is a problem.
func LoadFile(path string) (*Service, *Proxy, []Problem) {
	data, err := readFile(path)
	if err != nil {
		name := strings.TrimSuffix(filepath.Base(path), ".toml")
		return nil, nil, []Problem{{File: path, Message: err.Error(), Service: name}}
	}
	return Parse(path, data)
}

// LoadDir reads all *.toml files of a service directory but those whose name
// begins with a dot. What is broken is in the problems, in order of the files,
// and everything else in the plan. The error is that of reading the directory,
// for errors.Is(err, fs.ErrNotExist) and the like.
func LoadDir(dir string) (Plan, []Problem, error) { return LoadDirs("", dir) }

// LoadDirs reads a system directory, whose services are early, and a service
// directory, as LoadDir does. A system directory "" is none; one that does not
// exist is empty. Where the service directory cannot be read, the plan has the
// services of the other.
func LoadDirs(system, dir string) (Plan, []Problem, error) { return new(Loader).LoadDirs(system, dir) }

// Loader reads the same directories again and again, and of their files only
// those that may have changed. It is not safe for concurrent use.
type Loader struct {
	files  []loaded // those without a problem
	common Common
}

// LoadDirs is as the function of that name. What has not changed is the same
// pointer as the last time.
func (l *Loader) LoadDirs(system, dir string) (Plan, []Problem, error) {
	return l.loadDirs(system, dir, time.Now())
}

func (l *Loader) loadDirs(system, dir string, now time.Time) (Plan, []Problem, error) {
	before := make(map[string]*loaded, len(l.files))
	for i := range l.files {
		before[l.files[i].path()] = &l.files[i]
	}
	l.files = make([]loaded, 0, len(l.files))
	plan := Plan{Services: map[string]*Service{}, Proxies: map[string]*Proxy{}}
	var problems []Problem
	if system != "" {
		var err error
		if problems, err = l.load(&plan, system, true, before, now); err != nil && !errors.Is(err, os.ErrNotExist) {
			return plan, problems, err
		}
	}
	more, err := l.load(&plan, dir, false, before, now)
	return plan, append(problems, more...), err
}

// Keep has the loader hand out the services that are in effect in place of
// equal ones that it has read.
func (l *Loader) Keep(services map[string]*Service) {
	for i := range l.files {
		f := &l.files[i]
		if f.service == nil {
			continue
		}
		if s := services[f.service.Name]; s != nil && s.File == f.service.File {
			f.service = s
		}
	}
}

// Load adds the files of a directory, of the system directory if early is set,
// as LoadDir reads them.
func (p *Plan) Load(dir string, early bool) (problems []Problem, err error) {
	return new(Loader).load(p, dir, early, nil, time.Now())
}

func (l *Loader) load(p *Plan, dir string, early bool, before map[string]*loaded, now time.Time) (problems []Problem, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		kind := "service"
		if early {
			kind = "system"
		}
		return nil, fmt.Errorf("cannot read %s directory: %w", kind, err)
	}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".toml") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	files := make([]loaded, len(paths))
	broken := make([][]Problem, len(paths))
	each(len(paths), func(i int) { files[i], broken[i] = loadAgain(paths[i], before[paths[i]], now) })
	for i, f := range files {
		if broken[i] == nil {
			if was := before[paths[i]]; f.service != nil && (was == nil || was.service != f.service) {
				if early {
					f.service.MakeEarly()
				}
				l.common.Share(f.service)
				// As it was parsed, it lies in small pieces between those that are garbage now.
				f.service.Exec = f.service.Exec.compact()
			}
			l.files = append(l.files, f)
			broken[i] = p.Add(f.service, f.proxy)
		}
		problems = append(problems, broken[i]...)
	}
	return problems, nil
}

// each calls do for the numbers below n, on all processors.
func each(n int, do func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	all.Wait()
}

// loaded is what a file says, and by what it is known that it still does.
type loaded struct {
	stamp   stamp
	service *Service
	proxy   *Proxy // of a file without a service
}

func (f *loaded) path() string {
	if f.service != nil {
		return f.service.File
	}
	return f.proxy.File
}

// stamp changes when a file does. The zero stamp is that of a file which may
// change without.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // in ns; nobody can set ctime
}

// settledFor is how old the last change of a file has to be when it is read, or
// another one could follow that has the same time: the times of files are as
// coarse as 2 s (FAT). Those that lie ahead of the clock say nothing, either.
const settledFor = 3 * time.Second

func stampOf(path string, now time.Time) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || max(st.Mtim.Nano(), st.Ctim.Nano()) > now.Add(-settledFor).UnixNano() {
		return stamp{}
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}
}

// loadAgain reads a file unless it is the one that was read before.
func loadAgain(path string, before *loaded, now time.Time) (loaded, []Problem) {
	is := stampOf(path, now) // first, so that what is written meanwhile is read the next time
	if before != nil && is != (stamp{}) && is == before.stamp {
		return *before, nil
	}
	s, x, broken := LoadFile(path)
	return loaded{is, s, x}, broken
}

// MakeEarly makes a service one of the system directory.
func (s *Service) MakeEarly() { s.Early, s.Class = true, ClassSystem }

func readFile(path string) ([]byte, error) {
	// Looked at before it is opened, as opening a device may already do
	// something, and opened without blocking, as it may be a FIFO by then.
	info, err := os.Stat(path)
	if target, e := os.Readlink(path); e == nil && errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read file: it is a link to %s, which does not exist", quote(target))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read file: %w", errors.Unwrap(err))
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read file: it is %s, expected a regular file", fileKind(info.Mode()))
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read file: %w", errors.Unwrap(err))
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("cannot read file: it has just been replaced")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read file: %w", errors.Unwrap(err))
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("cannot read file: it is larger than %d bytes", maxFile)
	}
	return data, nil
}

func fileKind(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&os.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&os.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}
