package client_test

import (
	"log"
	"testing"

	"github.com/threefoldtech/zinit/ipc"
	"github.com/threefoldtech/zinit/ipc/ipctest"
)

// example stands in for a test where there is none.
type example struct {
	testing.TB
	cleanups []func()
}

func (e *example) Helper()           {}
func (e *example) Fatal(args ...any) { log.Fatal(args...) }
func (e *example) Cleanup(f func())  { e.cleanups = append(e.cleanups, f) }

// exampleServer stands in for a zinit-server with the services web and db.
func exampleServer() (socket string, stop func()) {
	e := &example{}
	s := ipctest.Serve(e, func(r *ipctest.Request) {
		var p ipc.NamesParams
		r.Params(&p)
		switch {
		case len(p.Names) > 0 && p.Names[0] == "wbe":
			r.Fail(&ipc.Error{Kind: ipc.ErrNotFound, Message: `there is no service "wbe"`, Service: "wbe", Nearest: "web"})
		case r.Method == "service.start":
			ipctest.Items(r, []ipc.Moved{
				{Name: "db", From: ipc.StateInactive, To: ipc.StateRunning},
				{Name: "web", From: ipc.StateInactive, To: ipc.StateRunning},
			})
		case r.Method == "service.status":
			ipctest.Items(r, []ipc.Service{{Name: "web", State: ipc.StateRunning}})
		case r.Method == "logs.follow":
			for _, l := range []ipc.LogLine{
				{Service: "db", Text: "disk is slow"}, {Service: "web", Missed: 12}, {Service: "web", Text: "cannot reach db"},
			} {
				r.Item(l)
			}
			<-r.Canceled
		}
	})
	return s.Socket, func() {
		for _, f := range e.cleanups {
			f()
		}
	}
}
