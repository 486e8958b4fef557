package main

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	// maxStored bounds the descriptor store.
	maxStored = 1 << 16
	// maxFdName is the longest name of a stored descriptor, in bytes.
	maxFdName = 255
)

// fdStore keeps descriptors by name over the life of supervisors. It owns
// them; all are close-on-exec.
type fdStore map[string]int

// put takes over a descriptor, in place of one of that name.
func (s fdStore) put(name string, fd int) error {
	old, known := s[name]
	switch {
	case name == "" || len(name) > maxFdName:
		unix.Close(fd)
		return fmt.Errorf("cannot store a descriptor: its name has %d bytes, allowed are 1 to %d", len(name), maxFdName)
	case !known && len(s) >= maxStored:
		unix.Close(fd)
		return fmt.Errorf("cannot store descriptor %s: %d are stored, which is the limit", name, maxStored)
	case known:
		unix.Close(old)
	}
	s[name] = fd
	return nil
}

// drop closes a descriptor.
func (s fdStore) drop(name string) {
	if fd, ok := s[name]; ok {
		unix.Close(fd)
		delete(s, name)
	}
}

// closeAll closes all descriptors at the end of zinit, which takes a while where they
// are many: on as many threads as there are for it, beside the end of the supervisor.
func (s fdStore) closeAll() {
	fds := slices.Collect(maps.Values(s))
	clear(s)
	for part := range slices.Chunk(fds, len(fds)/procs+1) {
		go func() {
			for _, fd := range part {
				unix.Close(fd)
			}
		}()
	}
}

// pick returns those of the names that are stored, and their descriptors.
func (s fdStore) pick(names []string) (stored []string, fds []int) {
	for _, n := range names {
		if fd, ok := s[n]; ok {
			stored, fds = append(stored, n), append(fds, fd)
		}
	}
	return stored, fds
}

func (s fdStore) names() []string { return slices.Sorted(maps.Keys(s)) }

// dup returns a close-on-exec duplicate.
func dup(fd int) (int, error) {
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
}
