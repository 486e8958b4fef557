//go:build !failpoint

// Package failpoint has a program built with -tags failpoint kill or stop itself
// at named places: at the moments between two system calls that random kills
// seldom hit. Without the tag there is nothing of it in a program.
//
//	ZINIT_FAILPOINTS=saved:3 ZINIT_FAILPOINT_MARK=/tmp/mark zinit-server-test
//
// kills it with SIGKILL when it comes to Hit("saved") for the third time, and
// writes the name on a line of the mark. What is there is not hit again, so the
// program that is started in its place lives. With saved:3:stop it is stopped,
// until somebody sends SIGCONT.
package failpoint

// Hit is a place to be killed or stopped at. What is given is done only then, just before.
func Hit(string, ...func()) {}
