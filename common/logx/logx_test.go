package logx

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// written is what a logger writes to a file as stderr. journal says that
// JOURNAL_STREAM names that file, as systemd does it with a socket.
func written(t *testing.T, journal bool) string {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		t.Fatal(err)
	}
	if !journal {
		s.Ino++ // of somebody else, which was inherited with the environment
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", s.Dev, s.Ino))
	stderr := os.Stderr
	os.Stderr = f
	defer func() { os.Stderr = stderr }()
	log := New("test", LevelTrace)
	log.Log(t.Context(), LevelTrace, "a")
	log.Debug("b")
	log.Info("c", "level", "low")
	log.WithGroup("g").Warn("d", "time", 1)
	log.Error("e", "name", "x y")
	text, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestJournalKnowsThePriority(t *testing.T) {
	want := `<7>DBG a from=test
<7>DBG b from=test
<6>INF c from=test level=low
<4>WRN d from=test g.time=1
<3>ERR e from=test name="x y"
`
	if got := written(t, true); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestOthersAreToldTheTime(t *testing.T) {
	got := written(t, false)
	if !regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\S+ WRN d from=test g.time=1$`).MatchString(got) {
		t.Errorf("got\n%s", got)
	}
}
