package spec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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
func LoadDirs(system, dir string) (Plan, []Problem, error) {
	plan := Plan{Services: map[string]*Service{}, Proxies: map[string]*Proxy{}}
	var problems []Problem
	if system != "" {
		var err error
		if problems, err = plan.Load(system, true); err != nil && !errors.Is(err, os.ErrNotExist) {
			return plan, problems, err
		}
	}
	more, err := plan.Load(dir, false)
	return plan, append(problems, more...), err
}

// Load adds the files of a directory, of the system directory if early is set,
// as LoadDir reads them.
func (p *Plan) Load(dir string, early bool) (problems []Problem, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		kind := "service"
		if early {
			kind = "system"
		}
		return nil, fmt.Errorf("cannot read %s directory: %w", kind, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".toml") {
			continue
		}
		s, x, broken := LoadFile(filepath.Join(dir, e.Name()))
		if s != nil && early {
			s.MakeEarly()
		}
		if broken == nil {
			broken = p.Add(s, x)
		}
		problems = append(problems, broken...)
	}
	return problems, nil
}

// MakeEarly makes a service one of the system directory.
func (s *Service) MakeEarly() { s.Early, s.Class = true, ClassSystem }

func readFile(path string) ([]byte, error) {
	// Looked at before it is opened, as opening a device may already do
	// something, and opened without blocking, as it may be a FIFO by then.
	info, err := os.Stat(path)
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
