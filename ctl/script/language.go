package script

import (
	"fmt"
	"time"

	"go.starlark.net/starlark"
)

// globals are the functions that have nothing to do with a server.
func globals() []function {
	return []function{
		{"sleep", "duration",
			"Waits so long: a number of seconds, or text such as `\"1m30s\"`.",
			sleep},
		{"exit", "code=0",
			"Ends the script with an exit code.",
			exit},
		{"attempt", "function, *args, **kwargs",
			"Calls a function that may fail, and answers with a record: `ok`; `value`, what it returned; `error`, None or a record with `kind`, `message` and `code`, the exit code that the command would have had.",
			attempt},
	}
}

func sleep(s *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var d seconds
	if err := c.unpack("duration", &d); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(d)):
		return starlark.None, nil
	case <-s.ctx.Done():
		return nil, ErrInterrupted
	}
}

func exit(_ *server, _ *starlark.Thread, c *call) (starlark.Value, error) {
	var e Exit
	if err := c.unpack("code??", &e.Code); err != nil {
		return nil, err
	}
	if e.Code < 0 || e.Code > 255 {
		return nil, fmt.Errorf("exit: %d is no exit code, they are 0 to 255", e.Code)
	}
	return nil, &e
}

func attempt(s *server, th *starlark.Thread, c *call) (starlark.Value, error) {
	if len(c.args) == 0 {
		return nil, fmt.Errorf("attempt: it needs a function, and then what that is to be called with")
	}
	result, err := starlark.Call(th, c.args[0], c.args[1:], c.kwargs)
	var failure starlark.Value = starlark.None
	if err != nil {
		err = locate(s.ctx, err)
		if _, end := err.(*Exit); end || s.ctx.Err() != nil || s.written != nil {
			return nil, err
		}
		if e, ok := err.(*Error); ok {
			err = e.Err
		}
		kind, message, code := s.Explain(err)
		r := newRecord(3)
		r.set("kind", starlark.String(kind))
		r.set("message", starlark.String(message))
		r.set("code", starlark.MakeInt(code))
		failure, result = r, starlark.None
	}
	r := newRecord(3)
	r.set("ok", starlark.Bool(err == nil))
	r.set("value", result)
	r.set("error", failure)
	return r, nil
}
