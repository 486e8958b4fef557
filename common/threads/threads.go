// Package threads has the runtime start threads before there may be none.
package threads

import (
	"runtime"
	"sync"
)

// Warm makes the runtime start n threads. They stay. A Go program that needs a
// thread and gets none aborts, and later, at a limit on processes, there may be
// none.
func Warm(n int) {
	var ready, done sync.WaitGroup
	release := make(chan struct{})
	for range n {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			ready.Done()
			<-release
			runtime.UnlockOSThread()
		}()
	}
	ready.Wait()
	close(release)
	done.Wait()
}
