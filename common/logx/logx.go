// Package logx makes the logger of a zinit program: coloured by tint on a
// terminal, plain key=value lines elsewhere, always on stderr.
package logx

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/sys/unix"
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
	tty := isTerminal(os.Stderr)
	return slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{
		Level:      level,
		TimeFormat: timeFormat(tty),
		NoColor:    !tty || os.Getenv("NO_COLOR") != "",
	})).With("from", program)
}

func timeFormat(tty bool) string {
	if tty {
		return time.TimeOnly
	}
	return "2006-01-02T15:04:05.000Z07:00"
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
