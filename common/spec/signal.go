package spec

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The real-time signals as the C libraries of Linux number them: they keep
// the first two for themselves (signal(7)).
const (
	sigRTMin = 34
	sigRTMax = 64
)

// SignalNumber reads a signal: a name with or without SIG in any case
// ("SIGTERM", "usr1", "RTMIN+3") or a number from 1 to 64.
func SignalNumber(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > sigRTMax {
			return 0, fmt.Errorf("signal %d is not between 1 and %d", n, sigRTMax)
		}
		return n, nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n := unix.SignalNum("SIG" + short); n != 0 {
		return int(n), nil
	}
	if n := realtime(short); n != 0 {
		return n, nil
	}
	err := fmt.Errorf("unknown signal %s", quote(name))
	if near := Nearest(short, signalNames()); near != "" {
		err = fmt.Errorf("%w: did you mean \"SIG%s\"?", err, near)
	}
	return 0, err
}

// realtime reads RTMIN, RTMIN+n, RTMAX and RTMAX-n, which only Linux has.
func realtime(name string) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	base, sign := sigRTMin, "+"
	digits, ok := strings.CutPrefix(name, "RTMIN")
	if !ok {
		base, sign = sigRTMax, "-"
		if digits, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0
		}
	}
	if digits == "" {
		return base
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(digits, sign), 10, 8)
	if err != nil || !strings.HasPrefix(digits, sign) || n > sigRTMax-sigRTMin {
		return 0
	}
	if sign == "-" {
		return base - int(n)
	}
	return base + int(n)
}

// SignalName is the name of a signal, such as "SIGTERM" or "SIGRTMIN+3", or
// its number where it has none.
func SignalName(n int) string {
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	switch {
	case runtime.GOOS != "linux" || n < sigRTMin || n > sigRTMax:
		return strconv.Itoa(n)
	case n == sigRTMin:
		return "SIGRTMIN"
	}
	return "SIGRTMIN+" + strconv.Itoa(n-sigRTMin)
}

func signalNames() []string {
	var names []string
	for n := 1; n < 32; n++ {
		if name := unix.SignalName(syscall.Signal(n)); name != "" {
			names = append(names, strings.TrimPrefix(name, "SIG"))
		}
	}
	return append(names, "RTMIN", "RTMAX")
}
