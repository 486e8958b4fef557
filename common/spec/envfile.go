package spec

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ParseEnvFile reads KEY=value lines. Blank lines and those that begin with #
// do not count, "export " before a key is allowed, a pair of quotes around a
// value is taken off. The ${NAME} of a value are for ExpandString; in single
// quotes every dollar stands for itself. Of a key that is there twice the last
// value counts. Errors say file and line and, as values are secrets, nothing
// of the line.
func ParseEnvFile(file string, data []byte) ([]EnvVar, error) {
	const maxErrors = 10
	var vars []EnvVar
	var errs []string
	index := map[string]int{}
	line := 0
	for text := range bytes.Lines(bytes.TrimPrefix(data, []byte("\ufeff"))) {
		line++
		key, value, err := envLine(string(text))
		if err != nil {
			errs = append(errs, fmt.Sprintf("%s:%d: %v", file, line, err))
			if len(errs) == maxErrors {
				break
			}
		}
		if err != nil || key == "" {
			continue
		}
		i, ok := index[key]
		if !ok {
			i = len(vars)
			index[key] = i
			vars = append(vars, EnvVar{Name: key})
		}
		vars[i].Value = value
	}
	if errs != nil {
		return nil, errors.New(strings.Join(errs, "; "))
	}
	return vars, nil
}

// envLine reads one line; key is "" where there is none.
func envLine(text string) (key, value string, err error) {
	text = strings.TrimSpace(text)
	if text == "" || text[0] == '#' {
		return "", "", nil
	}
	if rest, ok := strings.CutPrefix(text, "export"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
		text = rest
	}
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", "", errors.New("expected KEY=value")
	}
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !validEnvName(key) {
		return "", "", errors.New("expected KEY=value with a name before the =")
	}
	if strings.IndexByte(value, 0) >= 0 {
		return "", "", errors.New("a value cannot contain a NUL byte")
	}
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return key, value, nil
	}
	quote := value[0]
	if len(value) == 1 || value[len(value)-1] != quote {
		return "", "", fmt.Errorf("the value begins with %c and does not end with it", quote)
	}
	value = value[1 : len(value)-1]
	if quote == '\'' {
		value = strings.ReplaceAll(value, "$", "$$")
	}
	return key, value, nil
}

// validEnvName: execve(2) takes anything before the first =, but white space
// and control characters there are always mistakes.
func validEnvName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == '=' || r == 0x7f }) < 0
}
