package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/supervisord/core"
)

// A service may say that it is ready before a new supervisor has been told of
// its process: that counts when the news of it comes, and is not consumed
// before.
func TestWhatIsSaidBeforeTheNewsOfASpawnIsKept(t *testing.T) {
	n, err := newNotifier(t.TempDir(), make(chan any, 1))
	if err != nil {
		t.Fatal(err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(ends[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.remove(7)
		for _, fd := range []int{n.poll.epoll, n.poll.scratch[0], n.poll.scratch[1], ends[1]} {
			unix.Close(fd)
		}
	})
	if _, err := unix.Write(ends[1], []byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	n.add(7, ends[0], true)
	for _, c := range []struct {
		leaders map[core.RunID]int
		events  int
	}{
		{map[core.RunID]int{7: 0}, 0},           // it is being spawned
		{map[core.RunID]int{7: os.Getpid()}, 2}, // Notify and Ready
		{map[core.RunID]int{7: os.Getpid()}, 0}, // consumed
	} {
		events, consume := n.unheard(c.leaders)
		if len(events) != c.events {
			t.Fatalf("with the leaders %v %v is heard, expected %d events", c.leaders, events, c.events)
		}
		consume()
	}
}
