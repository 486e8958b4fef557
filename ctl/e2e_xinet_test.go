package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() { storyChecks["talk"] = checkTalk }

// socketOf splits unix:PATH or tcp:HOST:PORT.
func socketOf(address string) (network, at string, err error) {
	network, at, ok := strings.Cut(address, ":")
	if !ok || network != "unix" && network != "tcp" {
		return "", "", fmt.Errorf("%q is not unix:PATH or tcp:HOST:PORT", address)
	}
	return network, at, nil
}

// checkTalk says a line to a server and looks at the line that it answers: talk
// ADDRESS TEXT PATTERN.
func checkTalk(ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	pattern, err := regexp.Compile(args[2])
	ts.Check(err)
	answer, err := talk(args[0], args[1])
	if err != nil {
		return err
	}
	if !pattern.MatchString(answer) {
		return fmt.Errorf("%s answers %q", args[0], answer)
	}
	return nil
}

// storyPorts puts free ports into variables: ports NAME...
func storyPorts(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) > 0, "ports NAME...")
	for _, name := range args {
		port, err := freePort()
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(port))
	}
}

// given are the ports that freePort has given.
var given sync.Map

// freePort is a TCP port of 127.0.0.1 that nobody has, and nobody was given
// before. It is not of those that the kernel gives to clients, or one of them
// might have it a moment later.
func freePort() (int, error) {
	for range 1000 {
		port := 20000 + rand.IntN(10000)
		ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue
		}
		ln.Close()
		if _, before := given.LoadOrStore(port, true); !before {
			return port, nil
		}
	}
	return 0, errors.New("there is no free port")
}

func talk(address, text string) (answer string, err error) {
	network, at, err := socketOf(address)
	if err != nil {
		return "", err
	}
	c, err := net.DialTimeout(network, at, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, text); err != nil {
		return "", err
	}
	answer, err = bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// svcServe answers the clients of a socket.
func svcServe(address string) error {
	network, at, err := socketOf(address)
	if err != nil {
		return err
	}
	if network == "unix" {
		os.Remove(at) // that of the last run
	}
	ln, err := net.Listen(network, at)
	if err != nil {
		return err
	}
	svcAnswer(ln)
	return nil
}

// svcServePassed answers the clients of the sockets that it was passed, as
// sd_listen_fds(3) says. They have to be so many.
func svcServePassed(value string) error {
	if pid := os.Getenv("LISTEN_PID"); pid != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("LISTEN_PID is %q and not mine", pid)
	}
	if n := os.Getenv("LISTEN_FDS"); n != value {
		return fmt.Errorf("LISTEN_FDS is %q", n)
	}
	n, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	for i := range n {
		ln, err := net.FileListener(os.NewFile(uintptr(3+i), "passed"))
		if err != nil {
			return err
		}
		svcAnswer(ln)
	}
	return nil
}

// svcAnswer says to each client what it says, and how many runs of the service
// there have been: the lines of the file runs.
func svcAnswer(ln net.Listener) {
	text, _ := os.ReadFile("runs")
	run := strings.Count(string(text), "\n")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewReader(c)
				for {
					line, err := lines.ReadString('\n')
					if err == io.EOF {
						return
					}
					fmt.Fprintf(c, "%s from run %d\n", strings.TrimSpace(line), run)
				}
			}()
		}
	}()
}
