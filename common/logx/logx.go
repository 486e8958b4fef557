// Package logx makes the logger of a zinit program: coloured by tint on a
// terminal, plain key=value lines elsewhere, always on stderr. systemd's journal
// is told how serious a line is.
package logx

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/terminal"
)

// LevelTrace is below slog's debug.
const LevelTrace = slog.LevelDebug - 4

// ParseLevel reads the name of a level.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToLower(name) {
	case "trace":
		return LevelTrace, nil
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return slog.LevelInfo, fmt.Errorf("unknown log level %q: choose trace, debug, info, warn or error", name)
}

// New returns a logger of that level for the named program.
func New(program string, level slog.Level) *slog.Logger {
	tty := terminal.Is(int(os.Stderr.Fd()))
	options := &tint.Options{
		Level:      level,
		TimeFormat: timeFormat(tty),
		NoColor:    !tty || os.Getenv("NO_COLOR") != "",
	}
	if isJournal(os.Stderr) {
		options.ReplaceAttr = forJournal
	}
	return slog.New(tint.NewTextHandler(os.Stderr, options)).With("from", program)
}

// isJournal says that a file is the stream to systemd's journal which
// JOURNAL_STREAM names (systemd.exec(5)).
func isJournal(f *os.File) bool {
	var s unix.Stat_t
	return unix.Fstat(int(f.Fd()), &s) == nil && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}

// forJournal leaves out the time, which the journal knows, and has a line begin
// with its priority (sd-daemon(3)).
func forJournal(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		return slog.Attr{}
	}
	level, ok := a.Value.Any().(slog.Level)
	switch {
	case !ok:
		return a
	case level >= slog.LevelError:
		return slog.String(a.Key, "<3>ERR")
	case level >= slog.LevelWarn:
		return slog.String(a.Key, "<4>WRN")
	case level >= slog.LevelInfo:
		return slog.String(a.Key, "<6>INF")
	}
	return slog.String(a.Key, "<7>DBG")
}

func timeFormat(tty bool) string {
	if tty {
		return time.TimeOnly
	}
	return "2006-01-02T15:04:05.000Z07:00"
}
