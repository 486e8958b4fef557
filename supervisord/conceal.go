package main

import (
	"strings"

	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/supervisord/core"
)

// conceal returns why pid1 could not start a run, in words that show no secret:
// a program or a directory in whose name one was expanded is named as in the
// configuration. It judges by the configuration alone, so that it does not need
// the values, which may have changed since.
func (s *server) conceal(m ipc.SpawnFailed) string {
	sp, role := s.core.Command(core.RunID(m.Run))
	if sp == nil || m.Path == "" {
		return m.Message
	}
	shown := m.Path
	switch m.Stage {
	case ipc.StageDir:
		if mayHoldSecret(sp, sp.Dir) {
			shown = sp.Dir
		}
	case ipc.StageExec:
		command := commandFor(sp, role)
		if len(command) == 0 {
			break // it had one when it was spawned
		}
		program := command[:1].String()
		if mayHoldSecret(sp, program) || !strings.Contains(program, "/") && mayHoldSecret(sp, "${PATH}") {
			shown = program
		}
	}
	return strings.ReplaceAll(m.Message, m.Path, shown)
}

// mayHoldSecret says that a text expands variables whose value comes, or may
// come, from a file.
func mayHoldSecret(sp *spec.Service, text string) bool {
	env := map[string]spec.EnvVar{}
	for _, v := range sp.Env {
		env[v.Name] = v
	}
	seen := map[string]bool{}
	for todo := spec.References(text); len(todo) > 0; todo = todo[1:] {
		name := todo[0]
		if seen[name] {
			continue
		}
		seen[name] = true
		v, ok := env[name]
		if v.File != "" || !ok && len(sp.EnvFile) > 0 {
			return true
		}
		more := spec.References(v.Value)
		if len(sp.EnvFile) > 0 && len(more) > 0 {
			return true
		}
		todo = append(todo, more...)
	}
	return false
}
