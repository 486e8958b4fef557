package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/ipc"
)

// drainConsole waits a moment until a serial line has sent what was written to
// it, as tcdrain(3) does: the last words would be lost with the machine.
func drainConsole() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		unix.IoctlSetInt(2, unix.TCSBRK, 1)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// exit ends pid1, or the system in a VM. There it returns only if the kernel
// refuses, and pid1 goes on as the parent of whatever there is.
func (k *keeper) exit() {
	if k.opt.mode != ipc.ModeVM || k.pid != 1 {
		k.log.flush()
		os.Exit(k.end.code)
	}
	finish(k.log)
	how := unix.LINUX_REBOOT_CMD_POWER_OFF
	switch k.end.action {
	case ipc.HaltReboot:
		how = unix.LINUX_REBOOT_CMD_RESTART
	case ipc.HaltSystem:
		how = unix.LINUX_REBOOT_CMD_HALT
	}
	k.log.flush()
	drainConsole()
	err := unix.Reboot(how)
	k.log.error("the system cannot be ended", "action", string(k.end.action), "error", err)
	k.end.killAt = 0
	k.childless = false
}
