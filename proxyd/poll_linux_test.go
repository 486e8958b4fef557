package main

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

func TestListenerThatIsTakenAwaySendsNoMoreEvents(t *testing.T) {
	tr := try(t, serve(t, "tcp4", echo), []string{"tcp4", "unix"}, nil)
	tr.gate(ipc.Gate{State: ipc.GateOpen})
	var gone, still, held int
	tr.in(func() {
		gone, still = tr.proxy.listeners[0].fd, tr.proxy.listeners[1].fd
		held, _ = unix.FcntlInt(uintptr(gone), unix.F_DUPFD_CLOEXEC, 0) // as another process does
		kept, _ := unix.FcntlInt(uintptr(still), unix.F_DUPFD_CLOEXEC, 0)
		changed := tr.spec
		changed.Listen = tr.spec.Listen[1:]
		if err := tr.proxy.configure(changed, []int{kept}); err != nil {
			t.Error(err)
		}
	})
	defer unix.Close(held)
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", tr.loop.epoll))
	if err != nil {
		t.Fatal(err)
	}
	watched := func(fd int) bool { return regexp.MustCompile(fmt.Sprintf(`tfd: +%d `, fd)).Match(info) }
	if watched(gone) || !watched(still) {
		t.Errorf("watched are %t and %t, want only the second:\n%s", watched(gone), watched(still), info)
	}
}
