package spec

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// TOML is the whole effective configuration, as a file that Parse reads back,
// with the defaults marked.
func (s *Service) TOML() string { return s.render(true) }

// Source is the shortest file that Parse reads back: without the defaults.
func (s *Service) Source() string { return s.render(false) }

// TOML is as that of a service, for a proxy of its own.
func (p *Proxy) TOML() string { return p.service().render(true) }

// Source is as that of a service, for a proxy of its own.
func (p *Proxy) Source() string { return p.service().render(false) }

// service is what holds a proxy of its own where fields are concerned.
func (p *Proxy) service() *Service {
	s := Default(p.Service)
	s.Kind, s.Xinet = KindProxy, p
	return s
}

// Equal reports whether two services are the same but for their files.
func (s *Service) Equal(o *Service) bool { return len(s.Diff(o)) == 0 }

// Equal reports whether two proxies are the same but for their files.
func (p *Proxy) Equal(o *Proxy) bool { return p.service().Equal(o.service()) }

// Diff lists the fields in which two services differ, such as
// "lifecycle.stop_timeout_ms", or only the table where one of them lacks it.
// File does not count.
func (s *Service) Diff(o *Service) []string {
	if s.Kind != o.Kind {
		return []string{"kind"}
	}
	var diff []string
	for i := range fields {
		f := &fields[i]
		if !s.hasTable(f.Table) && !o.hasTable(f.Table) {
			continue
		}
		if s.hasTable(f.Table) != o.hasTable(f.Table) {
			if !slices.Contains(diff, f.Table) {
				diff = append(diff, f.Table)
			}
			continue
		}
		a, b := f.at(s), f.at(o)
		if !reflect.DeepEqual(a, b) && f.format(a) != f.format(b) {
			diff = append(diff, f.name())
		}
	}
	return diff
}

// hasTable reports whether a table means something to this service.
func (s *Service) hasTable(table string) bool {
	switch table {
	case "xinet":
		return s.Xinet != nil
	case "dependencies":
		return s.Kind != KindProxy
	case "service", "target":
		return string(s.Kind) == table
	case "health":
		return s.Kind == KindService && s.Health != nil
	default:
		return s.Kind == KindService
	}
}

// misplaced says why a field means nothing to this service, "" if it does.
func (f *Field) misplaced(s *Service) string {
	switch f.Table {
	case "lifecycle":
		if s.Oneshot && (f.Key == "ready" || f.Key == "watchdog_ms") {
			return "does not apply to a oneshot, which is done when it exits"
		}
	case "health":
		switch f.Key {
		case "endpoint":
			if s.Health.Type == HealthExec {
				return `does not apply to type = "exec": use command`
			}
		case "command":
			if s.Health.Type != HealthExec {
				return `applies only to type = "exec": use endpoint`
			}
		case "expect_status", "method", "headers", "insecure":
			if s.Health.Type != HealthHTTP {
				return `applies only to type = "http"`
			}
		}
	case "xinet":
		switch f.Key {
		case "backend", "connect_timeout", "idle_timeout", "single_connection":
			if s.Xinet.Mode == ProxyPass {
				return `does not apply to mode = "pass", where the service accepts by itself`
			}
		}
	}
	return ""
}

func (s *Service) render(withDefaults bool) string {
	defaults := s.defaults()
	var b strings.Builder
	table := ""
	for i := range fields {
		f := &fields[i]
		if !s.hasTable(f.Table) || f.misplaced(s) != "" {
			continue
		}
		text := f.format(f.at(s))
		standard := text == f.format(f.at(defaults))
		main := f.Table == mainTable(s.Kind)
		if text == "" || standard && !withDefaults {
			// The main table makes the kind, even with nothing in it.
			if !main || table == f.Table {
				continue
			}
			text = ""
		}
		if table != f.Table {
			if table != "" {
				b.WriteByte('\n')
			}
			table = f.Table
			fmt.Fprintf(&b, "[%s]\n", table)
		}
		if text == "" {
			continue
		}
		fmt.Fprintf(&b, "%s = %s", f.Key, text)
		if standard {
			b.WriteString(" # default")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// format is the value that ptr points at as it stands in a file; "" where it
// is absent.
func (f *Field) format(ptr any) string {
	switch v := ptr.(type) {
	case *bool:
		return strconv.FormatBool(*v)
	case *string:
		if *v == "" {
			return ""
		}
		return tomlString(*v)
	case *int:
		switch {
		case f.Type == TypeSignal:
			return tomlString(SignalName(*v))
		case *v == 0 && f.Default == "":
			return ""
		}
		return strconv.Itoa(*v)
	case **int:
		if *v == nil {
			return ""
		}
		return strconv.Itoa(**v)
	case *int64:
		if *v == 0 {
			return ""
		}
		return formatSize(*v)
	case *float64:
		if *v == 0 {
			return ""
		}
		return strconv.FormatFloat(*v, 'f', -1, 64)
	case *time.Duration:
		if f.Type == TypeSeconds {
			return strconv.FormatInt(int64(*v/time.Second), 10)
		}
		return strconv.FormatInt(v.Milliseconds(), 10)
	case *uint32:
		return fmt.Sprintf(`"%04o"`, *v)
	case **uint32:
		if *v == nil {
			return ""
		}
		return fmt.Sprintf(`"%04o"`, **v)
	case **uint64:
		switch {
		case *v == nil:
			return ""
		case **v == Unlimited:
			return `"unlimited"`
		}
		return strconv.FormatUint(**v, 10)
	case *Command:
		if len(*v) == 0 {
			return ""
		}
		return tomlString(v.String())
	case *Address:
		if v.Network == "" {
			return ""
		}
		return tomlString(v.String())
	case *[]string:
		return tomlArray(*v, tomlString)
	case *[]int:
		return tomlArray(*v, strconv.Itoa)
	case *[]uint16:
		return tomlArray(*v, func(n uint16) string { return strconv.Itoa(int(n)) })
	case *[]Address:
		if len(*v) == 0 {
			return ""
		}
		return tomlArray(*v, func(a Address) string { return tomlString(a.String()) })
	case *[]EnvVar:
		return tomlTable(*v, func(e EnvVar) (string, string) {
			if e.File != "" {
				return e.Name, "{ file = " + tomlString(e.File) + " }"
			}
			return e.Name, tomlString(e.Value)
		})
	case *map[string]string:
		names := make([]string, 0, len(*v))
		for name := range *v {
			names = append(names, name)
		}
		slices.Sort(names)
		return tomlTable(names, func(name string) (string, string) { return name, tomlString((*v)[name]) })
	default:
		panic(fmt.Sprintf("field %s has no way to format a %T", f.name(), ptr))
	}
}

func tomlArray[T any](list []T, element func(T) string) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = element(v)
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func tomlTable[T any](list []T, entry func(T) (key, value string)) string {
	if len(list) == 0 {
		return "{}"
	}
	texts := make([]string, len(list))
	for i, v := range list {
		key, value := entry(v)
		if strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			key = tomlString(key)
		}
		texts[i] = key + " = " + value
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// tomlString writes a basic string. TOML has not all the escapes of Go.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
