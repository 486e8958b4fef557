package script

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Error is an error at a place in a script.
type Error struct {
	// Place is file:line:column.
	Place string
	// Callers are the places from which that was called or loaded, the nearest
	// first.
	Callers []string
	Err     error
}

func (e *Error) Error() string { return e.At(e.Err.Error()) }

// Unwrap returns the error without the place.
func (e *Error) Unwrap() error { return e.Err }

// At puts the place before words, and the callers below.
func (e *Error) At(words string) string {
	const most = 10 // callers of a recursion
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Place, words)
	for i, place := range e.Callers {
		if i == most {
			fmt.Fprintf(&b, "\n  and so on, %d more", len(e.Callers)-most)
			break
		}
		fmt.Fprintf(&b, "\n  called from %s", place)
	}
	return b.String()
}

// locate makes an *Error of what Starlark returned, or leaves an *Exit.
func locate(ctx context.Context, err error) error {
	var (
		exit     *Exit
		loaded   *Error
		eval     *starlark.EvalError
		wrong    syntax.Error
		unknowns resolve.ErrorList
	)
	switch {
	case errors.As(err, &exit):
		return exit
	case errors.As(err, &wrong):
		return &Error{Place: wrong.Pos.String(), Err: errors.New(wrong.Msg)}
	case errors.As(err, &unknowns):
		words := unknowns[0].Msg
		for _, u := range unknowns[1:] {
			words += "\n" + u.Error()
		}
		return &Error{Place: unknowns[0].Pos.String(), Err: errors.New(words)}
	case !errors.As(err, &eval):
		return err
	}
	places := placesOf(eval.CallStack)
	if errors.As(err, &loaded) {
		return &Error{loaded.Place, append(loaded.Callers, places...), loaded.Err}
	}
	cause := err
	for errors.As(cause, &eval) {
		places = placesOf(eval.CallStack)
		if cause = eval.Unwrap(); cause == nil {
			cause = errors.New(eval.Msg)
		}
	}
	if ctx.Err() != nil {
		cause = ErrInterrupted
	}
	if len(places) == 0 {
		return cause
	}
	return &Error{places[0], places[1:], cause}
}

// placesOf are the places of a call stack in scripts, the innermost first.
func placesOf(stack starlark.CallStack) (places []string) {
	for i := range stack {
		if frame := stack.At(i); frame.Pos.Line > 0 {
			places = append(places, frame.Pos.String())
		}
	}
	return places
}
