package tui

import (
	"slices"
	"testing"
)

// decodeAll is what comes of chunks, the last of which is followed by silence.
func decodeAll(chunks ...string) (events []any) {
	var pending []byte
	for i, chunk := range append(chunks, "") {
		pending = append(pending, chunk...)
		for len(pending) > 0 {
			ev, n := decode(pending, i == len(chunks))
			if n == 0 {
				break
			}
			if pending = pending[n:]; ev != nil {
				events = append(events, ev)
			}
		}
	}
	return events
}

func TestKeysAreToldApart(t *testing.T) {
	for _, test := range []struct {
		chunks []string
		want   []any
	}{
		{[]string{"aü漢"}, []any{Key("a"), Key("ü"), Key("漢")}},
		{[]string{"\r\n\t\x7f\x08\x03 "}, []any{Key("enter"), Key("enter"), Key("tab"), Key("backspace"), Key("backspace"), Key("ctrl+c"), Key(" ")}},
		{[]string{"\x1b"}, []any{Key("esc")}},
		{[]string{"\x1b\x1b[A"}, []any{Key("esc"), Key("up")}},
		{[]string{"\x1bx"}, []any{Key("esc"), Key("x")}},
		{[]string{"\x1b[A\x1bOB\x1b[1;5C\x1b[5~\x1b[6;2~\x1b[Z"}, []any{Key("up"), Key("down"), Key("right"), Key("pgup"), Key("pgdown"), Key("shift+tab")}},
		// A slow line cuts them anywhere.
		{[]string{"\x1b", "[", "A"}, []any{Key("up")}},
		{[]string{"\xc3", "\xbc"}, []any{Key("ü")}},
		{[]string{"\x1b[<0;3", ";4M\x1b[<0;3;4m"}, []any{Mouse{X: 2, Y: 3}}},
		{[]string{"\x1b[<64;1;1M\x1b[<65;1;1M\x1b[<2;1;1M"}, []any{Mouse{Wheel: -1}, Mouse{Wheel: 1}}},
		{[]string{"\x1b[200~x\x1b[A", "y\n\x1b[201~z"}, []any{Paste("x\x1b[Ay\n"), Key("z")}},
		// What is unknown or broken is nothing, and what follows counts.
		{[]string{"\x1b[99~\x1b[?1;2c\x1b[<0;?;1Mq"}, []any{Key("q")}},
		{[]string{"\xff\x00q"}, []any{Key("q")}},
		{[]string{"\x1b[1;"}, nil},
	} {
		if got := decodeAll(test.chunks...); !slices.Equal(got, test.want) {
			t.Errorf("%q: %#v, want %#v", test.chunks, got, test.want)
		}
	}
}

func FuzzKeys(f *testing.F) {
	for _, text := range []string{"a", "\x1b[A", "\x1b[<0;1;2M", "\x1b[200~a\x1b[201~", "\xff", "\x1bO"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, n := decode(b, true)
			if n < 0 || n > len(b) {
				t.Fatalf("%q: %d bytes", b, n)
			}
			if n == 0 {
				if len(b) < len(pasteBegin) {
					t.Fatalf("%q: nothing comes of it", b)
				}
				return // the end of a paste is awaited
			}
			b = b[n:]
		}
	})
}

func TestLines(t *testing.T) {
	const red = "\x1b[31mred\x1b[0m"
	for _, test := range []struct{ got, want string }{
		{cut("abc", 2), "ab"},
		{cut("a"+red+"b", 2), "a\x1b[31mr\x1b[0m"},
		{cut("漢字", 3), "漢"},
		{cut("e\u0301x", 1), "e\u0301"},
		{pad(red, 5), red + "  "},
		{pad("漢字", 3), "漢 "},
		{bare("a" + red + "b"), "aredb"},
		{marked(red, 5), "\x1b[7mred  \x1b[0m"},
		{highlight("an Error, ERROR", "error"), "an \x1b[7mError\x1b[0m, \x1b[7mERROR\x1b[0m"},
		{highlight("ü漢", "漢"), "ü\x1b[7m漢\x1b[0m"},
		{repaint([]string{"same", "old"}, []string{"same", "new"}, 3), "\x1b[?2026h\x1b[2;1Hnew\x1b[0m\x1b[?2026l"},
		{repaint([]string{"same", "old"}, []string{"same", "ne"}, 3), "\x1b[?2026h\x1b[2;1Hne\x1b[0m\x1b[K\x1b[?2026l"},
		{repaint([]string{"same"}, []string{"same"}, 4), ""},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
	for _, test := range []struct {
		line          string
		width, indent int
		want          []string
	}{
		{"short", 10, 2, []string{"short"}},
		{"words are kept together", 12, 2, []string{"words are", "  kept", "  together"}},
		{"unbreakable", 6, 2, []string{"unbrea", "  kabl", "  e"}},
		{"\x1b[31mred words\x1b[0m", 5, 0, []string{"\x1b[31mred\x1b[0m", "\x1b[31mwords\x1b[0m"}},
		{"漢字", 1, 0, []string{""}},
	} {
		if got := wrap(test.line, test.width, test.indent, 9); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.line, got, test.want)
		}
	}
}
