package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// stageError says what a probe was doing when it failed.
type stageError struct {
	doing string
	err   error
}

func (e *stageError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// dialer resolves names anew each time, within the time of the probe.
var dialer = net.Dialer{KeepAlive: -1}

// dial opens a connection that ends with the probe.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &stageError{"connecting to " + address, err}
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	return conn, nil
}

// probeDial looks whether a connection opens.
func probeDial(ctx context.Context, network, address string) (string, error) {
	conn, err := dial(ctx, network, address)
	if err != nil {
		return "", err
	}
	conn.Close()
	return "connected", nil
}

// complaint says why a probe failed, in the words of the system rather than
// those of a library.
func complaint(ctx context.Context, timeout time.Duration, err error) string {
	doing := ""
	var stage *stageError
	if errors.As(err, &stage) {
		doing = stage.doing
	}
	var dns *net.DNSError
	var errno syscall.Errno
	var timed interface{ Timeout() bool }
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() == context.DeadlineExceeded && errors.As(err, &timed) && timed.Timeout():
		return fmt.Sprintf("%s took longer than %s", doing, timeout)
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot resolve %s: %s", dns.Name, dns.Err)
	case errors.As(err, &errno) && stage != nil:
		return doing + ": " + errno.Error()
	}
	return err.Error()
}
