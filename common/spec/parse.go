package spec

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxProblems of one file are reported; the others are only counted.
const maxProblems = 50

// Parse reads the TOML source of one file. Without problems it returns either
// a service (or target) or a proxy of its own, with all defaults filled in;
// else nothing but the problems, in the order in which they stand in the file.
// file gives the name where the source does not, and is named in problems.
func Parse(file string, data []byte) (*Service, *Proxy, []Problem) {
	p := &parser{
		file: file,
		src:  strings.TrimPrefix(string(data), "\ufeff"),
		name: strings.TrimSuffix(filepath.Base(file), ".toml"),
		bad:  map[string]bool{}, misspelt: map[string]bool{},
	}
	if strings.HasPrefix(p.src, "\xff\xfe") || strings.HasPrefix(p.src, "\xfe\xff") {
		return nil, nil, p.syntax(0, "it is in UTF-16: save it as UTF-8")
	}
	if offset := invalidUTF8(p.src); offset >= 0 {
		return nil, nil, p.syntax(offset, fmt.Sprintf("invalid UTF-8 byte: 0x%02x", p.src[offset]))
	}
	if offset := locate(p.src, nil); offset >= 0 {
		return nil, nil, p.syntax(offset, fmt.Sprintf("arrays, tables or dotted keys are nested more than %d deep", maxDepth))
	}
	root, err := decode(p.src)
	if err != nil {
		return nil, nil, p.syntaxError(err)
	}
	p.root = root
	s := p.parse()
	if len(p.faults) > 0 {
		return nil, nil, p.problems()
	}
	if s.Kind == KindProxy {
		return nil, s.Xinet, nil
	}
	return s, nil, nil
}

type parser struct {
	file string
	src  string
	name string // best known so far
	root map[string]any
	bad  map[string]bool // fields with a fault, as "table.key"
	// misspelt are the fields that unknown keys are probably meant for.
	misspelt map[string]bool
	faults   []located
	more     int // faults beyond maxProblems
}

// located is a fault with the path at which it is to be shown.
type located struct {
	path    string
	atKey   bool // show the key rather than the value
	message string
}

// decode turns a panic of the decoder, which is a bug in it, into an error.
func decode(src string) (root map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("not valid TOML")
		}
	}()
	_, err = toml.Decode(src, &root)
	return root, err
}

func (p *parser) fault(path string, atKey bool, format string, args ...any) {
	if len(p.faults) >= maxProblems {
		p.more++
		return
	}
	p.faults = append(p.faults, located{path, atKey, fmt.Sprintf(format, args...)})
}

// parse reads all tables into a service, of which a proxy of its own uses
// nothing but Xinet.
func (p *parser) parse() *Service {
	kind, ok := p.kind()
	p.readName(kind)
	s := Default(p.name)
	s.Kind = kind
	s.File = p.file
	for _, table := range sortedKeys(p.root) {
		p.table(s, kind, table)
	}
	if !ok {
		return s
	}
	p.checkMisplaced(s)
	switch kind {
	case KindService:
		s.FillDefaults(p.has)
		p.checkService(s)
		p.checkDependencies(s)
	case KindTarget:
		p.checkDependencies(s)
	case KindProxy:
		for _, key := range []string{"name", "service"} {
			p.rule(p.lacks("xinet."+key), "xinet", "xinet.%s is required in a file that has no [service]", key)
		}
	}
	if s.Health != nil {
		p.checkHealth(s.Health)
	}
	if s.Xinet != nil {
		p.checkProxy(s)
	}
	return s
}

// kind is that of the main table. Without a single one, the rest of the file
// is still checked as if it were a service's.
func (p *parser) kind() (kind Kind, ok bool) {
	_, service := p.root["service"]
	_, target := p.root["target"]
	_, xinet := p.root["xinet"]
	switch {
	case service && target:
		p.fault("target", true, "[target] and [service] cannot be in one file")
		return KindService, false
	case service:
		return KindService, true
	case target:
		return KindTarget, true
	case xinet:
		return KindProxy, true
	}
	p.fault("", true, "a [service], [target] or [xinet] table is missing")
	return KindService, false
}

// mainTable holds the name and what else makes the kind.
func mainTable(kind Kind) string {
	if kind == KindProxy {
		return "xinet"
	}
	return string(kind)
}

func (p *parser) readName(kind Kind) {
	table, _ := p.root[mainTable(kind)].(map[string]any)
	if name, ok := table["name"].(string); ok {
		if CheckName(name) == nil {
			p.name = strings.Clone(name) // as in Field.text
		}
	} else if table != nil && table["name"] == nil && kind != KindProxy {
		if err := CheckName(p.name); err != nil {
			p.fault(mainTable(kind), true, "the name comes from the file name, as there is no %s.name, and %v", mainTable(kind), err)
		}
	}
}

// table reads one table of the file.
func (p *parser) table(s *Service, kind Kind, name string) {
	rows := tableFields(name)
	if rows == nil {
		p.unknownTable(name)
		return
	}
	table, ok := p.root[name].(map[string]any)
	if !ok {
		p.bad[name] = true
		p.fault(name, true, "%s must be a table, [%s], not %s", name, name, describe(p.root[name]))
		return
	}
	switch {
	case kind == KindTarget && name != "target" && name != "dependencies":
		p.fault(name, true, "[%s] belongs to a service: a target has no process", name)
		return
	case kind == KindProxy && name != "xinet":
		p.fault(name, true, "[%s] belongs to a service, and there is no [service]", name)
		return
	case name == "health":
		s.Health = defaultHealth()
	case name == "xinet":
		s.Xinet = defaultProxy()
		s.Xinet.File = s.File
		if kind == KindService {
			s.Xinet.Name, s.Xinet.Service = s.Name, s.Name
		}
	}
	known := 0
	for i := range rows {
		f := &rows[i]
		v, ok := table[f.Key]
		if !ok {
			continue
		}
		known++
		faults := f.store(v, f.at(s))
		for _, ft := range faults {
			path := joinPath(name, f.Key)
			if ft.below != "" {
				path = joinPath(name, f.Key, ft.below)
			}
			p.bad[f.name()] = true
			p.fault(path, false, "%s", ft.message)
		}
	}
	if known < len(table) {
		p.unknownKeys(name, table, rows)
	}
}

func (p *parser) unknownTable(name string) {
	if len(p.faults) >= maxProblems {
		p.more++
		return
	}
	_, isTable := p.root[name].(map[string]any)
	hint := ""
	if near := Nearest(name, tableNames()); near != "" {
		hint = fmt.Sprintf(": did you mean [%s]?", near)
	} else if home := homeOf(name, mainTable(KindService)); home != "" && !isTable {
		hint = fmt.Sprintf(": it belongs under [%s]", home)
	}
	if isTable {
		p.fault(name, true, "unknown table [%s]%s", shorten(name), hint)
	} else {
		p.fault(name, true, "unknown key %s outside of a table%s", shorten(name), hint)
	}
}

func (p *parser) unknownKeys(name string, table map[string]any, rows []Field) {
	keys := make([]string, len(rows))
	for i := range rows {
		keys[i] = rows[i].Key
	}
	for _, key := range sortedKeys(table) {
		if slices.Contains(keys, key) {
			continue
		}
		if len(p.faults) >= maxProblems {
			p.more++
			continue
		}
		hint, near := "", Nearest(key, keys)
		home := homeOf(key, "")
		if own := elsewhere[name+"."+key]; own != "" {
			near, home = own, ""
		}
		if home != "" && name != "target" {
			hint = fmt.Sprintf(": it belongs under [%s]", home)
		} else if home != "" {
			hint = ": a target has no process"
		} else if near != "" {
			hint = fmt.Sprintf(": did you mean %q?", near)
			p.misspelt[name+"."+near] = true
		}
		p.fault(joinPath(name, key), true, "unknown key %s in [%s]%s", shorten(key), name, hint)
	}
}

// elsewhere are keys as other programs call them.
var elsewhere = map[string]string{
	"service.command": "exec", "service.cmd": "exec",
	"service.cwd": "dir", "service.working_dir": "dir", "service.working_directory": "dir",
	"service.environment": "env", "service.environment_file": "env_file",
}

// homeOf is the table that knows a key, the preferred one if it does.
func homeOf(key, preferred string) string {
	home := ""
	for i := range fields {
		if f := &fields[i]; f.Key == key && (home == "" || f.Table == preferred) {
			home = f.Table
		}
	}
	return home
}

// has reports whether the file sets a field, "table.key".
func (p *parser) has(field string) bool {
	table, key, _ := strings.Cut(field, ".")
	t, _ := p.root[table].(map[string]any)
	_, ok := t[key]
	return ok
}

// lacks reports whether a field is missing, and not only misspelt.
func (p *parser) lacks(field string) bool { return !p.has(field) && !p.misspelt[field] }

// rule reports a fault where broken holds; at is the field or table at which
// it is shown. Fields that are already at fault cause no second one.
func (p *parser) rule(broken bool, at, format string, args ...any) {
	table, key, isField := strings.Cut(at, ".")
	if !broken || p.bad[at] || p.bad[table] {
		return
	}
	path := table
	if isField {
		path = joinPath(table, key)
	}
	p.bad[at] = isField
	p.fault(path, !isField, format, args...)
}

// problems turns the faults into what users see.
func (p *parser) problems() []Problem {
	want := make(map[string]*span)
	for _, f := range p.faults {
		for path := f.path; path != ""; path = parentPath(path) {
			want[path] = &span{-1, -1}
		}
	}
	locate(p.src, want)
	type placed struct {
		offset int
		Problem
	}
	list := make([]placed, 0, len(p.faults))
	for _, f := range p.faults {
		problem := placed{-1, Problem{File: p.file, Message: f.message, Service: p.name}}
		for path := f.path; path != "" && problem.offset < 0; path = parentPath(path) {
			s := want[path]
			problem.offset = s.key
			if s.value >= 0 && path == f.path && !f.atKey {
				problem.offset = s.value
			}
		}
		if problem.offset >= 0 {
			problem.Line, problem.Column = lineColumn(p.src, problem.offset)
		}
		list = append(list, problem)
	}
	slices.SortStableFunc(list, func(a, b placed) int { return a.offset - b.offset })
	problems := make([]Problem, len(list), len(list)+1)
	for i, l := range list {
		problems[i] = l.Problem
	}
	if p.more > 0 {
		problems = append(problems, Problem{File: p.file, Service: p.name, Message: fmt.Sprintf("and %d more problems", p.more)})
	}
	return problems
}

func parentPath(path string) string {
	return path[:max(strings.LastIndex(path, pathSep), 0)]
}

// lineColumn counts both from 1, columns in bytes.
func lineColumn(src string, offset int) (line, column int) {
	before := src[:min(offset, len(src))]
	return 1 + strings.Count(before, "\n"), len(before) - strings.LastIndexByte(before, '\n')
}

// syntaxError reports what the decoder says.
func (p *parser) syntaxError(err error) []Problem {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return p.syntax(0, err.Error())
	}
	message := pe.Message
	if key, ok := strings.CutSuffix(message, "' has already been defined."); ok {
		key = strings.TrimPrefix(key, "Key '")
		message = key + " is already defined"
		first := &span{-1, -1}
		locate(p.src, map[string]*span{strings.ReplaceAll(key, ".", pathSep): first})
		if first.key >= 0 {
			line, _ := lineColumn(p.src, first.key)
			message = fmt.Sprintf("%s is already defined on line %d", key, line)
		}
	}
	return p.syntax(pe.Position.Start, message)
}

// syntax reports a fault that keeps the file from being read at all. The name
// is taken from what stands before it, if that can be read.
func (p *parser) syntax(offset int, message string) []Problem {
	offset = min(max(offset, 0), len(p.src))
	line, column := lineColumn(p.src, offset)
	before := p.src[:strings.LastIndexByte(p.src[:offset], '\n')+1]
	if locate(before, nil) < 0 {
		p.root, _ = decode(before)
		for _, kind := range []Kind{KindProxy, KindTarget, KindService} {
			p.readName(kind)
		}
	}
	const longest = 300
	if len(message) > longest {
		message = strings.ToValidUTF8(message[:longest], "") + "…"
	}
	return []Problem{{File: p.file, Line: line, Column: column, Message: message, Service: p.name}}
}

// invalidUTF8 is where s stops to be UTF-8, or -1.
func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], string(r)) {
			return i
		}
	}
	return -1
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
