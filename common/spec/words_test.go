package spec

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func environment(name string) (string, bool) {
	v, ok := map[string]string{"A": "1 2", "EMPTY": "", "D": "$", "REF": "${A}", "_x9": "x"}[name]
	return v, ok
}

func TestSplitWords(t *testing.T) {
	for _, tt := range []struct {
		src  string
		want []string // once expanded
		says string
	}{
		{src: "", want: []string{}},
		{src: " \t\r\n ", want: []string{}},
		{src: "a  b\tc\nd", want: []string{"a", "b", "c", "d"}},
		{src: `'a b' "c d" e\ f g'h'"i"`, want: []string{"a b", "c d", "e f", "ghi"}},
		{src: `'' "" a''`, want: []string{"", "", "a"}},
		{src: `'a"b\c' "a'b" "\"\\\$\` + "`" + `\n" \'`, want: []string{`a"b\c`, "a'b", `"\$` + "`" + `\n`, "'"}},
		{src: "a\\\nb \"c\\\nd\"", want: []string{"ab", "cd"}},
		{src: `'|&;<>' "|&;<>" \| \&`, want: []string{"|&;<>", "|&;<>", "|", "&"}},
		{src: "a|b", says: `"|" needs a shell: write sh -c '…', or put it in quotes`},
		{src: "a &", says: `"&" needs a shell: write sh -c '…', or put it in quotes`},
		{src: "a `b`", says: "\"`\" needs a shell: write sh -c '…', or put it in quotes"},
		{src: "a >/dev/null", says: `">" needs a shell: write sh -c '…', or put it in quotes`},
		{src: "*.go ~ {a,b} #c !d (e)", want: []string{"*.go", "~", "{a,b}", "#c", "!d", "(e)"}},
		{src: "'a", says: "a closing ' is missing"},
		{src: `a"`, says: `a closing " is missing`},
		{src: `a\`, says: "nothing follows the backslash at the end"},
		{src: "ä 'ö'\xff", want: []string{"ä", "ö\xff"}},

		{src: `${A} "${A}" '${A}' \${A} x${A}y`, want: []string{"1 2", "1 2", "${A}", "${A}", "x1 2y"}},
		{src: `'$'{A} $"{A}" $'$'A`, want: []string{"${A}", "${A}", "$$A"}},
		{src: `${EMPTY} ${EMPTY:-d} ${NO:-a b|c} "${NO:-a b}" ${NO:-}`, want: []string{"", "d", "a b|c", "a b", ""}},
		{src: `${NO:-${EMPTY:-${A}}} ${NO:-$$${A}}`, want: []string{"1 2", "$1 2"}},
		{src: `$$ $${A} $A $ $( ${A#x} ${} ${9} ${A ${A:=x}`, want: []string{"$", "${A}", "$A", "$", "$(", "${A#x}", "${}", "${9}", "${A", "${A:=x}"}},
		{src: `${REF} ${D}{A} ${_x9}`, want: []string{"${A}", "${A}", "x"}}, // what a variable holds is not expanded
		{src: "${NO}", says: "variable NO is not set"},
		{src: "${NO:?}", says: "variable NO is not set or empty"},
		{src: "${EMPTY:?give it a value}", says: "variable EMPTY: give it a value"},
	} {
		cmd, err := SplitWords(tt.src)
		var got []string
		if err == nil {
			got, err = cmd.Expand(environment)
		}
		says := ""
		if err != nil {
			says = err.Error()
		}
		if says != tt.says || !slices.Equal(got, tt.want) {
			t.Errorf("%s gives %q and says %q, want %q and %q", tt.src, got, says, tt.want, tt.says)
		}
		checkWords(t, cmd)
	}
}

// checkWords: what String writes, SplitWords reads back.
func checkWords(t *testing.T, cmd Command) {
	t.Helper()
	again, err := SplitWords(cmd.String())
	if err != nil {
		t.Fatalf("%#v is written %s: %v", cmd, cmd, err)
	}
	if len(cmd)+len(again) > 0 && !reflect.DeepEqual(again, cmd) {
		t.Fatalf("%#v is written %s, which reads\n%#v", cmd, cmd, again)
	}
}

func TestWords(t *testing.T) {
	args := []string{"a b", "'${A}'", "$$", `\`, "", "$", "${", "|"}
	got, err := Words(args).Expand(environment)
	if want := []string{"a b", "'1 2'", "$", `\`, "", "$", "${", "|"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	checkWords(t, Words(args))
	got, err = Literal(args).Expand(environment)
	if err != nil || !slices.Equal(got, args) {
		t.Errorf("literal words: got %q, %v, want %q", got, err, args)
	}
}

func TestString(t *testing.T) {
	for _, tt := range []struct {
		cmd  Command
		want string
	}{
		{Literal([]string{"a", "b c", "it's", "${A}", "", "ä/b"}), `a 'b c' 'it'\''s' '${A}' '' ä/b`},
		{Words([]string{"${A}", "x ${A:-b c} y", "$$", "$"}), `${A} 'x '${A:-b c}' y' $$ '$'`},
		{Command{{{Text: "a"}, {Text: " b", Literal: true}}, {}}, `'a b' ''`},
	} {
		if got := tt.cmd.String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestExpandString(t *testing.T) {
	got, err := ExpandString("/srv/${A}/$$x/$y", environment)
	if want := "/srv/1 2/$x/$y"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	big := func(string) (string, bool) { return strings.Repeat("x", maxExpanded/2), true }
	if _, err := ExpandString("${A}${A}${A}${A}", big); err == nil {
		t.Error("a value of any size is made")
	}
	deep := strings.Repeat("${NO:-", 100_000)
	if got, err := ExpandString(deep, environment); got != deep || err != nil {
		t.Errorf("unclosed expansions: %d bytes, %v, want them left alone", len(got), err)
	}
}

func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{`a 'b' "c" \d`, "${A} ${B:-c d} ${E:?f} $$ $", `'$'${A}"$$"\$`, "a | b", "${A:-${B:-${C}}}", "''"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		cmd, err := SplitWords(s)
		if err == nil {
			checkWords(t, cmd)
		}
		words := Words([]string{s})
		checkWords(t, words)
		a, errA := words.Expand(environment)
		b, errB := ExpandString(s, environment)
		if (errA == nil) != (errB == nil) || errA == nil && a[0] != b {
			t.Fatalf("a word gives %q, %v, a string %q, %v", a, errA, b, errB)
		}
		if got, err := Literal([]string{s}).Expand(environment); err != nil || got[0] != s {
			t.Fatalf("literal gives %q, %v", got, err)
		}
		cmd, err = SplitWords(Literal([]string{s}).String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cmd.Expand(environment); err != nil || len(got) != 1 || got[0] != s {
			t.Fatalf("quoted %s gives %q, %v", cmd, got, err)
		}
	})
}

func TestCompactIsTheSame(t *testing.T) {
	for _, text := range []string{"", "web", `sh -c 'echo $A "$B"' "" a${C}b'$D' \$E`} {
		cmd, err := SplitWords(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := cmd.compact(); !reflect.DeepEqual(got, cmd) {
			t.Errorf("%s: %q became %q", text, cmd, got)
		}
	}
}

func TestUnexpanded(t *testing.T) {
	for text, want := range map[string][]string{
		"plain $ 5$ $5 $$HOME ${A} ${A:-${B}} ${A:?x}": nil,
		"$HOME/x:$_y2 ${A": {"$HOME", "$_y2", "${A"},
		"${} ${B:+z} ${1}": {"${}", "${B:+z}", "${1}"},
	} {
		if got := Unexpanded(text); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
