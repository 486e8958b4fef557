package main

import "os"

// exit ends pid1.
func (k *keeper) exit() {
	k.log.flush()
	os.Exit(k.end.code)
}
