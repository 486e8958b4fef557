package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// pages are ranges of addresses, [from, to), that are mapped of files and as they
// are there.
type pages [][2]uintptr

// unmap takes the pages out of this process. They stay in the kernel's cache, from
// where those that are needed again come back 64 KiB at a time; most of a program
// is needed once. As long as they are mapped the kernel counts them as used, and
// takes them for such when memory is short.
func (p pages) unmap() { p.advise(unix.MADV_DONTNEED) }

// advise calls madvise(2), and runs as little else as it can: that would bring back
// pages that are gone already.
func (p pages) advise(advice uintptr) {
	for _, r := range p {
		syscall.Syscall(syscall.SYS_MADVISE, r[0], r[1]-r[0], advice)
	}
}

// programPages finds the pages of this program.
func programPages() (p pages) {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil
	}
	defer smaps.Close()
	var from, to uint64
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		line := lines.Bytes()
		switch size, anonymous := bytes.CutPrefix(line, []byte("Anonymous:")); {
		case anonymous:
			// Else some of it is not as in the file: it would be lost.
			if to > from && string(bytes.TrimSpace(size)) == "0 kB" {
				p = append(p, [2]uintptr{uintptr(from), uintptr(to)})
			}
		case line[0] < 'A' || line[0] > 'Z':
			// ADDRESS-ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH (proc(5)).
			from, to = 0, 0
			if f := strings.Fields(string(line)); f[1][1] != 'w' && f[4] != "0" {
				low, high, _ := strings.Cut(f[0], "-")
				from, _ = strconv.ParseUint(low, 16, 64)
				to, _ = strconv.ParseUint(high, 16, 64)
			}
		}
	}
	return p
}

// own is how much memory this process has that is mapped of no file, in bytes.
func own() int {
	var size, resident, shared int
	statm, _ := os.ReadFile("/proc/self/statm") // in pages (proc(5))
	fmt.Sscan(string(statm), &size, &resident, &shared)
	return (resident - shared) * os.Getpagesize()
}
