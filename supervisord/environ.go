package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

// environment is what every command of a service gets beside its own.
func (s *server) environment(sp *spec.Service) *environ {
	e := &environ{base: s.base, own: make(ipc.Words, 0, 4)}
	e.set("ZINIT_SERVICE", sp.Name)
	e.set("ZINIT_SOCKET", s.paths.Socket)
	return e
}

// ownEnviron is the environment of zinit without what is meant for it alone.
func ownEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case keeperEnv, "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID":
			return true
		}
		return false
	})
}

// environ is an environment: what is its own over a base that many share. The last
// value of a name counts. Both are searched from the front: most have few dozen names.
type environ struct{ base, own ipc.Words }

func newEnviron(base []string) *environ {
	e := &environ{}
	for _, kv := range base {
		if name, _, ok := strings.Cut(kv, "="); ok {
			e.put(name, kv)
		}
	}
	if _, ok := e.get("PATH"); !ok {
		e.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	return e
}

func (e *environ) set(name, value string) { e.put(name, name+"="+value) }

func (e *environ) put(name, kv string) {
	if i := e.own.Find(name); i >= 0 {
		e.own[i] = kv
		return
	}
	e.own = append(e.own, kv)
}

func (e *environ) get(name string) (string, bool) {
	for _, list := range []ipc.Words{e.own, e.base} {
		if i := list.Find(name); i >= 0 {
			return list[i][len(name)+1:], true
		}
	}
	return "", false
}

// all is the whole environment.
func (e *environ) all() ipc.Words { return e.own.Over(e.base) }

// addFrom adds env_file, then env. config says that an error lies in the
// configuration itself.
func (e *environ) addFrom(sp *spec.Service) (config bool, err error) {
	for _, entry := range sp.EnvFile {
		vars, _, config, err := e.readFile(entry)
		if err != nil {
			return config, err
		}
		for _, v := range vars {
			value, err := spec.ExpandString(v.Value, e.get)
			if err != nil {
				return true, fmt.Errorf("cannot expand %s of %s: %w", v.Name, entry, withoutText(err))
			}
			e.set(v.Name, value)
		}
	}
	for _, v := range sp.Env {
		if v.File != "" {
			data, err := readSmall(v.File)
			if err != nil {
				return false, fmt.Errorf("cannot read the value of %s from %s: %w", v.Name, v.File, err)
			}
			e.set(v.Name, strings.TrimSuffix(string(data), "\n"))
			continue
		}
		value, err := spec.ExpandString(v.Value, e.get)
		if err != nil {
			return true, fmt.Errorf("cannot expand %s: %w", v.Name, err)
		}
		e.set(v.Name, value)
	}
	return false, nil
}

// withoutText leaves out of an error what a file says in ${NAME:?text}.
func withoutText(err error) error {
	var unset *spec.UnsetError
	if errors.As(err, &unset) {
		return &spec.UnsetError{Name: unset.Name, OrEmpty: unset.OrEmpty}
	}
	return err
}

// readFile reads one entry of env_file, and returns the path that it stands for;
// errors have the entry, as the path may hold a secret. A file that may be
// missing and is has no variables.
func (e *environ) readFile(entry string) (vars []spec.EnvVar, path string, config bool, err error) {
	entry, optional := strings.CutPrefix(entry, "-")
	if path, err = spec.ExpandString(entry, e.get); err != nil {
		return nil, entry, true, fmt.Errorf("cannot expand env_file: %w", err)
	}
	data, err := readSmall(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, path, false, nil
	}
	if err != nil {
		return nil, path, false, fmt.Errorf("cannot read env_file %s: %w", entry, err)
	}
	vars, err = spec.ParseEnvFile(entry, data)
	return vars, path, false, err
}

// readSmall reads a regular file of at most 1 MiB; execve(2) takes no longer
// environment anyway, and a FIFO would block. Errors do not name the file.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if len(data) > most {
		return nil, errors.New("it is larger than 1 MiB")
	}
	return data, nil
}

// isSecret says that the value of a variable is not to be shown.
func isSecret(v spec.EnvVar) bool { return v.File != "" }
