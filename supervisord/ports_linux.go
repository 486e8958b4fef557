package main

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// findHolder returns who listens on one of these TCP ports, if anybody does.
// It reads /proc, so it belongs beside the loop.
func findHolder(ports []uint16) (holder, bool) {
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue // without IPv6, say
		}
		h, inode, ok := listening(bufio.NewScanner(f), ports)
		f.Close()
		if ok {
			h.pid, h.command = socketOwner(inode)
			return h, true
		}
	}
	return holder{}, false
}

// listening looks for a socket that listens on one of the ports in a table of
// the form of /proc/net/tcp (proc(5)).
func listening(lines *bufio.Scanner, ports []uint16) (h holder, inode string, ok bool) {
	const listen = "0A" // TCP_LISTEN
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[3] != listen {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err == nil && slices.Contains(ports, uint16(port)) {
			return holder{port: uint16(port)}, f[9], true
		}
	}
	return h, "", false
}

// socketOwner finds the process that has a socket.
func socketOwner(inode string) (pid int, command string) {
	want := "socket:[" + inode + "]"
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != want {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			return pid, programName(pid)
		}
	}
	return 0, ""
}
