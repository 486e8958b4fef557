package logs

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The capturing process is killed again and again while a service writes to
// both streams as fast as it can, and no line is lost, doubled or out of order.
func TestNoLineIsLostWhenKilled(t *testing.T) {
	const kills = 120
	dir := t.TempDir()
	c := startCounting(t)
	c.kill(kills, 5*time.Millisecond, fmt.Sprintf("capture %s web 7", dir))

	f := open(t, Options{Dir: dir, Memory: 1 << 30, PerService: 1 << 30})
	for i, r := range c.reads {
		fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Add("web", 7, Stream(i), fd); err != nil {
			t.Fatal(err)
		}
	}
	<-f.eof
	<-f.eof
	if err := c.writer.Wait(); err != nil {
		t.Fatal(err)
	}

	var next [2]int
	var buf []byte
	err := f.Tail(all, func(l Line) error {
		buf = fmt.Appendf(buf[:0], "line %d", next[l.Stream])
		if string(buf) != string(l.Text) || l.Run != 7 || l.Service != "web" || l.Partial || l.Missed > 0 {
			return fmt.Errorf("got %q, want %q on %s", show(l), buf, l.Stream)
		}
		next[l.Stream]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next[0] != next[1] || next[0] == 0 {
		t.Errorf("%d lines of stdout, %d of stderr", next[0], next[1])
	}
	names, size := files(t, dir)
	t.Logf("%d kills, %d lines a stream, %d files, %d bytes", kills, next[0], len(names), size)
	if f.log.Len() > 0 {
		t.Errorf("logged: %s", &f.log)
	}
}

// counting is a service that writes to both streams as fast as it can.
type counting struct {
	t      *testing.T
	writer *exec.Cmd
	stop   *os.File    // it ends when this is closed
	reads  [2]*os.File // what it writes
}

func startCounting(t *testing.T) *counting {
	t.Helper()
	c := &counting{t: t}
	var writes [2]*os.File
	for i := range c.reads {
		r, w := pipePair(t)
		c.reads[i], writes[i] = os.NewFile(uintptr(r), "pipe"), w
		t.Cleanup(func() { c.reads[i].Close() })
	}
	end, stop := pipePair(t)
	c.stop = stop
	stopFile := os.NewFile(uintptr(end), "stop")
	defer stopFile.Close()
	c.writer = helper(t, "count", writes[0], writes[1], stopFile)
	if err := c.writer.Start(); err != nil {
		t.Fatal(err)
	}
	for _, w := range writes {
		w.Close()
	}
	return c
}

// kill starts a helper that captures what the service writes, and kills it, so
// many times, each time within most. Then it ends the service.
func (c *counting) kill(times int, most time.Duration, words string) {
	c.t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for range times {
		cmd := helper(c.t, words, c.reads[:]...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			c.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			c.t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			c.t.Fatal(err)
		}
		// The moment is what is random here; nothing is waited for.
		<-time.After(time.Duration(random.Int64N(int64(most))))
		cmd.Process.Kill()
		cmd.Wait()
	}
	c.stop.Close()
}
