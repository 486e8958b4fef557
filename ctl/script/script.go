// Package script runs Starlark scripts whose functions are the commands of
// zinit: zinit start web is zinit.start("web").
//
// functions.go has the table of all functions, from which docs/scripting.md is
// generated; each is the method of the client that the command of its name uses
// as well, and answers with the fields of its --json. values.go makes Starlark
// values of answers, service.go makes service files of Starlark values.
//
// A run is one goroutine. The tests run scripts against a server of their own
// on a real socket; those in testdata/scripts run against the real programs.
package script

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.starlark.net/lib/json"
	starlarktime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/client"
)

// dialect is what a script may do beside Starlark's core, which was made for
// configuration: what a program of a few lines expects.
var dialect = &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}

// maxSource bounds a script, in bytes: it is read into memory, and the parser
// takes a thousand times that where brackets are nested all the way.
const maxSource = 512 << 10

// Options are the surroundings of a script.
type Options struct {
	// Dial connects to a server, by default to that of the command line.
	Dial func(ctx context.Context, socket string) (*client.Client, error)
	// Explain gives an error's kind, words and exit code as the command line
	// has them.
	Explain func(error) (kind ipc.ErrorKind, message string, code int)
	// Timeout bounds each question to the server that does not say otherwise.
	Timeout time.Duration
	// Stdin has the script -, Stdout takes what is printed.
	Stdin  io.Reader
	Stdout *bufio.Writer
	// Clean makes a line fit to be printed.
	Clean func(string) string
	// Args are the arguments after the name of the script.
	Args []string
}

// ErrInterrupted is the cause of the error of a script whose context was
// canceled.
var ErrInterrupted = errors.New("interrupted")

// Exit is the error of a script that called exit with another code than 0.
type Exit struct{ Code int }

func (e *Exit) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// Run runs a script: one of those that are built in, a file, all *.star files
// of a directory, in the order of their names until one fails, or - for
// standard input. Its error is an *Exit, an *Error at a place in a script, or
// that of reading one. When the context ends, so does Run, if need be without
// the script.
func Run(ctx context.Context, name string, o Options) error {
	r := &runner{Options: o, ctx: ctx}
	ended := make(chan error, 1)
	go func() {
		defer r.close()
		ended <- r.named(name)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// The interpreter looks for that between two steps, one of which may be to
	// sort a list of millions.
	const patience = time.Second
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		return ErrInterrupted
	}
}

// named runs what a name stands for.
func (r *runner) named(name string) error {
	r.environment()
	if source, ok := builtinSource(name); ok {
		return r.run(name, source, nil)
	}
	if name == "-" {
		source, err := read(r.Stdin, "standard input")
		if err != nil {
			return err
		}
		return r.inFolder("stdin", source, ".")
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return unknown(name, err)
	case info.IsDir():
		return r.directory(name)
	}
	return r.file(name)
}

func (r *runner) close() {
	for _, c := range r.clients {
		c.Close()
	}
}

// directory runs the scripts in a directory.
func (r *runner) directory(dir string) error {
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return fmt.Errorf("cannot run the scripts of a directory: %w", err)
	}
	found := false
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".star" || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		found = true
		if err := r.file(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("cannot run the scripts of %s: no *.star file is in it", dir)
	}
	return nil
}

func (r *runner) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read the script: %w", err)
	}
	defer f.Close()
	source, err := read(f, path)
	if err != nil {
		return err
	}
	// What a script loads is beside the file, not beside a link to it.
	real := path
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		real = resolved
	}
	return r.inFolder(path, source, filepath.Dir(real))
}

// inFolder runs a script that may load the files of a folder.
func (r *runner) inFolder(name string, source []byte, dir string) error {
	// A folder that may not be opened matters to none but load.
	folder, err := os.OpenRoot(dir)
	if err != nil {
		return r.run(name, source, nil)
	}
	defer folder.Close()
	return r.run(name, source, folder)
}

func read(from io.Reader, name string) ([]byte, error) {
	source, err := io.ReadAll(io.LimitReader(from, maxSource+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the script: %w", err)
	case len(source) > maxSource:
		return nil, fmt.Errorf("cannot run %s: it is larger than %d KiB", name, maxSource>>10)
	}
	return source, nil
}

// runner is one run.
type runner struct {
	Options
	ctx         context.Context
	predeclared starlark.StringDict
	clients     []*client.Client // to be closed
	// written is the error of the last print.
	written error
}

// environment makes the names that scripts begin with.
func (r *runner) environment() {
	args := make([]starlark.Value, len(r.Args))
	for i, a := range r.Args {
		args[i] = starlark.String(a)
	}
	own := &server{runner: r}
	r.predeclared = starlark.StringDict{
		"zinit": own.module(),
		"args":  starlark.NewList(args),
		"json":  json.Module,
		"time":  starlarktime.Module,
	}
	for _, f := range globals() {
		r.predeclared[f.name] = own.builtin("", f)
	}
}

// run runs one script from its source. It loads from folder, if that is not nil.
func (r *runner) run(name string, source []byte, folder *os.Root) error {
	l := &loader{runner: r, folder: folder, dir: filepath.Dir(name), loaded: map[string]*module{}}
	_, err := l.exec(name, source)
	switch exit := (*Exit)(nil); {
	case errors.As(err, &exit) && exit.Code == 0:
		return nil
	case errors.As(err, &exit):
		return exit
	case r.written != nil:
		return fmt.Errorf("cannot write the output: %w", r.written)
	}
	return err
}

// loader runs a script and what that loads.
type loader struct {
	*runner
	folder *os.Root
	dir    string // of the script, as it was named
	loaded map[string]*module
}

// module is a file that has been loaded, or is being loaded where done is not
// set.
type module struct {
	globals starlark.StringDict
	err     error
	done    bool
}

func (l *loader) exec(name string, source []byte) (starlark.StringDict, error) {
	thread := &starlark.Thread{Name: name, Load: l.load}
	thread.Print = func(_ *starlark.Thread, text string) { l.print(thread, text) }
	stop := context.AfterFunc(l.ctx, func() { thread.Cancel(ErrInterrupted.Error()) })
	defer stop()
	globals, err := starlark.ExecFileOptions(dialect, thread, name, source, l.predeclared)
	return globals, locate(l.ctx, err)
}

// load runs a file of the folder, once.
func (l *loader) load(_ *starlark.Thread, path string) (starlark.StringDict, error) {
	path = filepath.Clean(path)
	if l.folder == nil {
		return nil, errors.New("this script has no folder to load files from")
	}
	if !filepath.IsLocal(path) {
		return nil, errors.New("only files in the folder of the script can be loaded")
	}
	m := l.loaded[path]
	switch {
	case m == nil:
		m = &module{}
		l.loaded[path] = m
		m.globals, m.err = l.execFile(path)
		m.done = true
	case !m.done:
		return nil, errors.New("it is being loaded already: files load each other in a circle")
	}
	return m.globals, m.err
}

func (l *loader) execFile(path string) (starlark.StringDict, error) {
	f, err := l.folder.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	name := filepath.Join(l.dir, path)
	source, err := read(f, name)
	if err != nil {
		return nil, err
	}
	return l.exec(name, source)
}

// print prints at once: scripts wait a lot.
func (r *runner) print(thread *starlark.Thread, text string) {
	r.Stdout.WriteString(r.Clean(text))
	r.Stdout.WriteByte('\n')
	if err := r.Stdout.Flush(); err != nil {
		r.written = err
		thread.Cancel(err.Error())
	}
}
