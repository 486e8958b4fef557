package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/paths"
	"github.com/threefoldtech/zinit/common/spec"
	"github.com/threefoldtech/zinit/ipc"
)

func checkCommand(*pflag.FlagSet) func(*app, []string) error {
	return func(a *app, args []string) error {
		system, err := paths.SystemDir("", true)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			dir, err := paths.ConfigDir("", false)
			if err != nil {
				return err
			}
			args = []string{dir}
			if _, err := os.Stat(system); err == nil && dir == filepath.Join(filepath.Dir(system), "services") {
				args = []string{system, dir}
			}
		}
		plan := spec.Plan{Services: map[string]*spec.Service{}, Proxies: map[string]*spec.Proxy{}}
		var broken, doubtful []spec.Problem
		whole := true // what is not in the plan does not exist
		for _, path := range args {
			fi, err := os.Stat(path)
			if err != nil {
				return fmt.Errorf("cannot check %s: %w", path, errors.Unwrap(err))
			}
			if !fi.IsDir() {
				whole = false
				broken = append(broken, addFile(&plan, path)...)
				continue
			}
			problems, err := plan.Load(path, filepath.Clean(path) == system)
			if err != nil {
				return err
			}
			broken = append(broken, problems...)
		}
		broken = append(broken, plan.Check()...)
		if whole {
			doubtful = plan.Warnings(broken)
		}
		doubtful = append(doubtful, spec.Place(doubts(plan))...)
		errs, warnings := wire(broken), wire(doubtful)
		slices.SortStableFunc(warnings, func(a, b ipc.Problem) int {
			return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		if a.json {
			printJSON(a.out, map[string]any{"errors": errs, "warnings": warnings})
		} else {
			a.printCheck(plan, errs, warnings)
		}
		if len(errs) > 0 {
			return silent(exitFailed)
		}
		return nil
	}
}

func addFile(plan *spec.Plan, path string) []spec.Problem {
	service, proxy, broken := spec.LoadFile(path)
	if len(broken) > 0 {
		return broken
	}
	return plan.Add(service, proxy)
}

// wire makes of problems what other commands and JSON show of them.
func wire(problems []spec.Problem) []ipc.Problem {
	list := []ipc.Problem{}
	for _, p := range problems {
		list = append(list, ipc.Problem{File: p.File, Line: p.Line, Column: p.Column, Message: p.Message})
	}
	return list
}

func (a *app) printCheck(plan spec.Plan, errs, warnings []ipc.Problem) {
	for _, p := range errs {
		fmt.Fprintln(a.out, problem(p))
	}
	for _, p := range warnings {
		p.Message = "warning: " + p.Message
		fmt.Fprintln(a.out, a.paint(yellow, problem(p)))
	}
	targets := 0
	for _, s := range plan.Services {
		if s.Kind == spec.KindTarget {
			targets++
		}
	}
	standalone := 0
	for name, proxy := range plan.Proxies {
		if s := plan.Services[name]; s == nil || s.Xinet != proxy {
			standalone++
		}
	}
	found := []string{count(len(plan.Services)-targets, "service", "services")}
	if targets > 0 {
		found = append(found, count(targets, "target", "targets"))
	}
	if standalone > 0 {
		found = append(found, count(standalone, "proxy", "proxies"))
	}
	result := a.paint(green, "no errors")
	if n := len(errs); n > 0 {
		result = a.paint(red, count(n, "error", "errors"))
	}
	if n := len(warnings); n > 0 {
		result += ", " + a.paint(yellow, count(n, "warning", "warnings"))
	}
	fmt.Fprintf(a.out, "%s: %s\n", strings.Join(found, ", "), result)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
