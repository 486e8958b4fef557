package script

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// record is a struct of an answer: its fields have their names in JSON. What
// JSON leaves out is None where it is a thing of its own, and else "", 0, False
// or [], so that a script can look at a field without asking first whether it is
// there. Where a field has the name of a reserved word, an underscore follows
// it: event.from_.
type record struct{ fields *starlark.Dict }

var (
	_ starlark.HasAttrs        = (*record)(nil)
	_ starlark.IterableMapping = (*record)(nil)
	_ starlark.Comparable      = (*record)(nil)
)

func newRecord(fields int) *record { return &record{starlark.NewDict(fields)} }

func (r *record) set(name string, v starlark.Value) {
	// A string is hashable and the dictionary is not frozen yet.
	_ = r.fields.SetKey(starlark.String(name), v)
}

func (r *record) String() string                                     { return r.fields.String() }
func (r *record) Type() string                                       { return "record" }
func (r *record) Freeze()                                            { r.fields.Freeze() }
func (r *record) Truth() starlark.Bool                               { return true }
func (r *record) Hash() (uint32, error)                              { return 0, errors.New("unhashable type: record") }
func (r *record) Iterate() starlark.Iterator                         { return r.fields.Iterate() }
func (r *record) Items() []starlark.Tuple                            { return r.fields.Items() }
func (r *record) Get(k starlark.Value) (starlark.Value, bool, error) { return r.fields.Get(k) }

func (r *record) Attr(name string) (starlark.Value, error) {
	v, ok, err := r.fields.Get(starlark.String(strings.TrimSuffix(name, "_")))
	if !ok {
		return nil, err // nil, nil: there is none
	}
	return v, err
}

func (r *record) AttrNames() []string {
	names := make([]string, 0, r.fields.Len())
	for _, k := range r.fields.Keys() {
		names = append(names, string(k.(starlark.String)))
	}
	slices.Sort(names)
	return names
}

func (r *record) CompareSameType(op syntax.Token, other starlark.Value, depth int) (bool, error) {
	return starlark.CompareDepth(op, r.fields, other.(*record).fields, depth)
}

// value makes a Starlark value of an answer.
func value(v any) starlark.Value { return reflected(reflect.ValueOf(v)) }

func reflected(v reflect.Value) starlark.Value {
	if !v.IsValid() {
		return starlark.None
	}
	if text, ok := v.Interface().(encoding.TextMarshaler); ok && (v.Kind() != reflect.Pointer || !v.IsNil()) {
		b, err := text.MarshalText()
		if err == nil {
			return starlark.String(b)
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return starlark.None
		}
		return reflected(v.Elem())
	case reflect.Bool:
		return starlark.Bool(v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return starlark.MakeInt64(v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return starlark.MakeUint64(v.Uint())
	case reflect.Float32, reflect.Float64:
		return starlark.Float(v.Float())
	case reflect.String:
		return starlark.String(v.String())
	case reflect.Slice:
		items := make([]starlark.Value, v.Len())
		for i := range items {
			items[i] = reflected(v.Index(i))
		}
		return starlark.NewList(items)
	case reflect.Map:
		d := starlark.NewDict(v.Len())
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			_ = d.SetKey(starlark.String(k.String()), reflected(v.MapIndex(k)))
		}
		return d
	case reflect.Struct:
		r := newRecord(v.NumField())
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if name != "-" {
				r.set(name, reflected(v.Field(i)))
			}
		}
		return r
	}
	panic(fmt.Sprintf("an answer has a %s, which scripts have no value for", v.Kind()))
}

// maxDepth of a value that becomes a file; one that contains itself has none.
const maxDepth = 16

// plain makes of a Starlark value what a file can hold.
func plain(v starlark.Value, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lists and dicts are nested more than %d deep", maxDepth)
	}
	switch v := v.(type) {
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		return string(v), nil
	case starlark.Float:
		return float64(v), nil
	case starlark.Int:
		if n, ok := v.Int64(); ok {
			return n, nil
		}
		return nil, fmt.Errorf("%s is too large", v)
	case starlark.IterableMapping:
		table := map[string]any{}
		for _, item := range v.Items() {
			key, ok := starlark.AsString(item[0])
			if !ok {
				return nil, fmt.Errorf("the key %s is no string", item[0])
			}
			if item[1] == starlark.None { // as if it were not there
				continue
			}
			in, err := plain(item[1], depth+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			table[key] = in
		}
		return table, nil
	case starlark.Sequence:
		list := []any{}
		for item := range starlark.Elements(v) {
			in, err := plain(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, in)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a %s has no place in a service file", v.Type())
}

// seconds is a parameter: a number, or a text such as "2s" or "1m30s"; 0 is
// "not given".
type seconds time.Duration

// Unpack is called by starlark.UnpackArgs.
func (s *seconds) Unpack(v starlark.Value) error {
	if text, ok := starlark.AsString(v); ok {
		d, err := time.ParseDuration(text)
		if err != nil {
			d, err = time.ParseDuration(text + "s")
		}
		*s = seconds(d)
		if err == nil && d >= 0 {
			return nil
		}
	} else if f, ok := starlark.AsFloat(v); ok && f >= 0 && f < float64(1<<62)/float64(time.Second) {
		*s = seconds(f * float64(time.Second))
		return nil
	}
	return fmt.Errorf(`%s is no duration: want a number of seconds, or text such as "2s" or "1m30s"`, v)
}

// texts is a parameter: a string or a list of them.
type texts []string

// Unpack is called by starlark.UnpackArgs.
func (t *texts) Unpack(v starlark.Value) error {
	if text, ok := starlark.AsString(v); ok {
		*t = append(*t, text)
		return nil
	}
	list, ok := v.(starlark.Iterable)
	if !ok {
		return fmt.Errorf("got %s, want a string or a list of strings", v.Type())
	}
	for item := range starlark.Elements(list) {
		text, ok := starlark.AsString(item)
		if !ok {
			return fmt.Errorf("got a list with a %s, want strings", item.Type())
		}
		*t = append(*t, text)
	}
	return nil
}
