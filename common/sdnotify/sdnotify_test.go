package sdnotify

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		datagram string
		want     Message
	}{
		{"READY=1", Message{Ready: true}},
		{"READY=1\n", Message{Ready: true}},
		{"READY=0", Message{}},
		{"STATUS=loading\nREADY=1", Message{Ready: true, Status: text("loading")}}, // in any order
		{"STATUS=a=b", Message{Status: text("a=b")}},
		{"STATUS=", Message{Status: text("")}},
		{"STOPPING=1\nERRNO=28", Message{Stopping: true, Errno: 28}},
		{"WATCHDOG=1", Message{Watchdog: true}},
		{"WATCHDOG=trigger", Message{Trigger: true}},
		{"MAINPID=4711", Message{MainPid: 4711}},
		{"MAINPID=1", Message{}},  // nobody's service is init
		{"MAINPID=-5", Message{}}, // would be a group
		{"MAINPID=99999999999", Message{}},
		{"EXTEND_TIMEOUT_USEC=1500000", Message{Extend: 1500 * time.Millisecond}},
		{"EXTEND_TIMEOUT_USEC=-1", Message{}},
		{"EXTEND_TIMEOUT_USEC=9223372036854775807", Message{}},
		{"BARRIER=1", Message{Barrier: true}},
		{"X_VENDOR=1\nFDSTORE=1\nREADY=1", Message{Ready: true}}, // unknown ones are passed over
		{"READY", Message{}},
		{"ready=1", Message{}},
		{"", Message{}},
	} {
		got, ok := Parse([]byte(c.datagram))
		if !ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q is read as %+v, want %+v", c.datagram, got, c.want)
		}
	}
	if _, ok := Parse([]byte("READY=1\x00")); ok {
		t.Error("a datagram with a NUL byte is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("STATUS=x\nREADY=1\nMAINPID=12\nEXTEND_TIMEOUT_USEC=5\nWATCHDOG=trigger"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := Parse(b)
		if !ok && !strings.Contains(string(b), "\x00") {
			t.Fatalf("%q is refused", b)
		}
		if m.MainPid < 0 || m.MainPid == 1 || m.Extend < 0 || m.Errno < 0 {
			t.Fatalf("%q is read as %+v", b, m)
		}
		if m.Ready && !strings.Contains(string(b), "READY=1") {
			t.Fatalf("%q is taken for ready", b)
		}
	})
}
