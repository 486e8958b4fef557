package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/threefoldtech/zinit/common/spec"
)

func initCommand(flags *pflag.FlagSet) func(*app, []string) error {
	dir := flags.String("dir", ".", "the `directory` for the file")
	return func(a *app, args []string) error {
		name := args[0]
		if err := spec.CheckName(name); err != nil {
			return usagef("init: %v", err)
		}
		path := filepath.Join(*dir, name+".toml")
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("cannot write %s: it exists already, and is left as it is", path)
		}
		if err != nil {
			return fmt.Errorf("cannot write the service file: %w", err)
		}
		_, err = f.WriteString(skeleton(name))
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("cannot write the service file: %w", err)
		}
		if a.json {
			return printJSON(a.out, map[string]string{"file": path})
		}
		fmt.Fprintf(a.out, "Wrote %s. Set exec in it, then try: zinit check %s\n", path, path)
		return nil
	}
}

// skeleton is a service file in which everything is explained, and only what
// is required is set.
func skeleton(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# The service %s. Lines that begin with # and a key show the default, or an\n# example where there is none.\n", name)
	table := ""
	for _, f := range spec.Fields() {
		if f.Table == "target" || f.Table == "xinet" && (f.Key == "name" || f.Key == "service") {
			continue
		}
		if f.Table != table {
			table = f.Table
			switch table {
			case "health":
				b.WriteString("\n# A health check: take the # away here and at the keys that are needed.\n#")
			case "xinet":
				b.WriteString("\n# Started at the first connection: as for health.\n#")
			default:
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "[%s]\n", table)
		}
		doc := f.Doc
		if f.Type == spec.TypeEnum {
			doc += " (" + strings.ReplaceAll(f.Values, " ", ", ") + ")"
		}
		var lines strings.Builder
		wrap(&lines, 1, 1, doc)
		for line := range strings.Lines(lines.String()) {
			b.WriteString("#" + line)
		}
		if f.Table != "service" || f.Key != "exec" {
			b.WriteByte('#')
		}
		fmt.Fprintf(&b, "%s = %s\n", f.Key, sample(f, name))
	}
	return b.String()
}

// sample is the default of a field as it stands in a file, or else an example.
func sample(f spec.Field, name string) string {
	if f.Default != "" {
		return f.Default
	}
	switch f.Key {
	case "dir":
		return `"/var/lib/` + name + `"`
	case "endpoint":
		return `"http://localhost:8080/health"`
	case "file":
		return `"/var/log/` + name + `.log"`
	case "method":
		return `"GET"`
	case "type":
		return `"http"`
	}
	switch f.Type {
	case spec.TypeName:
		return `"` + name + `"`
	case spec.TypeCommand:
		return `"/usr/bin/` + name + `"`
	case spec.TypeID:
		return `"nobody"`
	case spec.TypeMode:
		return `"022"`
	case spec.TypeRlimit:
		return "65536"
	case spec.TypeSize:
		return `"512MiB"`
	case spec.TypeFloat:
		return "1.5"
	case spec.TypeAddress:
		return `"tcp:127.0.0.1:5433"`
	case spec.TypeAddresses:
		return `["tcp:127.0.0.1:5432"]`
	}
	return "0"
}
