package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/threefoldtech/zinit/common/spec"
)

// doubter looks at what a service needs of this machine. It may be another one
// than that on which the files are to be used, or not be set up yet, so what it
// misses is worth a warning and no more.
type doubter struct {
	service  *spec.Service
	env      map[string]string
	warnings []spec.Problem
}

// doubts are the warnings about all services of a plan.
func doubts(plan spec.Plan) []spec.Problem {
	var all []spec.Problem
	for _, name := range slices.Sorted(maps.Keys(plan.Services)) {
		if s := plan.Services[name]; s.Kind == spec.KindService {
			d := &doubter{service: s, env: map[string]string{}}
			d.look()
			all = append(all, d.warnings...)
		}
	}
	return all
}

func (d *doubter) warn(format string, args ...any) {
	d.warnings = append(d.warnings, spec.Problem{File: d.service.File, Service: d.service.Name, Message: fmt.Sprintf(format, args...)})
}

func (d *doubter) look() {
	s := d.service
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		d.env[name] = value
	}
	d.env["ZINIT_SERVICE"], d.env["ZINIT_SOCKET"] = s.Name, "/run/zinit.sock"
	d.identity()
	for _, entry := range s.EnvFile {
		path, optional := strings.CutPrefix(entry, "-")
		d.asWritten("service.env_file", path, true)
		if path, ok := d.expand("service.env_file", path); ok {
			d.envFile(path, optional)
		}
	}
	for _, v := range s.Env {
		if v.File != "" {
			d.file("service.env."+v.Name, v.File)
			delete(d.env, v.Name) // a secret: what is made of it is not looked at
			continue
		}
		d.asWritten("service.env."+v.Name, v.Value, false)
		if value, ok := d.expand("service.env."+v.Name, v.Value); ok {
			d.env[v.Name] = value
		}
	}
	d.asWritten("service.dir", s.Dir, true)
	dir, known := d.expand("service.dir", s.Dir)
	if known && dir != "" && filepath.IsAbs(dir) {
		if fi, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			d.warn("service.dir: %s does not exist", dir)
		} else if err == nil && !fi.IsDir() {
			d.warn("service.dir: %s is not a directory", dir)
		}
	}
	if file := s.Logging.File; file != "" {
		d.logFile(file)
	}
	d.program("service.exec", s.Exec, dir)
	d.program("lifecycle.pre_start", s.Lifecycle.PreStart, dir)
	d.program("lifecycle.stop_exec", s.Lifecycle.StopExec, dir)
	if s.Health != nil {
		if references := spec.References(s.Health.Endpoint); len(references) > 0 {
			d.warn("health.endpoint: variables such as ${%s} are not expanded here", references[0])
		}
		d.program("health.command", s.Health.Command, dir)
	}
}

// identity looks up user and group.
func (d *doubter) identity() {
	s := d.service
	if s.User != "" {
		account, err := user.Lookup(s.User)
		_, notNumber := strconv.ParseUint(s.User, 10, 32)
		if notNumber == nil {
			account, err = user.LookupId(s.User)
		}
		switch {
		case err == nil:
			d.env["HOME"], d.env["USER"], d.env["LOGNAME"] = account.HomeDir, account.Username, account.Username
		case notNumber != nil:
			d.warn("service.user: there is no user %s", s.User)
		case s.Group == "":
			d.warn("service.user: %s has no entry in /etc/passwd, so its group is not known: set service.group", s.User)
		}
	}
	if s.Group != "" {
		_, notNumber := strconv.ParseUint(s.Group, 10, 32)
		if _, err := user.LookupGroup(s.Group); err != nil && notNumber != nil {
			d.warn("service.group: there is no group %s", s.Group)
		}
	}
}

// lookup is that of a variable. Those that an env_file or a secret may set are
// not known.
func (d *doubter) lookup(name string) (string, bool) {
	value, ok := d.env[name]
	return value, ok
}

// guesswork says that a variable without a value may have one all the same.
func (d *doubter) guesswork(name string) bool {
	return len(d.service.EnvFile) > 0 || slices.ContainsFunc(d.service.Env, func(v spec.EnvVar) bool { return v.Name == name })
}

// expand returns what a text stands for, and whether that is known.
func (d *doubter) expand(field, text string) (string, bool) {
	if len(d.service.EnvFile) > 0 && len(spec.References(text)) > 0 {
		return "", false
	}
	value, err := spec.ExpandString(text, d.lookup)
	return value, d.expanded(field, err)
}

func (d *doubter) expanded(field string, err error) bool {
	var unset *spec.UnsetError
	if errors.As(err, &unset) && !d.guesswork(unset.Name) {
		d.warn("%s: %v", field, err)
	}
	return err == nil
}

// asWritten warns of what a shell would expand and zinit does not, and says whether
// it did. Where the text is a path of its own that is certainly a mistake, else if
// there is such a variable.
func (d *doubter) asWritten(field, text string, path bool) bool {
	if path && (text == "~" || strings.HasPrefix(text, "~/")) {
		d.warn("%s: ~ is not expanded here: write ${HOME}", field)
		return true
	}
	for _, t := range spec.Unexpanded(text) {
		if strings.HasPrefix(t, "${") {
			d.warn("%s: %s stays as it is: known are ${NAME}, ${NAME:-default} and ${NAME:?message}", field, t)
			return true
		}
		if _, known := d.env[t[1:]]; path || known {
			d.warn("%s: %s is not expanded here: write ${%s}", field, t, t[1:])
			return true
		}
	}
	return false
}

// envFile looks whether an environment file is there, and can be read as one.
func (d *doubter) envFile(path string, optional bool) {
	if !optional {
		d.file("service.env_file", path)
	}
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > 1<<20 {
		return
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return // it may be for zinit's eyes alone
	}
	if _, err := spec.ParseEnvFile(path, data); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		d.warn("service.env_file: %s", first)
	}
}

// file looks whether there is a file or a directory.
func (d *doubter) file(field, path string) {
	if _, err := os.Stat(path); filepath.IsAbs(path) && errors.Is(err, fs.ErrNotExist) {
		d.warn("%s: %s does not exist", field, path)
	}
}

// logFile looks whether zinit would write to a file.
func (d *doubter) logFile(path string) {
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		d.warn("logging.file: %s does not exist", dir)
	} else if err == nil && !fi.IsDir() {
		d.warn("logging.file: %s is not a directory", dir)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		d.warn("logging.file: %s is a symbolic link, which is not followed", path)
	} else if err == nil && !fi.Mode().IsRegular() {
		d.warn("logging.file: %s is not a regular file", path)
	}
}

// program looks whether a command can be executed.
func (d *doubter) program(field string, command spec.Command, dir string) {
	if len(command) == 0 {
		return
	}
	for i, w := range command {
		word := ""
		for _, p := range w {
			word += p.Text
		}
		// What follows may be for a shell, which expands more.
		if strings.HasSuffix(word, "sh") || word == "-c" || d.asWritten(field, word, i == 0) {
			break
		}
	}
	words, err := command.Expand(d.lookup)
	if !d.expanded(field, err) || len(d.service.EnvFile) > 0 && len(spec.References(command[:1].String())) > 0 {
		return
	}
	program := words[0]
	switch {
	case !strings.Contains(program, "/"):
		path, ok := d.env["PATH"]
		if !ok || len(d.service.EnvFile) > 0 && path == "" {
			return
		}
		if !slices.ContainsFunc(filepath.SplitList(path), func(in string) bool {
			fi, err := os.Stat(filepath.Join(in, program))
			return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
		}) {
			d.warn("%s: %s is in no directory of PATH", field, program)
		}
		return
	case !filepath.IsAbs(program) && !filepath.IsAbs(dir):
		return // from the directory of zinit, whatever that is
	case !filepath.IsAbs(program):
		program = filepath.Join(dir, program)
	}
	switch fi, err := os.Stat(program); {
	case errors.Is(err, fs.ErrNotExist):
		d.warn("%s: %s does not exist", field, program)
	case err != nil:
	case !fi.Mode().IsRegular():
		d.warn("%s: %s is not a program", field, program)
	case fi.Mode()&0o111 == 0:
		d.warn("%s: %s is not executable (mode %04o)", field, program, fi.Mode().Perm())
	}
}
