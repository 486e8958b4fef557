package spec

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Add puts what one file describes into the plan, with the proxy of a service
// under its name. A name that is already there is a problem, and nothing of
// the file is added.
func (p *Plan) Add(s *Service, x *Proxy) []Problem {
	name, file := "", ""
	if s != nil {
		name, file = s.Name, s.File
		x = s.Xinet
		if other := p.Services[s.Name]; other != nil {
			return duplicate(file, name, string(other.Kind), other.File)
		}
	}
	if x != nil {
		if s == nil {
			name, file = x.Name, x.File
		}
		if other := p.Proxies[x.Name]; other != nil {
			return duplicate(file, name, "proxy", other.File)
		}
		p.Proxies[x.Name] = x
	}
	if s != nil {
		p.Services[s.Name] = s
	}
	return nil
}

func duplicate(file, name, kind, first string) []Problem {
	if first == "" {
		first = "one that was added at run time"
	}
	return []Problem{{
		File: file, Service: name,
		Message: fmt.Sprintf("there is already a %s named %s: %s", kind, name, first),
	}}
}

// Check finds what is wrong only between files: cycles, log files that two
// services would write, addresses where two proxies would listen, and proxies
// that lead back to themselves.
func (p Plan) Check() []Problem {
	var problems []Problem
	for _, cycle := range Cycles(p.Services) {
		message := cycleMessage + ": " + strings.Join(append(cycle, cycle[0]), " -> ")
		early := func(name string) bool { return p.Services[name].Early }
		if slices.ContainsFunc(cycle, early) {
			message += " (services of the system directory start before all others)"
		}
		problems = append(problems, Problem{File: p.Services[cycle[0]].File, Service: cycle[0], Message: message})
	}
	problems = append(problems, p.SharedLogFiles()...)
	problems = append(problems, p.sharedListeners()...)
	problems = append(problems, p.ProxyLoops()...)
	for i := range problems {
		problems[i].Between = true
	}
	return Place(problems)
}

const cycleMessage = "dependency cycle"

// ProxyLoops finds proxies whose clients would come back to them, again and
// again until no descriptor is left: one problem for each circle, of one of its
// proxies.
func (p Plan) ProxyLoops() (problems []Problem) {
	doors := map[string][]string{}
	for name, x := range p.Proxies {
		for _, a := range x.Listen {
			doors[a.door()] = append(doors[a.door()], name)
		}
	}
	graph := make(map[string]*Service, len(p.Proxies)) // of the cycles of which enough is known
	for name, x := range p.Proxies {
		graph[name] = &Service{}
		for _, next := range doors[x.Backend.door()] {
			if next != name && slices.ContainsFunc(p.Proxies[next].Listen, x.Backend.Reaches) {
				graph[name].Requires = []string{next}
			}
		}
	}
	for _, loop := range Cycles(graph) {
		message := "xinet.backend: clients would go round in a circle: " + strings.Join(append(loop, loop[0]), " -> ")
		problems = append(problems, Problem{File: p.Proxies[loop[0]].File, Service: loop[0], Message: message})
	}
	return problems
}

// Listeners returns the proxy that each address belongs to: of several that
// name it the first.
func (p Plan) Listeners() map[Address]*Proxy {
	owners := map[Address]*Proxy{}
	for _, name := range slices.Sorted(maps.Keys(p.Proxies)) {
		for _, a := range p.Proxies[name].Listen {
			if owners[a] == nil {
				owners[a] = p.Proxies[name]
			}
		}
	}
	return owners
}

func (p Plan) sharedListeners() (problems []Problem) {
	owners := p.Listeners()
	for _, name := range slices.Sorted(maps.Keys(p.Proxies)) {
		x := p.Proxies[name]
		for i, a := range x.Listen {
			if first := owners[a]; first != x {
				problems = append(problems, Problem{File: x.File, Service: name, Message: fmt.Sprintf("xinet.listen: %s is also where the proxy %s listens", a, first.Name)})
			} else if slices.Contains(x.Listen[:i], a) {
				problems = append(problems, Problem{File: x.File, Service: name, Message: fmt.Sprintf("xinet.listen: %s is there twice", a)})
			}
		}
	}
	return problems
}

// SharedLogFiles finds services that cannot have their log file, because another
// one writes it.
func (p Plan) SharedLogFiles() (problems []Problem) {
	owners := map[string]string{}
	names := slices.Sorted(maps.Keys(p.Services))
	for _, name := range names {
		if file := p.Services[name].Logging.File; file != "" && owners[path.Clean(file)] == "" {
			owners[path.Clean(file)] = name
		}
	}
	for _, name := range names {
		s := p.Services[name]
		if s.Logging.File == "" {
			continue
		}
		file := path.Clean(s.Logging.File)
		message := ""
		if owners[file] != name {
			message = fmt.Sprintf("logging.file: %s is also the log file of %s", file, owners[file])
		} else if base := strings.TrimRight(file, "0123456789"); base != file && strings.HasSuffix(base, ".") {
			if other := owners[strings.TrimSuffix(base, ".")]; other != "" {
				message = fmt.Sprintf("logging.file: %s is what the log file of %s is renamed to when it is rotated", file, other)
			}
		}
		if message != "" {
			problems = append(problems, Problem{File: s.File, Service: name, Message: message})
		}
	}
	return problems
}

// Warnings finds what is allowed and probably a mistake: names that nothing
// has, and ports of two services that may run at the same time. The names of files
// that could not be read are known all the same.
func (p Plan) Warnings(broken []Problem) []Problem {
	var warnings []Problem
	warn := func(file, name, format string, args ...any) {
		warnings = append(warnings, Problem{File: file, Service: name, Message: fmt.Sprintf(format, args...)})
	}
	known := slices.Sorted(maps.Keys(p.Services))
	suggest := func(name string) string {
		// Looking for the nearest of many names takes its time.
		if len(warnings) >= maxProblems {
			return ""
		}
		return didYouMean(name, known)
	}
	ports := map[uint16]*Service{}
	for _, name := range known {
		s := p.Services[name]
		for _, list := range s.dependencies() {
			for _, other := range list.names {
				if p.Services[other] == nil && !slices.ContainsFunc(broken, func(b Problem) bool { return b.Service == other }) {
					warn(s.File, name, "dependencies.%s: there is no %s%s", list.key, other, suggest(other))
				}
			}
		}
		for _, port := range s.Ports {
			first := ports[port]
			if first == nil {
				ports[port] = s
			} else if !slices.Contains(s.Conflicts, first.Name) && !slices.Contains(first.Conflicts, name) {
				warn(s.File, name, "service.ports: %d is also a port of %s; if only one of them is to run, name it in dependencies.conflicts", port, first.Name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Proxies)) {
		x := p.Proxies[name]
		if s := p.Services[x.Service]; s == nil {
			warn(x.File, name, "xinet.service: there is no %s%s", x.Service, suggest(x.Service))
		} else if s.Oneshot {
			warn(x.File, name, "xinet.service: %s is a oneshot, which has no clients", s.Name)
		}
	}
	slices.SortStableFunc(warnings, func(a, b Problem) int { return cmp.Compare(a.File, b.File) })
	return Place(warnings)
}

// dependencyList is one of the lists of [dependencies].
type dependencyList struct {
	key   string
	names []string
}

func (s *Service) dependencies() [4]dependencyList {
	return [...]dependencyList{{"requires", s.Requires}, {"after", s.After}, {"wants", s.Wants}, {"conflicts", s.Conflicts}}
}

// Cycles finds the cycles through requires and after: enough of them, none
// with a service of another, that without their members there is none left.
// Each is a path along the dependencies that begins with its first name by
// alphabet ("a requires b requires a" is a, b); they are sorted.
//
// That each late service comes after all early ones is one edge for each, by
// way of a service without a name.
func Cycles(services map[string]*Service) [][]string {
	const between = ""
	var early []string
	for name, s := range services {
		if s.Early {
			early = append(early, name)
		}
	}
	if len(early) > 0 {
		slices.Sort(early)
		services = maps.Clone(services)
		services[between] = &Service{After: early, Early: true}
	}
	const (
		onPath = 1 + iota
		done
	)
	type visit struct {
		name string
		next int // of the dependencies
	}
	var cycles [][]string
	state := make(map[string]uint8, len(services))
	for _, root := range slices.Sorted(maps.Keys(services)) {
		if state[root] != 0 {
			continue
		}
		path := []visit{{name: root}}
		state[root] = onPath
		for len(path) > 0 {
			top := &path[len(path)-1]
			to, ok := services[top.name].edge(top.next, between)
			top.next++
			switch {
			case !ok:
				state[top.name] = done
				path = path[:len(path)-1]
			case services[to] == nil || state[to] == done:
			case state[to] == onPath:
				start := len(path) - 1
				for path[start].name != to {
					start--
				}
				var cycle []string
				for _, v := range path[start:] {
					if v.name == between { // not a member, others go by it as well
						state[v.name] = 0
						continue
					}
					cycle = append(cycle, v.name)
					state[v.name] = done
				}
				path = path[:start]
				cycles = append(cycles, fromSmallest(cycle))
			default:
				state[to] = onPath
				path = append(path, visit{name: to})
			}
		}
	}
	slices.SortFunc(cycles, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
	return cycles
}

// edge is the i-th of what a service requires or comes after; the last of a
// late one is what stands for the early ones.
func (s *Service) edge(i int, early string) (string, bool) {
	if i < len(s.Requires) {
		return s.Requires[i], true
	}
	if i -= len(s.Requires); i < len(s.After) {
		return s.After[i], true
	}
	return early, i == len(s.After) && !s.Early
}

// fromSmallest rotates a cycle.
func fromSmallest(cycle []string) []string {
	i := slices.Index(cycle, slices.Min(cycle))
	return slices.Concat(cycle[i:], cycle[:i])
}
