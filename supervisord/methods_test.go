package main

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/threefoldtech/zinit/ipc"
)

func TestParametersAreChecked(t *testing.T) {
	for _, test := range []struct {
		method string
		params map[string]any
		want   string // part of the error, "" for none
	}{
		{"service.kill", map[string]any{"name": "web"}, ""},
		{"service.kill", map[string]any{"name": "web", "signal": "HUP"}, ""},
		{"service.kill", map[string]any{"signal": "HUP"}, "service.kill needs the parameter name"},
		{"service.kill", map[string]any{"name": "web", "signl": "HUP"}, `service.kill has no parameter "signl", did you mean signal?`},
		{"service.start", map[string]any{"names": []string{"web"}, "for": "running"}, `service.start has no parameter "for"`},
		{"system.info", nil, ""},
	} {
		raw, err := msgpack.Marshal(test.params)
		if err != nil {
			t.Fatal(err)
		}
		if test.params == nil {
			raw = nil
		}
		got := ""
		if err := methods[test.method].check(ipc.Request{Method: test.method, Params: raw}); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s %v: %q, want %q", test.method, test.params, got, test.want)
		}
	}
	for _, bad := range []any{"a string", []string{"web"}, 7} {
		raw, _ := msgpack.Marshal(bad)
		if err := methods["service.kill"].check(ipc.Request{Method: "service.kill", Params: raw}); err == nil {
			t.Errorf("parameters %v: no error", bad)
		}
	}
}

func TestParametersOfTheWrongTypeAreNamed(t *testing.T) {
	for _, test := range []struct {
		params map[string]any
		want   string
	}{
		{map[string]any{"lines": 1, "names": "web"}, "cannot read the parameter names of logs.get: expected an array of strings"},
		{map[string]any{"lines": "all"}, "cannot read the parameter lines of logs.get: expected a whole number"},
		{map[string]any{"lines": 1, "grep": 1}, "cannot read the parameter grep of logs.get: expected a string"},
		{map[string]any{"lines": 1, "previous": "x"}, "cannot read the parameter previous of logs.get: expected true or false"},
		{map[string]any{"lines": 1, "since": "yesterday"}, "cannot read the parameter since of logs.get: expected a time such as 2026-11-22T18:24:00Z"},
	} {
		raw, err := msgpack.Marshal(test.params)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := params[ipc.LogsParams](ipc.Request{Method: "logs.get", Params: raw}); err == nil || err.Error() != test.want {
			t.Errorf("%v: %v, want %s", test.params, err, test.want)
		}
	}
}

// TestMethodsAreDocumented compares the table with that of docs/ipc.md, where
// optional parameters are in italics.
func TestMethodsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/ipc.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Methods\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	remark := regexp.MustCompile(`\([^)]*\)`)
	for line := range strings.Lines(section) {
		columns := strings.Split(line, "|")
		if len(columns) != 5 || !strings.Contains(columns[1], "`") {
			continue
		}
		var params []string
		for _, p := range strings.Split(remark.ReplaceAllString(columns[2], ""), ",") {
			p = strings.TrimSpace(p)
			if name, ok := strings.CutPrefix(p, "*"); ok {
				p = strings.TrimSuffix(name, "*") + "?"
			}
			if p != "" {
				params = append(params, p)
			}
		}
		for _, name := range strings.Split(columns[1], ",") {
			documented[strings.Trim(name, " `")] = strings.Join(params, " ")
		}
	}
	for name, m := range methods {
		params, ok := documented[name]
		if !ok {
			t.Errorf("docs/ipc.md does not describe %s", name)
		} else if params != m.params {
			t.Errorf("docs/ipc.md: %s has the parameters %q, the server takes %q", name, params, m.params)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/ipc.md describes %s, which there is not", name)
	}
	if names := methodNames(); !slices.IsSorted(names) || len(names) != len(methods) {
		t.Errorf("the names of methods are %v", names)
	}
}

// FuzzParameters gives every method whatever passes the check of frames. What
// is refused is refused as invalid.
func FuzzParameters(f *testing.F) {
	types := []func(ipc.Request) error{
		decodes[ipc.NamesParams], decodes[ipc.NameParams], decodes[ipc.EventsParams], decodes[ipc.GetParams],
		decodes[ipc.ConfigParams], decodes[ipc.ReloadParams], decodes[ipc.LogsParams],
	}
	since := ipc.Time{}
	for _, p := range []any{
		ipc.NamesParams{Names: []string{"web", "db"}, NoWait: true, TimeoutMS: 5, State: ipc.StateRunning, Class: "user", For: "exited"},
		ipc.NameParams{Name: "web", Signal: "HUP", Reverse: true}, ipc.EventsParams{Follow: true, After: 7}, ipc.GetParams{Name: "web", Reveal: true},
		ipc.ConfigParams{Config: "[service]", Name: "web", Persist: true, TimeoutMS: -1}, ipc.ReloadParams{DryRun: true},
		ipc.LogsParams{Names: []string{"web"}, Lines: -1, Stream: "stderr", Since: &since, Grep: "a|b", Previous: true},
		map[string]any{"names": map[string]any{"web": 1}, "name": []any{nil}, "since": time.Unix(1, 2), "lines": 1.5}, nil,
	} {
		b, err := msgpack.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if ipc.Check(b) != nil {
			return
		}
		for name, m := range methods {
			r := ipc.Request{ID: 1, Method: name, Params: b}
			refused := []error{m.check(r)}
			for _, decode := range types {
				refused = append(refused, decode(r))
			}
			for _, err := range refused {
				var e *ipc.Error
				if err != nil && (!errors.As(err, &e) || e.Kind != ipc.ErrInvalid) {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
	})
}

func decodes[T any](r ipc.Request) error {
	_, err := params[T](r)
	return err
}
