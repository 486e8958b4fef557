package spec

import (
	"errors"
	"fmt"
	"strings"
)

// maxExpanded bounds what ${NAME} may make of one word. Linux takes no
// argument above 128 KiB (MAX_ARG_STRLEN, execve(2)).
const maxExpanded = 1 << 20

// maxNested is how deep a ${A:-${B:-…}} may go.
const maxNested = 8

// SplitWords splits a command line as a POSIX shell does: at white space,
// with quotes and backslash. It is not a shell: operators that would need one
// are errors when they are not quoted. Comments, ~ and globs have no meaning.
// Expansions stay in the words, for Expand.
func SplitWords(s string) (Command, error) {
	var cmd Command
	var w wordBuilder
	var quote byte // 0, ' or "
	for i := 0; i < len(s); {
		c := s[i]
		if quote == '\'' {
			if c == '\'' {
				quote = 0
			} else {
				w.add(s[i:i+1], c == '$')
			}
			i++
			continue
		}
		switch {
		case c == '$':
			n := expansionLen(s[i:])
			w.add(s[i:i+max(n, 1)], n == 0)
			i += max(n, 1)
		case c == '\\':
			if i+1 == len(s) {
				return nil, errors.New(`nothing follows the backslash at the end`)
			}
			next := s[i+1]
			switch {
			case next == '\n':
			case quote == '"' && !strings.ContainsRune("$`\"\\", rune(next)):
				w.add(s[i:i+2], false)
			default:
				w.add(s[i+1:i+2], next == '$')
			}
			i += 2
		case c == quote:
			quote = 0
			i++
		case quote != 0:
			w.add(s[i:i+1], false)
			i++
		case c == '"' || c == '\'':
			quote = c
			w.add("", false)
			i++
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if w.begun {
				cmd = append(cmd, w.take())
			}
			i++
		case strings.IndexByte("|&;<>`", c) >= 0:
			return nil, fmt.Errorf("%q needs a shell: write sh -c '…', or put it in quotes", string(c))
		default:
			w.add(s[i:i+1], false)
			i++
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a closing %c is missing", quote)
	}
	if w.begun {
		cmd = append(cmd, w.take())
	}
	return cmd, nil
}

// compact is a copy of a command in one piece of memory for its words, one for their
// parts and one for the text.
func (c Command) compact() Command {
	if len(c) == 0 {
		return c
	}
	var texts []string
	for _, w := range c {
		for _, p := range w {
			texts = append(texts, p.Text)
		}
	}
	all, parts := strings.Join(texts, ""), make([]Part, 0, len(texts))
	words := make(Command, len(c))
	for i, w := range c {
		for _, p := range w {
			parts = append(parts, Part{Text: all[:len(p.Text)], Literal: p.Literal})
			all = all[len(p.Text):]
		}
		words[i] = parts[len(parts)-len(w) : len(parts) : len(parts)]
	}
	return words
}

// Literal is a command whose words are taken as they are.
func Literal(args []string) Command {
	cmd := make(Command, len(args))
	for i, arg := range args {
		cmd[i] = Word{{Text: arg, Literal: true}}
	}
	return cmd
}

// Words is a command of which each string is one word, still to be expanded.
func Words(args []string) Command {
	cmd := make(Command, len(args))
	for i, arg := range args {
		cmd[i] = Word{{Text: arg}}.canonical()
	}
	return cmd
}

// canonical is the same word in the parts that SplitWords would make of it.
func (w Word) canonical() Word {
	var b wordBuilder
	for _, p := range w {
		for s := p.Text; s != ""; {
			n, expansion := len(s), false
			switch dollar := strings.IndexByte(s, '$'); {
			case p.Literal || dollar < 0:
			case dollar > 0:
				n = dollar
			default:
				n = expansionLen(s)
				expansion = n > 0
				n = max(n, 1)
			}
			b.add(s[:n], !expansion)
			s = s[n:]
		}
	}
	return b.take()
}

// wordBuilder makes a word. Only a dollar makes a difference between literal
// and not, so what has none joins the part before it; thus every dollar outside
// a literal part begins an expansion, whatever stands beside it.
type wordBuilder struct {
	begun           bool
	done            Word
	text            []byte
	literal, dollar bool // of text: whether it is literal, whether it has a dollar
}

func (w *wordBuilder) add(text string, literal bool) {
	w.begun = true
	if strings.IndexByte(text, '$') >= 0 {
		if w.dollar && w.literal != literal {
			w.done = append(w.done, Part{Text: string(w.text), Literal: w.literal})
			w.text = w.text[:0]
		}
		w.dollar, w.literal = true, literal
	}
	w.text = append(w.text, text...)
}

// take returns the word and begins the next.
func (w *wordBuilder) take() Word {
	word := append(w.done, Part{Text: string(w.text), Literal: w.literal})
	*w = wordBuilder{text: w.text[:0]}
	return word
}

// Expand replaces the ${NAME} of every word. An expansion never splits a word.
func (c Command) Expand(lookup func(string) (string, bool)) ([]string, error) {
	args := make([]string, len(c))
	for i, w := range c {
		var b strings.Builder
		for _, p := range w {
			if p.Literal {
				b.WriteString(p.Text)
			} else if err := expand(&b, p.Text, lookup); err != nil {
				return nil, err
			}
		}
		args[i] = b.String()
	}
	return args, nil
}

// ExpandString replaces ${NAME}, ${NAME:-default} (for unset or empty),
// ${NAME:?message} (an error for unset or empty) and $$, which is a dollar.
// Any other dollar stays. An unset ${NAME} is an error that names it.
func ExpandString(s string, lookup func(string) (string, bool)) (string, error) {
	if strings.IndexByte(s, '$') < 0 {
		return s, nil
	}
	var b strings.Builder
	if err := expand(&b, s, lookup); err != nil {
		return "", err
	}
	return b.String(), nil
}

func expand(b *strings.Builder, s string, lookup func(string) (string, bool)) error {
	// A default may hold expansions of its own: it is read next, and what
	// stands after it waits in rest.
	var rest []string
	for {
		if b.Len() > maxExpanded {
			return fmt.Errorf("a value is longer than %d bytes once expanded", maxExpanded)
		}
		n := strings.IndexByte(s, '$')
		if n < 0 {
			b.WriteString(s)
			if len(rest) == 0 {
				return nil
			}
			s, rest = rest[len(rest)-1], rest[:len(rest)-1]
			continue
		}
		b.WriteString(s[:n])
		s = s[n:]
		if strings.HasPrefix(s, "$$") {
			b.WriteByte('$')
			s = s[2:]
			continue
		}
		name, op, arg, n := reference(s)
		if n == 0 {
			b.WriteByte('$')
			s = s[1:]
			continue
		}
		s = s[n:]
		value, set := lookup(name)
		switch {
		case set && (value != "" || op == 0):
			b.WriteString(value)
		case op == '-':
			rest = append(rest, s)
			s = arg
		default:
			return &UnsetError{Name: name, Text: arg, OrEmpty: op == '?'}
		}
	}
}

// UnsetError says that a variable is not set.
type UnsetError struct {
	Name string
	// Text is that of ${NAME:?text}. OrEmpty says that the variable may be set,
	// to nothing, which that does not allow.
	Text    string
	OrEmpty bool
}

func (e *UnsetError) Error() string {
	switch {
	case e.Text != "":
		return "variable " + e.Name + ": " + e.Text
	case e.OrEmpty:
		return "variable " + e.Name + " is not set or empty"
	}
	return "variable " + e.Name + " is not set"
}

// References lists the variables that a text expands, also those of which
// only a default may be used.
func References(s string) []string {
	var names []string
	for i := 0; i < len(s); {
		if n := expansionLen(s[i:]); n == 2 {
			i += n // $$
			continue
		}
		name, _, arg, n := reference(s[i:])
		if n == 0 {
			i++
			continue
		}
		names = append(append(names, name), References(arg)...)
		i += n
	}
	return names
}

// Unexpanded lists what a shell would expand in a text and ExpandString does not:
// $NAME, and a ${ that begins nothing it knows, as far as the next }.
func Unexpanded(s string) []string {
	var list []string
	for i := 0; i < len(s); {
		if n := expansionLen(s[i:]); n > 0 || s[i] != '$' {
			i += max(n, 1)
			continue
		}
		n := 1
		if strings.HasPrefix(s[i:], "${") {
			if n = strings.IndexByte(s[i:], '}') + 1; n == 0 {
				n = len(s) - i
			}
		} else {
			for i+n < len(s) && (s[i+n] == '_' || isLetter(s[i+n]) || n > 1 && isDigit(s[i+n])) {
				n++
			}
		}
		if n > 1 {
			list = append(list, s[i:i+n])
		}
		i += n
	}
	return list
}

// expansionLen is the length of the expansion that s begins with, 0 if it is
// only a dollar.
func expansionLen(s string) int {
	if strings.HasPrefix(s, "$$") {
		return 2
	}
	_, _, _, n := reference(s)
	return n
}

// reference reads ${name}, ${name:-arg} or ${name:?arg} at the start of s; op
// is 0, '-' or '?'. n is its length, 0 if there is none.
func reference(s string) (name string, op byte, arg string, n int) {
	if !strings.HasPrefix(s, "${") {
		return "", 0, "", 0
	}
	i := 2
	for i < len(s) && (s[i] == '_' || isLetter(s[i]) || i > 2 && isDigit(s[i])) {
		i++
	}
	name = s[2:i]
	switch {
	case name == "":
		return "", 0, "", 0
	case strings.HasPrefix(s[i:], "}"):
		return name, 0, "", i + 1
	case !strings.HasPrefix(s[i:], ":-") && !strings.HasPrefix(s[i:], ":?"):
		return "", 0, "", 0
	}
	start, depth := i+2, 1
	for j := start; j < len(s) && depth <= maxNested; j++ {
		switch {
		case s[j] == '}':
			depth--
			if depth == 0 {
				return name, s[i+1], s[start:j], j + 1
			}
		case strings.HasPrefix(s[j:], "${"):
			depth++
			j++
		}
	}
	return "", 0, "", 0
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// String is the command in a form that SplitWords reads back.
func (c Command) String() string {
	var b strings.Builder
	for i, w := range c {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, p := range w.canonical() {
			if p.Literal || p.Text == "" {
				quoteLiteral(&b, p.Text)
			} else {
				quoteExpandable(&b, p.Text)
			}
		}
	}
	return b.String()
}

func quoteLiteral(b *strings.Builder, s string) {
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !isPlain(r) }) < 0 {
		b.WriteString(s)
		return
	}
	b.WriteByte('\'')
	b.WriteString(strings.ReplaceAll(s, "'", `'\''`))
	b.WriteByte('\'')
}

// quoteExpandable puts in single quotes what stands between the expansions,
// and those as they are.
func quoteExpandable(b *strings.Builder, s string) {
	for s != "" {
		text := 0
		for text < len(s) && (s[text] != '$' || expansionLen(s[text:]) == 0) {
			text++
		}
		if text > 0 {
			quoteLiteral(b, s[:text])
			s = s[text:]
		}
		if s != "" {
			n := expansionLen(s)
			b.WriteString(s[:n])
			s = s[n:]
		}
	}
}

// isPlain reports whether a shell takes r for itself.
func isPlain(r rune) bool {
	return r > 0x7f || isDigit(byte(r)) || isLetter(byte(r)) || strings.ContainsRune("_@%+=:,./-", r)
}
