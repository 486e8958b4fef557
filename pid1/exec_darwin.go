package main

import (
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/threefoldtech/zinit/common/macos"
	"github.com/threefoldtech/zinit/ipc"
)

// plan lists the steps in their order. What may need privileges comes before
// they are given up. The directory is entered with the identity of the
// service, to whom it may be open when it is not to pid1.
func plan(spec *helperSpec) ([]step, error) {
	sp := &spec.Spawn
	env := []string(sp.Env)
	if len(sp.ListenNames) > 0 {
		env = listenEnv(env, sp.ListenNames)
	}
	var steps []step
	add := func(stage, path string, do func() error) {
		steps = append(steps, step{stage, path, func() syscall.Errno { return errno(do()) }})
	}
	if sp.Nice != nil {
		add("nice", "", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, *sp.Nice) })
	}
	if sp.Umask != nil {
		add("umask", "", func() error {
			unix.Umask(int(*sp.Umask & 0o777))
			return nil
		})
	}
	for _, l := range sp.Rlimits {
		add(limitName(l.Resource), "", func() error {
			return syscall.Setrlimit(l.Resource, &syscall.Rlimit{Cur: l.Soft, Max: l.Hard})
		})
	}
	if c := sp.Cred; c != nil && !ownIdentity(c.UID, c.GID, c.Groups) {
		add(ipc.StageCred, "", func() error { return setGroups(c) })
		add(ipc.StageCred, "", func() error { return unix.Setgid(int(c.GID)) })
		add(ipc.StageCred, "", func() error { return unix.Setuid(int(c.UID)) })
	}
	if sp.Dir != "" {
		add(ipc.StageDir, sp.Dir, func() error { return unix.Chdir(sp.Dir) })
	}
	add(ipc.StageExec, spec.Path, nil)
	last := &steps[len(steps)-1]
	last.do = func() (first syscall.Errno) {
		for i, path := range spec.places() {
			e := errno(syscall.Exec(path, sp.Argv, env))
			if e == unix.ENOEXEC && sp.Shell {
				syscall.Exec("/bin/sh", append([]string{"/bin/sh", path}, sp.Argv[1:]...), env)
			}
			if !goesOn(e) {
				last.path = path
				return e
			}
			if i == 0 {
				first = e
			}
		}
		return first
	}
	return steps, nil
}

// setGroups sets the groups of this process. Where they are more than the kernel
// keeps, it asks the directory of users for the others, as for who has logged in.
func setGroups(c *ipc.Cred) error {
	groups := append([]uint32{c.GID}, slices.DeleteFunc(slices.Clone(c.Groups), func(g uint32) bool { return g == c.GID })...)
	if len(groups) > maxGroups {
		account, err := user.LookupId(strconv.Itoa(int(c.UID)))
		if err != nil {
			return unix.EINVAL
		}
		return macos.InitGroups(account.Username, int(c.GID))
	}
	list := make([]int, len(groups))
	for i, g := range groups {
		list[i] = int(g)
	}
	return unix.Setgroups(list)
}
