package script

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// The scripts in builtin are part of the program: their name is the argument,
// the first line of their comment says what they do.
//
//go:embed builtin/*.star
var builtinFiles embed.FS

// Builtin is a script that is part of the program.
type Builtin struct {
	Name    string `json:"name"`
	Usage   string `json:"usage"` // its arguments
	Summary string `json:"summary"`
}

// Builtins lists them by name.
func Builtins() (list []Builtin) {
	files, _ := fs.Glob(builtinFiles, "builtin/*.star")
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".star")
		source, _ := builtinSource(name)
		// # NAME ARGUMENTS: SUMMARY
		line, _, _ := strings.Cut(strings.TrimPrefix(string(source), "# "), "\n")
		usage, summary, _ := strings.Cut(line, ": ")
		list = append(list, Builtin{name, strings.TrimSpace(strings.TrimPrefix(usage, name)), summary})
	}
	return list
}

// builtinSource is the text of one.
func builtinSource(name string) ([]byte, bool) {
	if strings.Contains(name, "/") {
		return nil, false
	}
	source, err := builtinFiles.ReadFile("builtin/" + name + ".star")
	return source, err == nil
}

// unknown is the error of a name that is neither a file nor built in.
func unknown(name string, err error) error {
	var system *fs.PathError
	if errors.As(err, &system) {
		err = fmt.Errorf("%s: %w", system.Path, system.Err) // without the call that it was
	}
	err = fmt.Errorf("cannot read the script %w", err)
	if strings.ContainsAny(name, "/.") {
		return err
	}
	var known []string
	for _, b := range Builtins() {
		known = append(known, b.Name)
	}
	return fmt.Errorf("%w, and no script of that name is built in%s", err, nearest(name, known))
}
