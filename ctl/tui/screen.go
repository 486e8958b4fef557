package tui

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A line is text with SGR sequences (ECMA-48), as the commands print it. What
// it takes on the screen is counted in columns.

const (
	reset   = "\x1b[0m"
	reverse = "\x1b[7m"
)

// sequence returns the length of the escape sequence that s begins with, 0 for
// none.
func sequence(s string) int {
	if !strings.HasPrefix(s, "\x1b[") {
		return 0
	}
	if end := strings.IndexByte(s, 'm'); end > 0 {
		return end + 1
	}
	return 0
}

// wide are the characters that take two columns (Unicode, East Asian Width W
// and F, and pictographs).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0x303e, Stride: 1}, {Lo: 0x3041, Hi: 0xa4cf, Stride: 1},
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1},
		{Lo: 0xff00, Hi: 0xff60, Stride: 1}, {Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f300, Hi: 0x1f64f, Stride: 1}, {Lo: 0x1f680, Hi: 0x1f6ff, Stride: 1}, {Lo: 0x1f900, Hi: 0x1f9ff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1},
	},
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// Columns is how many columns a line takes, without its styles.
func Columns(line string) int {
	n := 0
	for i := 0; i < len(line); {
		if skip := sequence(line[i:]); skip > 0 {
			i += skip
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		n += runeColumns(r)
		i += size
	}
	return n
}

// split cuts a line after so many columns. Styles that are open there are
// closed, and go on in the rest.
func split(line string, width int) (head, rest string) {
	open, n := "", 0
	for i := 0; i < len(line); {
		if skip := sequence(line[i:]); skip > 0 {
			if seq := line[i : i+skip]; seq == reset {
				open = ""
			} else {
				open += seq
			}
			i += skip
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		if n += runeColumns(r); n > width {
			if open == "" {
				return line[:i], line[i:]
			}
			return line[:i] + reset, open + line[i:]
		}
		i += size
	}
	return line, ""
}

// cut makes a line as narrow as width.
func cut(line string, width int) string {
	head, _ := split(line, max(0, width))
	return head
}

// pad makes a line exactly as wide as width.
func pad(line string, width int) string {
	line = cut(line, width)
	return line + strings.Repeat(" ", max(0, width-Columns(line)))
}

// wrap breaks a line into at most so many, between words where it can, with
// those after the first indented.
func wrap(line string, width, indent, most int) []string {
	if indent >= width/2 {
		indent = 0
	}
	var lines []string
	for room := width; ; room = width - indent {
		head, rest := split(line, room)
		if at := lastSpace(head); rest != "" && at > room/3 {
			head, rest = split(line, at)
			_, rest = split(rest, 1)
		}
		if len(lines) > 0 {
			head = strings.Repeat(" ", indent) + head
		}
		lines = append(lines, head)
		if rest == "" || len(lines) >= most || room <= 1 {
			return lines
		}
		line = rest
	}
}

// lastSpace is the column of the last space in a line, -1 for none.
func lastSpace(line string) int {
	text := bare(line)
	if at := strings.LastIndexByte(text, ' '); at >= 0 {
		return Columns(text[:at])
	}
	return -1
}

// bare is a line without styles.
func bare(line string) string {
	if !strings.Contains(line, "\x1b") {
		return line
	}
	var b strings.Builder
	for i := 0; i < len(line); {
		if skip := sequence(line[i:]); skip > 0 {
			i += skip
			continue
		}
		b.WriteByte(line[i])
		i++
	}
	return b.String()
}

// marked is a line that the cursor is on.
func marked(line string, width int) string { return reverse + pad(bare(line), width) + reset }

// highlight marks where a text occurs in a line, whatever its case.
func highlight(line, text string) string {
	if text == "" {
		return line
	}
	plain := bare(line)
	at := indexFold(plain, text)
	if at < 0 {
		return line
	}
	var b strings.Builder
	for ; at >= 0; at = indexFold(plain, text) {
		b.WriteString(plain[:at] + reverse + plain[at:at+len(text)] + reset)
		plain = plain[at+len(text):]
	}
	return b.String() + plain
}

// indexFold finds a text of lower case; folding is that of ASCII, so that
// places stay the same.
func indexFold(s, lower string) int {
	for i := 0; i+len(lower) <= len(s); i++ {
		if equalFold(s[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

func equalFold(s, lower string) bool {
	for i := range len(lower) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// repaint is what makes the lines of next of those that are on the screen.
// Only lines that differ are written, all at once where the terminal can
// (mode 2026), so that nothing flickers.
func repaint(before, next []string, width int) string {
	var b strings.Builder
	for i, line := range next {
		if i < len(before) && before[i] == line {
			continue
		}
		b.WriteString("\x1b[" + strconv.Itoa(i+1) + ";1H" + line + reset)
		// In the last column the cursor stays on it: erasing would take it away.
		if Columns(line) < width {
			b.WriteString("\x1b[K")
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "\x1b[?2026h" + b.String() + "\x1b[?2026l"
}
