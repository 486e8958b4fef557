package ipc

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialTimeout bounds one attempt to connect while the backlog is full.
	dialTimeout = 10 * time.Second
	// pauseMin and pauseMax bound the pause between two attempts.
	pauseMin = 10 * time.Millisecond
	pauseMax = time.Second
)

// FollowSupervisor connects a helper to the supervisor, and to the next one
// when that has gone; serve has each connection until it ends. zinit-pid1 keeps
// the listener: while there is no supervisor the connection waits in its
// backlog, and when nobody listens zinit has ended, and this returns.
func FollowSupervisor(socket string, hello Hello, serve func(*Conn)) error {
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		began := time.Now()
		conn, err := greetSupervisor(socket, hello)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return err
		}
		if err == nil {
			serve(conn)
			conn.Close()
		}
		if time.Since(began) > pauseMax {
			pause = pauseMin
		}
		time.Sleep(pause) // before trying again what sends no event
	}
}

func greetSupervisor(socket string, hello Hello) (*Conn, error) {
	conn, err := Dial(socket, dialTimeout)
	if err != nil {
		return nil, err
	}
	if err = conn.Send(KindHello, hello); err == nil {
		_, err = ReadHello(conn, RoleSupervisor)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
