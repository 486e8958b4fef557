package main

import (
	"strings"
	"sync"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// Who waits at a terminal sees for what, and it leaves no trace in what is
// printed.
func TestProgressOnATerminal(t *testing.T) {
	moved := []ipc.Moved{{Name: "db", From: ipc.StateStarting, To: ipc.StateRunning}}
	for _, command := range []string{"start db", "stop-all"} {
		looked := make(chan bool)
		drawn := sync.OnceFunc(func() { close(looked) })
		s := ipctest.Serve(t, func(r *ipctest.Request) {
			if r.Method == "service.list" {
				ipctest.Items(r, services())
				return
			}
			<-looked
			ipctest.Items(r, moved)
		})
		var seen strings.Builder
		r := zinit(t, append([]string{"--socket", s.Socket}, strings.Fields(command)...), onTerminal(40), func(w *world, _ map[string]string) {
			w.stdout = writeFunc(func(text string) {
				if seen.WriteString(text); strings.Contains(text, "starting") && strings.HasPrefix(text, eraseLine) {
					drawn()
				}
			})
		})
		const line = eraseLine + "\x1b[2m0s  1 starting, 1 stopping, 1 blocked..\x1b[0m"
		const want = eraseLine + "\x1b[32m[+]\x1b[0m db  running\n"
		if rest := strings.ReplaceAll(seen.String(), line, ""); rest != want || r.code != exitDone {
			t.Errorf("%s: exit code %d, printed %q, want %q and then %q", command, r.code, seen.String(), line, want)
		}
	}
}

type writeFunc func(string)

func (f writeFunc) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}
