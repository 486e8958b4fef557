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
	said  string // by its command, so far
}

func (e *stageError) Error() string { return e.doing + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// dialer resolves names anew each time, within the time of the probe.
var dialer = net.Dialer{KeepAlive: -1}

// dial opens a connection on which nothing takes longer than the probe may, nor
// goes on when the probe is cancelled.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &stageError{doing: "connecting to " + address, err: err}
	}
	return &boundConn{conn, context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })}, nil
}

// boundConn is a connection that ends with a context.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
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
	var stage *stageError
	if !errors.As(err, &stage) {
		return err.Error()
	}
	var dns *net.DNSError
	var errno syscall.Errno
	var timed interface{ Timeout() bool }
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), ctx.Err() == context.DeadlineExceeded && errors.As(err, &timed) && timed.Timeout():
		late := fmt.Sprintf("%s took longer than %s", stage.doing, timeout)
		if stage.said != "" {
			late += ": " + stage.said
		}
		return late
	case errors.As(err, &dns):
		return fmt.Sprintf("cannot resolve %s: %s", dns.Name, dns.Err)
	case errors.As(err, &errno):
		return stage.doing + ": " + errno.Error()
	}
	return err.Error()
}
