package main

import (
	"errors"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// cgroups are always nil: macOS has none. A run is its process groups and its
// session.
type cgroups struct{}

func (s *server) openCgroups() (*cgroups, error) { return nil, errors.New("macOS has no cgroups") }

func (*cgroups) close() {}

func (*cgroups) reserve(core.Spawn) string { return "" }

func (*cgroups) path(core.RunID) string { return "" }

func (*cgroups) make(path string, _ *spec.Limits) (string, error) { return path, nil }

func (*cgroups) forget(core.RunID) {}

func (*cgroups) removed(core.RunID) {}

// outOfMemory is not known.
func (*cgroups) outOfMemory(core.RunID) bool { return false }

// cgroupLimits are the limits of a service that need a cgroup.
func cgroupLimits(l *spec.Limits) []string {
	var keys []string
	if l.MemoryMax > 0 {
		keys = append(keys, "memory_max")
	}
	if l.CPUMax > 0 {
		keys = append(keys, "cpu_max")
	}
	if l.PidsMax > 0 {
		keys = append(keys, "pids_max")
	}
	return keys
}

// unmetLimits are the limits of a service that cannot be applied, each with why.
func (*cgroups) unmetLimits(l *spec.Limits, without error) map[string]error {
	unmet := map[string]error{}
	for _, key := range cgroupLimits(l) {
		unmet[key] = without
	}
	return unmet
}

// members are the processes in a cgroup.
func members(string) []int { return nil }
