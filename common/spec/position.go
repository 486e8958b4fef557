package spec

import (
	"os"
	"strconv"
	"strings"
)

// maxDepth bounds arrays and tables in one another, and the parts of a dotted
// key. The TOML decoder recurses on the first and is quadratic in the second.
const maxDepth = 16

// pathSep separates the keys of a path; no key has it, as TOML forbids it.
const pathSep = "\x00"

// joinPath makes the path of a value from its keys; an element of an array is
// "#" and its index.
func joinPath(keys ...string) string { return strings.Join(keys, pathSep) }

// Place finds where problems are that were seen when their files had been read
// already. Each message begins with the table and the key that it is about; what
// cannot be found stays a problem of its file as a whole.
func Place(problems []Problem) []Problem {
	for i := range problems {
		p := &problems[i]
		field, _, _ := strings.Cut(p.Message, ":")
		paths := []string{strings.Replace(field, ".", pathSep, 1)}
		if strings.HasPrefix(field, "service.env.") {
			paths = []string{strings.Replace(field, ".", pathSep, 2)}
		} else if field == cycleMessage {
			paths = []string{joinPath("dependencies", "requires"), joinPath("dependencies", "after")}
		}
		data, err := os.ReadFile(p.File)
		src := strings.TrimPrefix(string(data), "\ufeff")
		for _, path := range paths {
			at := &span{-1, -1}
			if err == nil && p.Line == 0 {
				locate(src, map[string]*span{path: at})
			}
			if at.value >= 0 {
				p.Line, p.Column = lineColumn(src, at.value)
			}
		}
	}
	return problems
}

// span is where a key and its value begin, in bytes; -1 = not found.
type span struct{ key, value int }

// locate finds where the wanted paths stand in a TOML source. It reads as much
// of TOML as positions need and takes whatever the decoder takes; on anything
// else it may go wrong, but ends. tooDeep is where the source exceeds
// maxDepth, or -1.
func locate(src string, want map[string]*span) (tooDeep int) {
	l := locator{src: src, want: want, tooDeep: -1}
	for l.i < len(src) && l.tooDeep < 0 {
		switch c := src[l.i]; {
		case isSpace(c):
			l.i++
		case c == '#':
			l.skipLine()
		case c == '[':
			for l.i < len(src) && (src[l.i] == '[' || src[l.i] == ' ' || src[l.i] == '\t') {
				l.i++
			}
			l.path = l.path[:0]
			l.table = l.key(0)
			l.skipLine()
		default:
			l.path = l.path[:l.table]
			l.keyValue()
		}
	}
	return l.tooDeep
}

type locator struct {
	src     string
	i       int
	want    map[string]*span
	path    []byte // of what is being read
	table   int    // length of the path of the current [table]
	tooDeep int
}

// container is an array or an inline table that is being read.
type container struct {
	path  int // length of its path
	index int // of the element; -1 in a table
}

// keyValue reads "key = value", however many lines the value takes.
func (l *locator) keyValue() {
	var open []container
	base := len(l.path)
	l.keyEqual(base)
	for {
		if n := len(open); n > 0 {
			l.skipBlank()
			if l.i == len(l.src) {
				return
			}
			top := &open[n-1]
			switch c := l.src[l.i]; {
			case c == ']' || c == '}':
				l.i++
				if open = open[:n-1]; n == 1 {
					return
				}
				continue
			case c == ',':
				l.i++
				if top.index >= 0 {
					top.index++
				}
				continue
			case top.index >= 0:
				l.path = appendIndex(l.path[:top.path], top.index)
				l.note(l.i, l.i)
			default:
				l.path = l.path[:top.path]
				l.keyEqual(top.path)
			}
		}
		if l.i == len(l.src) || l.tooDeep >= 0 {
			return
		}
		switch c := l.src[l.i]; c {
		case '[', '{':
			if len(open) == maxDepth {
				l.tooDeep = l.i
				return
			}
			index := 0
			if c == '{' {
				index = -1
			}
			open = append(open, container{path: len(l.path), index: index})
			l.i++
			continue
		case '"', '\'':
			l.skipString()
		default:
			// A bare value ends at one of these; a byte is always taken, so
			// that nothing malformed is looked at forever.
			n := strings.IndexAny(l.src[min(l.i+1, len(l.src)):], ",]}#\n")
			if n < 0 {
				n = len(l.src) - l.i - 1
			}
			if l.src[l.i] != '\n' {
				l.i += 1 + n
			}
		}
		if len(open) == 0 {
			return
		}
	}
}

// keyEqual reads a key and the sign after it, and stands at the value then.
func (l *locator) keyEqual(base int) {
	start := l.i
	l.key(base)
	l.skipSpace()
	if l.i < len(l.src) && l.src[l.i] == '=' {
		l.i++
		l.skipSpace()
	} else if l.i == start {
		l.i++
	}
	if s := l.want[string(l.path)]; s != nil && s.value < 0 {
		s.value = l.i
	}
}

// key reads a dotted key, appends it to the path and returns the new length.
func (l *locator) key(base int) int {
	for parts := 1; ; parts++ {
		l.skipSpace()
		start := l.i
		var name string
		if start < len(l.src) && (l.src[start] == '"' || l.src[start] == '\'') {
			l.skipString()
			name = strings.Trim(l.src[start:l.i], l.src[start:start+1])
		} else {
			n := strings.IndexAny(l.src[start:], ".=]},# \t\r\n\"'")
			if n < 0 {
				n = len(l.src) - start
			}
			l.i += n
			name = l.src[start:l.i]
		}
		if parts > maxDepth {
			l.tooDeep = start
			return len(l.path)
		}
		if len(l.path) > 0 {
			l.path = append(l.path, pathSep...)
		}
		l.path = append(l.path, name...)
		l.note(start, -1)
		l.skipSpace()
		if l.i == len(l.src) || l.src[l.i] != '.' {
			return len(l.path)
		}
		l.i++
	}
}

// note fills in a wanted path the first time it is met.
func (l *locator) note(key, value int) {
	if s := l.want[string(l.path)]; s != nil && s.key < 0 {
		*s = span{key, value}
	}
}

func (l *locator) skipSpace() {
	for l.i < len(l.src) && (l.src[l.i] == ' ' || l.src[l.i] == '\t') {
		l.i++
	}
}

// skipBlank skips white space, newlines and comments.
func (l *locator) skipBlank() {
	for l.i < len(l.src) {
		switch c := l.src[l.i]; {
		case isSpace(c):
			l.i++
		case c == '#':
			l.skipLine()
		default:
			return
		}
	}
}

func (l *locator) skipLine() {
	n := strings.IndexByte(l.src[l.i:], '\n')
	if n < 0 {
		n = len(l.src) - l.i
	}
	l.i += n
}

// skipString skips a string of any of the four kinds. One that does not end
// ends at the end of the line, or of the file if it may have several lines.
func (l *locator) skipString() {
	quote := l.src[l.i]
	mark := l.src[l.i : l.i+1]
	if triple := strings.Repeat(mark, 3); strings.HasPrefix(l.src[l.i:], triple) {
		mark = triple
	}
	l.i += len(mark)
	for l.i < len(l.src) {
		switch c := l.src[l.i]; {
		case c == '\\' && quote == '"':
			l.i += 2
			continue
		case c == '\n' && len(mark) == 1:
			return
		case c == quote && strings.HasPrefix(l.src[l.i:], mark):
			l.i += len(mark)
			// One or two quotes may stand right before the closing three.
			for range 2 {
				if len(mark) == 3 && l.i < len(l.src) && l.src[l.i] == quote {
					l.i++
				}
			}
			return
		}
		l.i++
	}
	l.i = len(l.src)
}

// appendIndex extends the path of an array to that of an element.
func appendIndex(path []byte, index int) []byte {
	return strconv.AppendInt(append(path, pathSep+"#"...), int64(index), 10)
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
