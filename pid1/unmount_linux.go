package main

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// finishPatience bounds the end of the file systems of a machine: a device or
// a server that does not answer must not keep it from going off.
const finishPatience = 10 * time.Second

// finish leaves all file systems of a machine as they are to be found at the
// next start.
func finish(log *logger) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		unix.Sync()
		swapsOff(log)
		unmountAll(log)
		unix.Sync()
	}()
	select {
	case <-done:
	case <-time.After(finishPatience):
		log.error("the file systems cannot be unmounted in time: going without that", "time", finishPatience)
	}
}

// swapsOff ends swapping, which would keep a file system in use.
func swapsOff(log *logger) {
	b, _ := readSmall("/proc/swaps")
	for i, line := range strings.Split(string(b), "\n") {
		if file, _, _ := strings.Cut(line, " "); i > 0 && file != "" { // after a headline
			path, _ := unix.BytePtrFromString(unescape(file))
			if _, _, e := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(path)), 0, 0); e != 0 {
				log.warn("cannot end swapping", "to", file, "error", e)
			}
		}
	}
}

// unmountAll unmounts what was mounted last first, and takes loop devices off
// their files, again and again while that sets others free, and makes read-only
// what is still in use, as / is by pid1 itself. What boot mounts holds nothing
// that stays.
func unmountAll(log *logger) {
	kept := []string{"/"}
	for _, m := range mounts {
		kept = append(kept, m.dir)
	}
	for freed := true; freed; {
		freed = false
		for _, m := range slices.Backward(mountPoints()) {
			if !slices.Contains(kept, m.dir) && unix.Unmount(m.dir, 0) == nil {
				freed = true
			}
		}
		freed = detachLoops() || freed
	}
	for _, m := range slices.Backward(mountPoints()) {
		if slices.Contains(kept[1:], m.dir) || m.kind == "rootfs" {
			continue
		}
		if err := unix.Mount("", m.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			log.warn("cannot unmount a file system nor make it read-only", "dir", m.dir, "error", err)
		}
	}
}

// detachLoops takes the loop devices that nobody uses any more off their files,
// which could not be made read-only else. It says whether there was one.
func detachLoops() (freed bool) {
	entries, _ := os.ReadDir("/sys/block")
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "loop") || !exists("/sys/block/"+e.Name()+"/loop/backing_file") {
			continue
		}
		fd, err := open("/dev/"+e.Name(), unix.O_RDONLY)
		if err != nil {
			continue
		}
		// Of one in use this is only noted, to be done later (loop(4)).
		unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		unix.Close(fd)
		freed = freed || !exists("/sys/block/"+e.Name()+"/loop/backing_file")
	}
	return freed
}

// mountPoint is what counts here of a line of mountinfo.
type mountPoint struct{ dir, kind string }

// mountPoints are those that pid1 sees, in the order in which they were made.
func mountPoints() []mountPoint {
	b, _ := readSmall("/proc/self/mountinfo")
	var list []mountPoint
	for line := range bytes.Lines(b) {
		before, after, ok := strings.Cut(string(line), " - ") // behind it the type (proc(5))
		fields, rest := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(rest) > 0 {
			list = append(list, mountPoint{unescape(fields[4]), rest[0]})
		}
	}
	return list
}

// unescape undoes what the kernel does to blanks in paths: a backslash and
// three octal digits.
func unescape(s string) string {
	parts := strings.Split(s, `\`)
	for i, p := range parts[1:] {
		if n, err := strconv.ParseUint(p[:min(3, len(p))], 8, 8); err == nil {
			parts[i+1] = string([]byte{byte(n)}) + p[3:]
		}
	}
	return strings.Join(parts, "")
}
