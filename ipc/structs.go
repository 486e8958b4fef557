package ipc

import (
	"reflect"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// structField is a field of a struct as it is written.
type structField struct {
	name  string
	index []int
	omit  bool // where it is empty
}

// WriteByList has structs of the types of these values written by a list of their
// fields that is made once. What is written stays the same. msgpack/v5 makes such a
// list for each value, and allocates for each field that it asks whether it is empty:
// that takes longer than all the rest, where a struct has many. It is called before the
// first of them is written, and not for a type that others embed.
func WriteByList(values ...any) {
	for _, v := range values {
		fields := sync.OnceValue(func() []structField { return listFields(reflect.TypeOf(v)) })
		msgpack.Register(v, func(e *msgpack.Encoder, v reflect.Value) error { return writeStruct(e, v, fields()) }, nil)
	}
}

// listFields lists the fields of a type, and those of structs that it embeds.
func listFields(t reflect.Type) []structField {
	var out []structField
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		if name != "" && name != "-" {
			out = append(out, structField{name: name, index: f.Index, omit: options == "omitempty"})
		}
	}
	return out
}

func writeStruct(e *msgpack.Encoder, v reflect.Value, fields []structField) error {
	n := 0
	for i := range fields {
		if f := &fields[i]; !f.omit || !empty(v.FieldByIndex(f.index)) {
			n++
		}
	}
	if err := e.EncodeMapLen(n); err != nil {
		return err
	}
	for i := range fields {
		f := &fields[i]
		value := v.FieldByIndex(f.index)
		if f.omit && empty(value) {
			continue
		}
		if err := e.EncodeString(f.name); err != nil {
			return err
		}
		if err := e.EncodeValue(value); err != nil {
			return err
		}
	}
	return nil
}

// empty says whether omitempty leaves a value out. A struct has to be one of which all
// fields are left out where they are empty.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	}
	return v.IsZero()
}
