package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// init makes this binary the program svc where it has that name: the service
// of the stories, for what a shell cannot do. It runs the steps that are its
// arguments, one after the other:
//
//	append=FILE:TEXT   append TEXT as a line to FILE
//	lock=FILE          hold an exclusive lock on FILE, or append "double" to FILE and exit 99
//	print=TEXT         print TEXT as a line; stderr=TEXT to stderr; raw=TEXT with \xNN and without a newline
//	lines=N:PAUSE      print N lines "line 1" …, with a pause between them
//	on=SIGNAL:STEPS    run STEPS, separated by blanks, at each of that signal; ignore=SIGNAL
//	pause=DURATION     take so long
//	notify=TEXT        send TEXT to NOTIFY_SOCKET; ready-fd=FD write a newline to FD and close it
//	serve=ADDRESS      answer clients; serve-passed=N those of the N sockets that it was passed
//	until=FILE         go on when FILE exists
//	fork=ARGS          run another svc with steps separated by blanks; detach=ARGS in a session of its own
//	launch=ARGS        become the program ARGS with signals blocked and ignored, and descriptors open
//	exit=CODE          exit; signal=N end by that signal; sleep, the last step otherwise, waits for a signal
func init() {
	if filepath.Base(os.Args[0]) != "svc" {
		return
	}
	svcSteps(os.Args[1:])
	for {
		time.Sleep(time.Hour)
	}
}

func svcSteps(steps []string) {
	for _, arg := range steps {
		step, value, _ := strings.Cut(arg, "=")
		if err := svcStep(step, value); err != nil {
			fmt.Fprintf(os.Stderr, "svc: %s: %v\n", arg, err)
			os.Exit(98)
		}
	}
}

func svcStep(step, value string) error {
	first, second, _ := strings.Cut(value, ":")
	switch step {
	case "append":
		return appendLine(first, second)
	case "lock":
		fd, err := unix.Open(value, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
			unix.Write(fd, []byte("double\n"))
			os.Exit(99)
		}
	case "print":
		fmt.Println(value)
	case "stderr":
		fmt.Fprintln(os.Stderr, value)
	case "raw":
		text, err := strconv.Unquote(`"` + value + `"`)
		if err != nil {
			return err
		}
		os.Stdout.WriteString(text)
	case "lines":
		n, err := strconv.Atoi(first)
		if err != nil {
			return err
		}
		pause, _ := time.ParseDuration(second)
		for i := 1; i <= n; i++ {
			fmt.Printf("line %d\n", i)
			time.Sleep(pause)
		}
	case "on":
		ch := make(chan os.Signal, 16)
		signal.Notify(ch, unix.SignalNum("SIG"+first))
		go func() {
			for range ch {
				svcSteps(strings.Fields(second))
			}
		}()
	case "pause":
		d, err := time.ParseDuration(value)
		if err != nil {
			return err
		}
		time.Sleep(d)
	case "ignore":
		signal.Ignore(unix.SignalNum("SIG" + value))
	case "notify":
		conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte(value))
		return err
	case "ready-fd":
		fd, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("\n"))
		return err
	case "until":
		return eventually(patience, func() error {
			_, err := os.Stat(value)
			return err
		})
	case "fork":
		return svcCommand(value).Start()
	case "detach":
		cmd := svcCommand(value)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	case "launch":
		return svcLaunch(strings.Fields(value))
	case "exit":
		code, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		os.Exit(code)
	case "signal":
		n, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		signal.Reset(syscall.Signal(n))
		unix.Kill(os.Getpid(), syscall.Signal(n))
		time.Sleep(patience)
	case "serve":
		return svcServe(value)
	case "serve-passed":
		return svcServePassed(value)
	case "sleep":
	default:
		return fmt.Errorf("unknown step")
	}
	return nil
}

func appendLine(file, line string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}

func svcCommand(steps string) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{"svc"}, strings.Fields(steps)...),
		Stdout: os.Stdout, Stderr: os.Stderr,
	}
}

// svcLaunch executes a program as a careless parent would: with signals
// ignored and blocked, and open descriptors that are not its own.
func svcLaunch(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	fd, err := unix.Open("/dev/null", unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, leaked := range []int{9, 77} {
		if err := unix.Dup2(fd, leaked); err != nil {
			return err
		}
	}
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGTERM, unix.SIGUSR1, unix.SIGCHLD)
	// The mask of the thread that executes is that of the program.
	runtime.LockOSThread()
	var mask uint32
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGTERM, unix.SIGCHLD, unix.SIGUSR2, unix.SIGALRM} {
		mask |= 1 << (sig - 1)
	}
	if err := block(mask); err != nil {
		return err
	}
	return unix.Exec(path, argv, os.Environ())
}
