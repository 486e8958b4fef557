package logs

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the processes that the tests need: it runs one of
// these instead of the tests when ZINIT_LOGS_HELPER names it.
var helpers = map[string]func(args []string){
	"capture":     helperCapture,
	"flood":       helperFlood,
	"count":       helperCount,
	"capturefile": helperCaptureFile,
}

func TestMain(m *testing.M) {
	if words := strings.Fields(os.Getenv("ZINIT_LOGS_HELPER")); len(words) > 0 {
		helpers[words[0]](words[1:])
		return
	}
	os.Exit(m.Run())
}

// helper returns a command that runs a helper, with files as its descriptors
// 3, 4 and so on.
func helper(t testing.TB, words string, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ZINIT_LOGS_HELPER="+words)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	return cmd
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// helperCapture DIR SERVICE RUN captures descriptors 3 (stdout) and 4 (stderr)
// of a service until both have ended.
func helperCapture(args []string) {
	run, err := strconv.ParseUint(args[2], 10, 64)
	must(err)
	captureBoth(args[0], args[1], run, func(*Capture) {})
}

func captureBoth(dir, service string, run uint64, prepare func(*Capture)) {
	maxSegment = 64 << 10
	ended := make(chan Stream, 2)
	c, err := Open(Options{
		Dir: dir, Memory: 1 << 30, PerService: 1 << 30,
		EOF: func(_ uint64, s Stream) { ended <- s },
	})
	must(err)
	prepare(c)
	must(c.Add(service, run, Stdout, 3))
	must(c.Add(service, run, Stderr, 4))
	fmt.Println("capturing")
	<-ended
	<-ended
	c.Flush(time.Minute)
	c.Close()
}

// helperFlood BYTES CHUNK writes so many bytes to descriptor 3.
func helperFlood(args []string) {
	total, err := strconv.Atoi(args[0])
	must(err)
	size, err := strconv.Atoi(args[1])
	must(err)
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", size/100+1)[:size])
	for total > 0 {
		n, err := unix.Write(3, chunk[:min(len(chunk), total)])
		must(err)
		total -= n
	}
}

// helperCount writes numbered lines to descriptors 3 and 4 until descriptor 5
// is closed at its other end.
func helperCount([]string) {
	var buf []byte
	watch := []unix.PollFd{{Fd: 5, Events: unix.POLLIN}}
	for n := 0; ; {
		if ready, _ := unix.Poll(watch, 0); ready > 0 {
			return
		}
		buf = buf[:0]
		for range 7 {
			buf = fmt.Appendf(buf, "line %d\n", n)
			n++
		}
		for _, fd := range []int{3, 4} {
			for b := buf; len(b) > 0; {
				w, err := unix.Write(fd, b)
				must(err)
				b = b[w:]
			}
		}
	}
}
