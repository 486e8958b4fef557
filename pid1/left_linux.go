package main

import "golang.org/x/sys/unix"

// anyLeft says whether a process of a run is left whose leader has been
// reaped.
func (k *keeper) anyLeft(r *run) bool {
	if k.inCgroup(r) {
		return true
	}
	for _, g := range r.Groups {
		// EPERM means that there is somebody.
		if unix.Kill(-g, 0) != unix.ESRCH {
			return true
		}
	}
	return r.Cgroup == "" && len(k.strays(r)) > 0
}
