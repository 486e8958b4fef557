package spec

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// fault is what is wrong with a value: below says where in it, as a path.
type fault struct {
	below   string
	message string
}

// store checks a decoded TOML value and writes it to where dst points. Nothing
// is written if there is a fault.
func (f *Field) store(v any, dst any) []fault {
	switch f.Type {
	case TypeStrings, TypeNames, TypeCapabilities:
		return storeList(f, v, dst.(*[]string), f.text)
	case TypeInts:
		return storeList(f, v, dst.(*[]int), func(v any) (int, error) {
			n, err := f.number(v, f.Min, f.Max)
			return int(n), err
		})
	case TypePorts:
		return storeList(f, v, dst.(*[]uint16), func(v any) (uint16, error) {
			n, err := f.number(v, 1, math.MaxUint16)
			return uint16(n), err
		})
	case TypeAddresses:
		return storeList(f, v, dst.(*[]Address), func(v any) (Address, error) {
			s, err := f.text(v)
			if err != nil {
				return Address{}, err
			}
			return f.address(s)
		})
	case TypeCommand:
		return f.storeCommand(v, dst.(*Command))
	case TypeEnv:
		return f.storeEnv(v, dst.(*[]EnvVar))
	case TypeHeaders:
		return f.storeHeaders(v, dst.(*map[string]string))
	}
	if err := f.storeScalar(v, dst); err != nil {
		return []fault{{message: f.name() + ": " + err.Error()}}
	}
	return nil
}

func (f *Field) name() string { return f.Table + "." + f.Key }

func (f *Field) storeScalar(v, dst any) (err error) {
	switch dst := dst.(type) {
	case *bool:
		b, ok := v.(bool)
		if !ok {
			return f.mismatch(v)
		}
		*dst = b
	case *string:
		return assign(dst)(f.scalarText(v))
	case *int:
		var n int64
		if f.Type == TypeSignal {
			n, err = f.signal(v)
		} else {
			n, err = f.number(v, f.Min, f.Max)
		}
		return assign(dst)(int(n), err)
	case **int:
		n, err := f.number(v, f.Min, f.Max)
		i := int(n)
		return assign(dst)(&i, err)
	case *int64:
		return assign(dst)(f.size(v))
	case *float64:
		return assign(dst)(f.float(v))
	case *time.Duration:
		n, err := f.number(v, f.Min, f.Max)
		unit := time.Millisecond
		if f.Type == TypeSeconds {
			unit = time.Second
		}
		return assign(dst)(time.Duration(n)*unit, err)
	case *uint32:
		return assign(dst)(f.mode(v))
	case **uint32:
		mode, err := f.mode(v)
		return assign(dst)(&mode, err)
	case **uint64:
		return assign(dst)(f.rlimit(v))
	case *Address:
		s, err := f.text(v)
		if err != nil {
			return err
		}
		return assign(dst)(f.address(s))
	default:
		panic(fmt.Sprintf("field %s has no way to store a %T", f.name(), dst))
	}
	return nil
}

func assign[T any](dst *T) func(T, error) error {
	return func(v T, err error) error {
		if err == nil {
			*dst = v
		}
		return err
	}
}

func (f *Field) mismatch(v any) error {
	return fmt.Errorf("must be %s, not %s", f.want(), describe(v))
}

func (f *Field) want() string {
	if f.Type == TypeEnum {
		return orList(strings.Fields(f.Values))
	}
	return f.Type.String()
}

// scalarText is a string, and what its type demands of it.
func (f *Field) scalarText(v any) (string, error) {
	if n, ok := v.(int64); ok && f.Type == TypeID {
		if n < 0 || n >= math.MaxUint32 {
			return "", fmt.Errorf("must be between 0 and %d, not %d", uint32(math.MaxUint32-1), n)
		}
		return strconv.FormatInt(n, 10), nil
	}
	s, err := f.text(v)
	if err != nil {
		return "", err
	}
	switch f.Type {
	case TypeEnum:
		values := strings.Fields(f.Values)
		i := slices.Index(values, s)
		if i < 0 {
			return "", fmt.Errorf("%w%s", f.mismatch(v), didYouMean(s, values))
		}
		return values[i], nil
	case TypeID:
		if s == "" || strings.ContainsAny(s, ": \t\r\n/") {
			return "", f.mismatch(v)
		}
	}
	return s, nil
}

// text is a string that the system can take. It is a copy: what the decoder
// returns is a part of the whole file, which would stay in memory.
func (f *Field) text(v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		switch f.Type {
		case TypeNames, TypeStrings, TypeCapabilities, TypeAddresses, TypeEnv, TypeHeaders, TypeCommand:
			return "", fmt.Errorf("must be a string, not %s", describe(v))
		}
		return "", f.mismatch(v)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("cannot contain a NUL byte")
	}
	s = strings.Clone(s)
	switch f.Type {
	case TypeName, TypeNames:
		return s, CheckName(s)
	case TypeCapabilities:
		return capability(s)
	case TypeStrings:
		if strings.TrimPrefix(s, "-") == "" {
			return "", errors.New("must not be empty")
		}
	}
	return s, nil
}

func (f *Field) address(s string) (Address, error) {
	a, err := ParseAddress(s)
	if err != nil {
		err = fmt.Errorf("%w%s", err, unexpanded(s))
	}
	return a, err
}

// CheckName says what is wrong with the name of a service, target or proxy.
func CheckName(s string) error {
	const what = "a name has 1 to 128 letters, digits and _ . @ : -, and does not begin with . or -"
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return fmt.Errorf("%s is not a valid name: %s", quote(s), what)
	}
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("_.@:-", c) < 0 {
			return fmt.Errorf("%s is not a valid name: %s", quote(s), what)
		}
	}
	return nil
}

func (f *Field) number(v any, low, high int64) (int64, error) {
	n, ok := v.(int64)
	if !ok {
		switch f.Type {
		case TypeInts, TypePorts:
			return 0, fmt.Errorf("must be a whole number, not %s", describe(v))
		}
		return 0, f.mismatch(v)
	}
	if n < low || n > high {
		return 0, fmt.Errorf("must be between %d and %d, not %d", low, high, n)
	}
	return n, nil
}

func (f *Field) signal(v any) (int64, error) {
	var name string
	switch v := v.(type) {
	case string:
		name = v
	case int64:
		name = strconv.FormatInt(v, 10)
	default:
		return 0, f.mismatch(v)
	}
	n, err := SignalNumber(name)
	if err != nil {
		return 0, fmt.Errorf("must be %s: %w", f.want(), err)
	}
	return int64(n), nil
}

func (f *Field) float(v any) (float64, error) {
	n, ok := v.(float64)
	if i, isInt := v.(int64); isInt {
		n, ok = float64(i), true
	}
	if !ok {
		return 0, f.mismatch(v)
	}
	if !(n >= float64(f.Min) && n <= float64(f.Max)) { // so that NaN is refused too
		return 0, fmt.Errorf("must be between %d and %d, not %v", f.Min, f.Max, n)
	}
	return n, nil
}

func (f *Field) rlimit(v any) (*uint64, error) {
	n := Unlimited
	switch v := v.(type) {
	case int64:
		if v < 0 {
			return nil, f.mismatch(v)
		}
		n = uint64(v)
	case string:
		if v != "unlimited" {
			return nil, fmt.Errorf("%w%s", f.mismatch(v), didYouMean(v, []string{"unlimited"}))
		}
	default:
		return nil, f.mismatch(v)
	}
	return &n, nil
}

func (f *Field) mode(v any) (uint32, error) {
	s, ok := v.(string)
	if _, isInt := v.(int64); isInt {
		return 0, fmt.Errorf("must be %s, in quotes: a bare number would be read as decimal", f.want())
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if !ok || err != nil || n > 0o777 {
		return 0, f.mismatch(v)
	}
	return uint32(n), nil
}

func (f *Field) size(v any) (int64, error) {
	var n int64
	switch v := v.(type) {
	case int64:
		n = v
	case string:
		var ok bool
		if n, ok = ParseSize(v); !ok {
			return 0, f.mismatch(v)
		}
	default:
		return 0, f.mismatch(v)
	}
	if n < f.Min {
		return 0, fmt.Errorf("must be at least %d, not %d", f.Min, n)
	}
	return n, nil
}

// ParseSize reads a whole number and a unit: B, KiB, MiB, GiB, TiB, or kB, KB,
// MB, GB, TB, which are powers of 1000.
func ParseSize(s string) (int64, bool) {
	digits := 0
	for digits < len(s) && isDigit(s[digits]) {
		digits++
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	unit := int64(1)
	switch strings.TrimLeft(s[digits:], " ") {
	case "", "B":
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	case "TiB":
		unit = 1 << 40
	case "kB", "KB":
		unit = 1e3
	case "MB":
		unit = 1e6
	case "GB":
		unit = 1e9
	case "TB":
		unit = 1e12
	default:
		return 0, false
	}
	return n * unit, err == nil && n <= math.MaxInt64/unit
}

// formatSize writes a size with the largest unit that divides it.
func formatSize(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i+1 < len(units) && n != 0 && n%1024 == 0 {
		n /= 1024
		i++
	}
	if i == 0 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf(`"%d%s"`, n, units[i])
}

// storeList stores an array, each element of which is checked on its own.
func storeList[T comparable](f *Field, v any, dst *[]T, element func(any) (T, error)) []fault {
	items, ok := v.([]any)
	if !ok {
		hint := ""
		switch v.(type) {
		case string, int64:
			hint = fmt.Sprintf(": write [%s]", literal(v))
		}
		return []fault{{message: fmt.Sprintf("%s: must be %s, not %s%s", f.name(), f.want(), describe(v), hint)}}
	}
	var faults []fault
	seen := make(map[T]bool, len(items))
	list := make([]T, 0, len(items))
	for i, item := range items {
		if len(faults) > maxProblems {
			break
		}
		value, err := element(item)
		if err == nil && seen[value] {
			err = fmt.Errorf("%s is there twice", literal(item))
		}
		if err != nil {
			faults = append(faults, fault{
				below:   "#" + strconv.Itoa(i),
				message: fmt.Sprintf("%s: %v", f.name(), err),
			})
			continue
		}
		seen[value] = true
		list = append(list, value)
	}
	if faults == nil {
		*dst = nil
		if len(list) > 0 {
			*dst = list
		}
	}
	return faults
}

func (f *Field) storeCommand(v any, dst *Command) []fault {
	var cmd Command
	var err error
	switch v := v.(type) {
	case string:
		if _, err = f.text(v); err == nil {
			cmd, err = SplitWords(v)
		}
	case []any:
		words := make([]string, len(v))
		for i, item := range v {
			if words[i], err = f.text(item); err != nil {
				return []fault{{below: "#" + strconv.Itoa(i), message: fmt.Sprintf("%s: %v", f.name(), err)}}
			}
		}
		cmd = Words(words)
	default:
		err = f.mismatch(v)
	}
	if err != nil {
		return []fault{{message: f.name() + ": " + err.Error()}}
	}
	if len(cmd) > 0 && len(cmd[0]) == 1 && cmd[0][0].Text == "" {
		return []fault{{message: f.name() + ": must name a program, and its first word is empty"}}
	}
	*dst = cmd
	return nil
}

func (f *Field) storeEnv(v any, dst *[]EnvVar) []fault {
	table, ok := v.(map[string]any)
	if !ok {
		return []fault{{message: f.name() + ": " + f.mismatch(v).Error()}}
	}
	var faults []fault
	var vars []EnvVar
	for _, name := range sortedKeys(table) {
		e := EnvVar{Name: strings.Clone(name)} // as in text
		var err error
		if !validEnvName(name) {
			err = errors.New("not a name that a variable can have")
		} else if t, ok := table[name].(map[string]any); ok {
			e.File, ok = t["file"].(string)
			if !ok || len(t) != 1 || e.File == "" || strings.IndexByte(e.File, 0) >= 0 {
				err = errors.New(`must be a string or { file = "PATH" }`)
			}
		} else if e.Value, ok = table[name].(string); !ok {
			err = fmt.Errorf(`must be a string or { file = "PATH" }, not %s%s`, describe(table[name]), quoteHint(table[name]))
		} else if strings.IndexByte(e.Value, 0) >= 0 {
			err = errors.New("cannot contain a NUL byte")
		}
		if err != nil {
			faults = append(faults, fault{below: name, message: fmt.Sprintf("%s.%s: %v", f.name(), shorten(name), err)})
			continue
		}
		e.Value, e.File = strings.Clone(e.Value), strings.Clone(e.File)
		vars = append(vars, e)
	}
	if faults == nil {
		*dst = vars
	}
	return faults
}

// quoteHint shows how a value is written as a string.
func quoteHint(v any) string {
	switch v.(type) {
	case int64, float64, bool:
		return fmt.Sprintf(": write %q", literal(v))
	}
	return ""
}

func (f *Field) storeHeaders(v any, dst *map[string]string) []fault {
	table, ok := v.(map[string]any)
	if !ok {
		return []fault{{message: f.name() + ": " + f.mismatch(v).Error()}}
	}
	var faults []fault
	headers := make(map[string]string)
	for _, name := range sortedKeys(table) {
		s, ok := table[name].(string)
		switch {
		case !validHeaderName(name):
			faults = append(faults, fault{below: name, message: fmt.Sprintf("%s: %s is not a name that a header can have", f.name(), quote(name))})
		case !ok:
			faults = append(faults, fault{below: name, message: fmt.Sprintf("%s.%s: must be a string, not %s%s", f.name(), name, describe(table[name]), quoteHint(table[name]))})
		case strings.ContainsAny(s, "\r\n\x00"):
			faults = append(faults, fault{below: name, message: fmt.Sprintf("%s.%s: must be one line", f.name(), name)})
		}
		headers[strings.Clone(name)] = strings.Clone(s) // as in text
	}
	if faults == nil {
		*dst = nil
		if len(headers) > 0 {
			*dst = headers
		}
	}
	return faults
}

// validHeaderName: the token of RFC 9110, section 5.6.2.
func validHeaderName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && !isDigit(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// capability is the name in lower case without CAP_ (capabilities(7)).
func capability(s string) (string, error) {
	known := strings.Fields("audit_control audit_read audit_write block_suspend bpf checkpoint_restore chown " +
		"dac_override dac_read_search fowner fsetid ipc_lock ipc_owner kill lease linux_immutable mac_admin " +
		"mac_override mknod net_admin net_bind_service net_broadcast net_raw perfmon setfcap setgid setpcap " +
		"setuid sys_admin sys_boot sys_chroot sys_module sys_nice sys_pacct sys_ptrace sys_rawio sys_resource " +
		"sys_time sys_tty_config syslog wake_alarm")
	name := strings.TrimPrefix(strings.ToLower(s), "cap_")
	if !slices.Contains(known, name) {
		return "", fmt.Errorf("%s is not a capability%s", quote(s), didYouMean(name, known))
	}
	return name, nil
}

// literal is a value as it stands in a file, or what it is if that is long.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int64, float64, bool:
		return fmt.Sprint(v)
	default:
		return describe(v)
	}
}

func describe(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprint(v)
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	default:
		return "a date or a time"
	}
}

// quote puts a string in quotes for a message, on one line and not too long.
func quote(s string) string { return strconv.Quote(shorten(s)) }

func shorten(s string) string {
	const longest = 60
	if len(s) <= longest {
		return s
	}
	n := longest
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func didYouMean(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	return ""
}

// orList is "a, b or c", each in quotes.
func orList(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	last := len(quoted) - 1
	if last == 0 {
		return quoted[0]
	}
	return strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}
