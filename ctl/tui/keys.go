package tui

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Key is a key that was pressed: the character, or a name such as "enter",
// "up" or "ctrl+c".
type Key string

// Paste is text that was pasted. It is no command, whatever it says.
type Paste string

// Mouse is a click of the left button or a turn of the wheel, at a cell counted
// from 0.
type Mouse struct {
	X, Y  int
	Wheel int // -1 up, 1 down, 0 for a click
}

// Sequences of xterm's, which terminals of today have in common (ECMA-48; xterm
// control sequences, Ctlseqs). Functions, for a map would be made at the start
// of every command.

func cursorKey(final byte) any {
	switch final {
	case 'A':
		return Key("up")
	case 'B':
		return Key("down")
	case 'C':
		return Key("right")
	case 'D':
		return Key("left")
	case 'H':
		return Key("home")
	case 'F':
		return Key("end")
	case 'Z':
		return Key("shift+tab")
	}
	return nil
}

func tildeKey(number string) any {
	switch number {
	case "1", "7":
		return Key("home")
	case "4", "8":
		return Key("end")
	case "5":
		return Key("pgup")
	case "6":
		return Key("pgdown")
	}
	return nil
}

const (
	pasteBegin = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// maxPaste bounds what is kept of a paste whose end does not come.
const maxPaste = 64 << 10

// decode returns the first event in b, nil for one that means nothing here, and
// how many bytes it has; 0 where it is not there as a whole. With last, nothing
// more comes for now: an escape is the key then, not the begin of a sequence.
func decode(b []byte, last bool) (event any, n int) {
	switch c := b[0]; {
	case c == 0x1b:
		return decodeEscape(b, last)
	case c == '\r' || c == '\n':
		return Key("enter"), 1
	case c == '\t':
		return Key("tab"), 1
	case c == 0x7f || c == 0x08:
		return Key("backspace"), 1
	case c >= 1 && c <= 26:
		return Key("ctrl+" + string(rune('a'+c-1))), 1
	case c < ' ':
		return nil, 1
	}
	if !utf8.FullRune(b) && !last {
		return nil, 0
	}
	r, size := utf8.DecodeRune(b)
	if r == utf8.RuneError {
		return nil, size
	}
	return Key(string(r)), size
}

func decodeEscape(b []byte, last bool) (event any, n int) {
	more := func() (any, int) { // the rest is still to come, or never does
		switch {
		case !last:
			return nil, 0
		case len(b) == 1:
			return Key("esc"), 1
		}
		return nil, len(b)
	}
	switch {
	case len(b) == 1:
		return more()
	case b[1] == 'O':
		if len(b) < 3 {
			return more()
		}
		return cursorKey(b[2]), 3
	case b[1] != '[':
		return Key("esc"), 1
	case bytes.HasPrefix(b, []byte(pasteBegin)):
		text, _, whole := bytes.Cut(b[len(pasteBegin):], []byte(pasteEnd))
		switch {
		case whole:
			return Paste(strings.ToValidUTF8(string(text), "")), len(pasteBegin) + len(text) + len(pasteEnd)
		case len(b) > maxPaste:
			return nil, len(b)
		}
		return nil, 0
	}
	end := bytes.IndexFunc(b[2:], func(r rune) bool { return r >= 0x40 && r <= 0x7e })
	if end < 0 {
		return more()
	}
	params, final := string(b[2:2+end]), b[2+end]
	n = 2 + end + 1
	if fields, ok := strings.CutPrefix(params, "<"); ok {
		return decodeMouse(fields, final), n
	}
	if final == '~' {
		number, _, _ := strings.Cut(params, ";")
		return tildeKey(number), n
	}
	return cursorKey(final), n
}

// decodeMouse reads a report of mode 1006: button, column and row from 1.
func decodeMouse(fields string, final byte) any {
	parts := strings.Split(fields, ";")
	if len(parts) != 3 || final != 'M' {
		return nil
	}
	var v [3]int
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return nil
		}
		v[i] = n
	}
	m := Mouse{X: v[1] - 1, Y: v[2] - 1}
	switch v[0] {
	case 0:
	case 64:
		m.Wheel = -1
	case 65:
		m.Wheel = 1
	default:
		return nil
	}
	return m
}
