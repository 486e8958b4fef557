package main

import (
	"math/rand"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// These have the fields of others and are written as msgpack/v5 does by itself.
type (
	plainRecord core.Record
	plainFirst  core.First
	plainRun    core.Run
	plainEnd    core.End
	plainSpawn  ipc.Spawn
	plainChange change
)

func mapOf(t *testing.T, v any) map[string]any {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := msgpack.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWrittenByList writes what has its own way of being written in both ways.
func TestWrittenByList(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	sparse := func(v reflect.Value) reflect.Value { // most fields of most records are empty
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range out.NumField() {
			if r.Intn(2) == 0 {
				out.Field(i).SetZero()
			}
		}
		return out
	}
	moment := ipc.Time(time.Unix(5, 6))
	for _, pair := range []struct{ typ, plain reflect.Type }{
		{reflect.TypeFor[core.Record](), reflect.TypeFor[plainRecord]()},
		{reflect.TypeFor[core.First](), reflect.TypeFor[plainFirst]()},
		{reflect.TypeFor[core.Run](), reflect.TypeFor[plainRun]()},
		{reflect.TypeFor[core.End](), reflect.TypeFor[plainEnd]()},
		{reflect.TypeFor[ipc.Spawn](), reflect.TypeFor[plainSpawn]()},
		{reflect.TypeFor[change](), reflect.TypeFor[plainChange]()},
	} {
		for range 200 {
			var v reflect.Value
			if pair.typ == reflect.TypeFor[change]() {
				v = reflect.ValueOf(change{
					Event: ipc.Event{Seq: r.Uint64(), Time: &moment, Service: "web", From: ipc.StateStarting, To: ipc.StateFailed, Pid: r.Intn(2)},
					Run:   core.RunID(r.Intn(2)), Decision: "it stays",
				})
			} else {
				v, _ = quick.Value(pair.typ, r)
			}
			v = sparse(v)
			got, want := mapOf(t, v.Interface()), mapOf(t, v.Convert(pair.plain).Interface())
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%v was written as\n%v, want\n%v", pair.typ, got, want)
			}
		}
	}
}
