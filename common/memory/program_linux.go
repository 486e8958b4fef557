package memory

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram takes the pages of the program file out of this process. They stay
// in the kernel's cache, from where those that are needed again come back 64 KiB at
// a time; most of a program is needed once. As long as they are mapped the kernel
// counts them as used, and takes them for such when memory is short.
func unmapProgram() { adviseProgram(unix.MADV_DONTNEED) }

// adviseProgram calls madvise(2) for what is mapped of files and as it is there.
func adviseProgram(advice int) {
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	var from, to uint64
	for line := range strings.Lines(string(smaps)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			// ADDRESS-ADDRESS PERMISSIONS OFFSET DEVICE INODE PATH (proc(5)).
			from, to = 0, 0
			if low, high, _ := strings.Cut(f[0], "-"); f[1][1] != 'w' && f[4] != "0" {
				from, _ = strconv.ParseUint(low, 16, 64)
				to, _ = strconv.ParseUint(high, 16, 64)
			}
		case len(f) >= 2 && f[0] == "Anonymous:" && f[1] == "0" && to > from:
			// Else some of it is not as in the file: it would be lost.
			unix.Syscall(unix.SYS_MADVISE, uintptr(from), uintptr(to-from), uintptr(advice))
		}
	}
}
