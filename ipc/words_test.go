package ipc

import (
	"slices"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

func TestWordsAreWhatWasSent(t *testing.T) {
	for _, want := range [][]string{
		nil, {}, {""}, {"a", "", "PATH=/bin"},
		{strings.Repeat("x", 31), strings.Repeat("y", 32), strings.Repeat("z", 255), strings.Repeat("ü", 200), strings.Repeat("w", 70_000)},
		slices.Repeat([]string{"K=V"}, 70_000),
	} {
		b, err := msgpack.Marshal(map[string]any{"words": want})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Words Words `msgpack:"words"`
		}
		if err := msgpack.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Words, Words(want)) {
			t.Errorf("%d words came as %d: %.80q", len(want), len(got.Words), got.Words)
		}
	}
}

func TestWordsRefuseWhatIsNone(t *testing.T) {
	for _, body := range []any{[]any{"a", 1}, []any{[]byte("a")}, []any{nil}, []any{[]string{"a"}}} {
		b, err := msgpack.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		var w Words
		if err := msgpack.Unmarshal(b, &w); err == nil {
			t.Errorf("%v was taken for words: %q", body, w)
		}
	}
	// More words than there are bytes.
	var w Words
	if err := msgpack.Unmarshal([]byte{0xdd, 0xff, 0xff, 0xff, 0xff, 0xa0}, &w); err == nil {
		t.Errorf("an array that is cut short was taken for %d words", len(w))
	}
}

func TestWordsOverOthers(t *testing.T) {
	base := Words{"A=1", "AB=2", "C=3"}
	got := Words{"B=4", "AB=5", "A="}.Over(base)
	if want := (Words{"A=", "AB=5", "C=3", "B=4"}); !slices.Equal(got, want) {
		t.Errorf("the environment is %q, want %q", got, want)
	}
	if want := (Words{"A=1", "AB=2", "C=3"}); !slices.Equal(base, want) {
		t.Errorf("the base is now %q", base)
	}
}
