// Package macos asks the kernel of macOS what Linux tells in /proc: who runs, and
// what belongs to whom. It is empty elsewhere.
package macos
