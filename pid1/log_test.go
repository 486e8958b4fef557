package main

import (
	"errors"
	"regexp"
	"testing"
	"time"
)

func TestLogLine(t *testing.T) {
	r := record{level: levelError, text: "it has ended", args: []any{"end", "exit code 1", "in", 20 * time.Millisecond, "row", 3, "none", "", "error", errors.New("a=b")}}
	for _, c := range []struct {
		terminal, colour bool
		want             string
	}{
		{false, false, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) ERR it has ended from=zinit-pid1 end="exit code 1" in=20ms row=3 none="" error="a=b"\n$`},
		{true, false, `^\d\d:\d\d:\d\d ERR it has ended from=zinit-pid1 `},
		{true, true, `^\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m \x1b\[91mERR\x1b\[0m it has ended \x1b\[2mfrom=\x1b\[0mzinit-pid1 `},
	} {
		if got := r.line(c.terminal, c.colour); !regexp.MustCompile(c.want).Match(got) {
			t.Errorf("terminal %t, colour %t: %q, want %s", c.terminal, c.colour, got, c.want)
		}
	}
}
