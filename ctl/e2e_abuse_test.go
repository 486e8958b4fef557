//go:build linux

package main

import (
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// abuses are what PID 1 of a container has to stand, beyond the situations that
// other inits stand as well. What wants is a regular expression here.
var abuses = []situation{
	{
		name: "a storm of signals", want: "3",
		script: "trap '' HUP USR1 USR2 WINCH QUIT ALRM RTMIN+5; trap '" + endWait + "; exit 3' TERM" + waits,
		meanwhile: func(t *trial) {
			init := t.init()
			for i := range 20_000 {
				for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGQUIT, unix.SIGPIPE, unix.SIGCHLD} {
					if i%7 != int(sig)%7 && init > 0 {
						unix.Kill(init, sig)
					}
				}
			}
			t.kill(unix.SIGTERM)
		},
	},
	{
		name: "signals from its first moment", want: "4", script: "echo up; exit 4", early: true,
		meanwhile: func(t *trial) {
			t.eventually(func() bool {
				for _, sig := range []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGWINCH, unix.SIGPIPE, unix.SIGURG, unix.SIGTTOU} {
					t.kill(sig)
				}
				return strings.Contains(t.output(), "up")
			})
		},
	},
	{
		// The Go runtime exits with 2 when it comes before the first statement.
		name: "SIGTERM from its first moment", want: "0|143|137|2", script: "exec sleep 1000", early: true,
		meanwhile: func(t *trial) {
			t.eventually(func() bool {
				t.kill(unix.SIGTERM)
				return false // until it has ended
			})
		},
	},
	{
		name: "it is stopped while its command ends", want: "3", script: "mkfifo go; echo up; read x <go; exit 3",
		meanwhile: func(t *trial) {
			t.kill(unix.SIGSTOP)
			t.eventually(func() bool { p, _ := processOf(t.init()); return p.state == 'T' })
			t.release("go")
			t.eventually(func() bool { return t.main().state == 'Z' })
			t.kill(unix.SIGCONT)
		},
	},
	{
		name: "stdout and stderr are full", want: "7", script: "echo lost; exit 7",
		before:   wrapped(`exec "$@" >/dev/full 2>&1`),
		services: map[string]string{"talk": "[service]\nexec = 'seq 100000'\noneshot = true\n"},
	},
	{
		name: "nobody reads stdout and stderr any more", want: "7", script: "echo lost; exit 7",
		before:   wrapped(`mkfifo gone; exec 3<>gone 4>gone 3<&-; exec "$@" >&4 2>&4 4>&-`),
		services: map[string]string{"talk": "[service]\nexec = 'seq 100000'\noneshot = true\n"},
	},
	{name: "no /proc", want: "6", script: "exit 6", before: wrapped(`umount -l /proc; exec "$@"`)},
	{name: "no /dev", want: "6", script: "exit 6", before: wrapped(`mount -t tmpfs none /dev; exec "$@"`)},
	{
		name: "a full runtime directory", want: "6", script: "exit 6",
		before: wrapped(`mkdir full; mount -t tmpfs -o size=4k,mode=755 none full; head -c 4096 /dev/zero >full/x; ZINIT_SOCKET=$PWD/full/z.sock exec "$@"`),
	},
	{
		// Another init needs no place to write; zinit says what it has tried.
		name: "nothing at all can be written", want: "1", script: "exit 6",
		before: wrapped(`for d in /run /dev/shm /tmp; do mount --bind $d $d && mount -o remount,bind,ro $d || exit 99; done; unset ZINIT_SOCKET XDG_RUNTIME_DIR; exec "$@"`),
	},
	{
		name: "an environment of 800 KiB", want: "819200 0", script: `echo $(($(printenv A B C D E F G H | wc -c) - 8))`,
		before: wrapped(`x=$(head -c 102400 /dev/zero | tr '\0' x); A=$x B=$x C=$x D=$x E=$x F=$x G=$x H=$x exec "$@"`),
	},
	{
		name: "an environment of 1.2 MiB, more than it takes", want: "126", script: "exit 6",
		before: wrapped(`x=$(head -c 102400 /dev/zero | tr '\0' x); for n in A B C D E F G H I J K L; do export $n=$x; done; exec "$@"`),
	},
	{name: "a flag that is not there", want: "2", script: "exit 6", flags: []string{"--no-such-flag"}},
	{name: "a flag with a bad value", want: "2", script: "exit 6", flags: []string{"--shutdown-timeout=soon"}},
	{name: "20,000 arguments", want: "20000 0", command: append([]string{"sh", "-c", "echo $#", "sh"}, strings.Fields(strings.Repeat("word ", 20_000))...)},
	{name: "its command closes everything", want: "8", script: "exec 0<&- 1>&- 2>&-; exit 8"},
	{
		name: "its command kills all it can", want: "9", script: "kill -KILL -1; exit 9",
		services: map[string]string{"web": "[service]\nexec = 'sleep 1000'\n"},
	},
	{
		// But for those that stop zinit or the command.
		name: "its command sends it every signal", want: "5",
		script: "i=1; while [ $i -le 64 ]; do case $i in 2|15|20|30|37|38|39) ;; *) trap '' $i; kill -$i 1;; esac; i=$((i+1)); done 2>/dev/null; exit 5",
	},
	{
		name: "its supervisor is killed again and again", want: "6",
		script: `for i in 1 2 3 4 5 6 7 8; do
				until pkill -KILL -x zinit-server; do sleep 0.01; done
			done; exit 6`,
	},
	{name: "its directory is gone", want: "6", script: "exit 6", before: wrapped(`mkdir gone; cd gone; rmdir ../gone; exec "$@"`)},
	{name: "a umask that denies everything", want: "6", script: "exit 6", before: wrapped(`umask 777; exec "$@"`)},
	{
		name: "few descriptors", want: "6", script: "exit 6", before: wrapped(`ulimit -n 80; exec "$@"`),
		services: map[string]string{"web": "[service]\nexec = 'sleep 1000'\n"},
	},
	{
		name: "200 processes deep", want: "143",
		script:    `n=${1:-0}; if [ $n -lt 200 ]; then sh "$0" $((n+1)); else echo up; sleep 1000; fi`,
		meanwhile: func(t *trial) { t.kill(unix.SIGTERM) },
	},
	{
		name: "processes that come and go", want: "4",
		script: `n=${1:-0}; sh -c '(true &); (true &)'; [ $n -lt 300 ] && exec sh "$0" $((n+1)); exit 4`,
		services: map[string]string{
			"flap": "[service]\nexec = 'true'\n[lifecycle]\nrestart = 'always'\nrestart_delay_ms = 1\n",
		},
	},
}

func TestAbuse(t *testing.T) {
	playSituations(t, abuses, func(t *testing.T, s situation, got string, trial *trial) {
		if !regexp.MustCompile("^(" + s.want + ")$").MatchString(got) {
			t.Errorf("it came to %q, expected %q; it said:\n%s", got, s.want, &trial.errors)
		}
	})
}
