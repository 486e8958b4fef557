package threads

import "time"

// Slack is nothing: macOS has no timer slack of a thread, and puts timers together by
// itself.
const Slack time.Duration = 0

// Loosen leaves the timers of this process as they are.
func Loosen() (before time.Duration) { return Slack }

// SetSlack leaves the timers of this thread as they are.
func SetSlack(time.Duration) (before time.Duration) { return Slack }
