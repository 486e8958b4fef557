package ipc

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// Embedded and Listed have what messages and records have.
type Embedded struct {
	ID   uint64 `msgpack:"id"`
	Text string `msgpack:"text,omitempty"`
}

type Listed struct {
	Embedded
	Number  int               `msgpack:"number,omitempty"`
	Small   uint8             `msgpack:"small,omitempty"`
	Always  int64             `msgpack:"always"`
	Yes     bool              `msgpack:"yes,omitempty"`
	Share   float64           `msgpack:"share,omitempty"`
	Kind    Scope             `msgpack:"kind,omitempty"`
	When    *Time             `msgpack:"when,omitempty"`
	Inner   Embedded          `msgpack:"inner"`
	Maybe   *Embedded         `msgpack:"maybe,omitempty"`
	Words   []string          `msgpack:"words,omitempty"`
	Several []*Embedded       `msgpack:"several,omitempty"`
	Bytes   []byte            `msgpack:"bytes,omitempty"`
	Names   map[string]string `msgpack:"names,omitempty"`
	Hidden  int               `msgpack:"-"`
}

// plainly is Listed as msgpack/v5 writes it by itself.
type plainly Listed

// mapped reads what was written into a map, whatever the order of its fields.
func mapped(t *testing.T, v any) map[string]any {
	t.Helper()
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := Check(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := msgpack.Unmarshal(b.Bytes(), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWriteByList(t *testing.T) {
	WriteByList(Listed{})
	r := rand.New(rand.NewPCG(1, 2))
	full := Listed{
		Embedded: Embedded{ID: 1 << 40, Text: "a"}, Number: -5, Small: 200, Always: -1 << 40, Yes: true, Share: 0.5,
		Kind: ScopeAll, When: new(Time), Inner: Embedded{Text: "b"}, Maybe: &Embedded{}, Words: []string{""},
		Several: []*Embedded{nil, {ID: 3}}, Bytes: []byte{0}, Names: map[string]string{"": ""}, Hidden: 1,
	}
	for range 1000 {
		v := full
		for i := range reflect.TypeOf(v).NumField() {
			if r.IntN(2) == 0 {
				reflect.ValueOf(&v).Elem().Field(i).SetZero()
			}
		}
		if r.IntN(2) == 0 { // empty, and not nil
			v.Words, v.Several, v.Bytes, v.Names = []string{}, []*Embedded{}, []byte{}, map[string]string{}
		}
		want := mapped(t, plainly(v))
		if got := mapped(t, v); !reflect.DeepEqual(got, want) {
			t.Fatalf("as a value %+v was written as %v, want %v", v, got, want)
		}
		if got := mapped(t, &v); !reflect.DeepEqual(got, want) {
			t.Fatalf("by its address %+v was written as %v, want %v", v, got, want)
		}
	}
}
