package probe

import (
	"encoding/json"
	"time"

	"lab/probe/wire"
)

// A Result is what came of running a Spec. Its JSON goes into bundles: the
// names are stable, output is base64 (it may be any bytes), Duration is Go's
// duration notation.
//
// Its shapes:
//
//	Complete, Started, no Error   the command ran and ended: Exit, Signal, TimedOut say how
//	Complete, not Started, Error  the agent could not run the command (no such file, no disk, …)
//	Complete, Started, Error      it ran, and then the agent lost it (Error says how)
//	not Complete                  the guest went silent; the rest is what it said before
type Result struct {
	// Exit is the command's exit status; 128+n when signal n ended it, as
	// shells and docker have it; -1 when the status is not known.
	Exit int `json:"exit"`
	// Signal is the name of the signal that ended the command ("SIGSEGV").
	Signal string `json:"signal,omitempty"`
	// TimedOut: the container was killed at Spec.Timeout.
	TimedOut bool `json:"timed_out"`
	// Stdout and Stderr are the first Spec.MaxOutput bytes of each.
	Stdout []byte `json:"stdout"`
	Stderr []byte `json:"stderr"`
	// Syslog is what was sent to the container's /dev/log, one message a
	// line, as sent ("<38>Jan  2 15:04:05 su: …").
	Syslog []byte `json:"syslog"`
	// Audit are the kernel's audit records while the container ran, each a line as in the
	// audit daemon's log; none before Linux 3.16.
	Audit []byte `json:"audit,omitempty"`
	// Trace is every system call of the container, where Spec.Trace asked for
	// them: lines that [lab/probe/trace.Parse] reads.
	Trace []byte `json:"trace,omitempty"`
	// Truncated: there was more output, or trace, than is kept here.
	Truncated bool `json:"truncated"`
	// Started: the command was exec'd.
	Started bool `json:"started"`
	// Complete: the agent said that the test is over. Without it this is no
	// result, whatever else is set.
	Complete bool `json:"complete"`
	// Error is why the agent could not run the test.
	Error string `json:"error,omitempty"`
	// Container is what the container was given; nil when it was never started,
	// and of an agent that does not tell.
	Container *Container `json:"container,omitempty"`
	// Notes are the agent's remarks, as what the kernel lacks.
	Notes []string `json:"notes,omitempty"`
	// Release is the running kernel's release (uname -r).
	Release string `json:"release"`
	// Duration is the time from exec to exit by the guest's monotonic clock.
	Duration time.Duration `json:"-"`
}

// A Container is what the test's container was given.
type Container = wire.Container

// Passed says whether the command ran to its end and exited with status 0.
func (r Result) Passed() bool {
	return r.Complete && r.Started && r.Error == "" && !r.TimedOut && r.Signal == "" && r.Exit == 0
}

type plainResult Result

type resultJSON struct {
	plainResult
	Duration duration `json:"duration"`
}

// MarshalJSON writes the stable form.
func (r Result) MarshalJSON() ([]byte, error) {
	return json.Marshal(resultJSON{plainResult(r), duration(r.Duration)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Result) UnmarshalJSON(data []byte) error {
	var j resultJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*r = Result(j.plainResult)
	r.Duration = time.Duration(j.Duration)
	return nil
}
