package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts are the file systems that services expect, in the order in which one
// needs the other. The group of /dev/pts is tty, as Debian and Fedora number
// it, so that terminals can be written to by their owner alone.
var mounts = []struct {
	dir, kind string
	flags     uintptr
	options   string
}{
	{"/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	{"/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	{"/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
}

// boot makes a system that services can run in out of a kernel that has just
// started. What fails is returned and left out: somebody has to be able to log
// in and mend it.
func boot() (problems []error) {
	try := func(what string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("cannot %s: %w", what, err))
		}
	}
	for _, m := range mounts {
		if mounted(m.dir) {
			continue
		}
		os.Mkdir(m.dir, 0o755) // within one before it; where that fails, so does mount
		try("mount "+m.dir, unix.Mount(m.kind, m.dir, m.kind, m.flags, m.options))
	}
	try("open /dev/console", openConsole())
	try("set the hostname", setHostname())
	try("bring up the network interface lo", loopbackUp())
	// The kernel sends SIGINT to PID 1 instead of rebooting by itself.
	try("take over Ctrl-Alt-Del", unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF))
	return problems
}

// mounted says whether something is mounted on a directory.
func mounted(dir string) bool {
	var st, above unix.Stat_t
	return unix.Stat(dir, &st) == nil && unix.Stat(dir+"/..", &above) == nil && st.Dev != above.Dev
}

// openConsole gives pid1 the console where the kernel did not: the Go runtime
// has put /dev/null in place of descriptors that were not open.
func openConsole() error {
	var null unix.Stat_t
	if err := unix.Stat("/dev/null", &null); err != nil {
		return err
	}
	for n := range 3 {
		var st unix.Stat_t
		if unix.Fstat(n, &st) == nil && st.Rdev != null.Rdev {
			continue
		}
		fd, err := open("/dev/console", unix.O_RDWR|unix.O_NOCTTY)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Dup3(fd, n, 0); err != nil {
			return err
		}
	}
	return nil
}

// setHostname takes the first line of /etc/hostname that is not a comment
// (hostname(5)).
func setHostname() error {
	b, err := readSmall("/etc/hostname")
	if err == unix.ENOENT {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		if name := strings.TrimSpace(line); name != "" && name[0] != '#' {
			return unix.Sethostname([]byte(name))
		}
	}
	return err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
