package main
import ("testing";"time";"fmt";"golang.org/x/sys/unix";"github.com/threefoldtech/zinit/ipc")
func TestZZRate(t *testing.T) {
	s := start(t, setup{}).supervisor()
	const n = 1000
	t0 := time.Now()
	for id := ipc.RunID(1); id <= n; id++ {
		s.spawn(ipc.Spawn{Run: id, Tag: "sleep", Argv: []string{"/bin/sleep", "1000"}})
	}
	for i:=0;i<n;i++ { await(s, ipc.KindSpawned, func(ipc.Spawned) bool { return true }) }
	fmt.Println("spawn", time.Since(t0)); t0=time.Now()
	for id := ipc.RunID(1); id <= n; id++ {
		s.send(ipc.KindSignal, ipc.Signal{Run: id, Sig: int(unix.SIGTERM), Scope: ipc.ScopeAll})
	}
	for i:=0;i<n;i++ { await(s, ipc.KindExited, func(ipc.Exited) bool { return true }) }
	fmt.Println("end", time.Since(t0))
}
