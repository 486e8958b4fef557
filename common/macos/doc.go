// Package macos asks the kernel of macOS what Linux tells in /proc: who runs, and
// what belongs to whom. Elsewhere it is of no use.
package macos
