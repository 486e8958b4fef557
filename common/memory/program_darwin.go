package memory

import "math"

// pages of the program: the kernel compresses and drops them by itself.
type pages struct{}

func programPages() pages { return pages{} }

func (pages) unmap() {}

// own is not known.
func own() int { return math.MaxInt }
