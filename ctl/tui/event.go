package tui

import (
	"time"

	"github.com/threefoldtech/zinit/ipc"
)

// What the model is told, beside Key, Paste and Mouse.
type (
	// Resize is the size of the terminal, in columns and rows.
	Resize struct{ Width, Height int }
	// Tick is the time, told as often as Model.Pause asks for it.
	Tick struct{ Now time.Time }
	// Snapshot is all that there is at a moment.
	Snapshot struct {
		Services []ipc.Service // by name
		Info     ipc.Info
		At       time.Time
	}
	// Recounted are some services once more, with what counts down in them.
	Recounted struct {
		Services []ipc.Service
		At       time.Time
	}
	// Lost says that zinit-server does not answer, until the next Snapshot.
	Lost struct{ Err error }
	// Lines are lines of the log that Follow with that ID asked for. With Again
	// they begin anew.
	Lines struct {
		ID    int
		Again bool
		Lines []ipc.LogLine
		Err   error // why there are no more
	}
	// Inspected is what is known of a service beside its row.
	Inspected struct {
		Name      string
		Why       ipc.Why
		Incidents []ipc.Incident
	}
	// Trees answers AskTrees.
	Trees struct {
		AskTrees
		Trees []ipc.Tree
		Err   error
	}
	// Planned answers Plan.
	Planned struct {
		Plan ipc.Reloaded
		Err  error
	}
	// Done says how an action went. Notes are what else there is to say.
	Done struct {
		Do
		Moved []ipc.Moved
		Notes []string
		Err   error
	}
)

// Effect is what a model wants done.
type Effect any

// The effects.
type (
	// Follow asks for the log of services, of all where Names is nil, in place
	// of the one before; None only ends that.
	Follow struct {
		ID    int
		Names []string
		None  bool
	}
	// Inspect asks for Inspected.
	Inspect struct{ Name string }
	// Recount asks for Recounted.
	Recount struct{ Names []string }
	// AskTrees asks for the tree of what a service requires, or of what
	// requires it, or of all services.
	AskTrees struct {
		Name    string
		Reverse bool
	}
	// Plan asks what a reload would do.
	Plan struct{}
	// Do does something: start, stop, restart, kill, reload.
	Do struct{ Verb, Name, Signal string }
	// Redraw paints everything anew, and asks for a Snapshot.
	Redraw struct{}
	// Suspend hands the terminal back to the shell until it continues us.
	Suspend struct{}
	// Quit ends the program.
	Quit struct{}
)
