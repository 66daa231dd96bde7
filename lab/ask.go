package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lab/kernel"
)

// A Question asks whoever watches a bisect for a verdict.
type Question struct {
	Commit  kernel.Commit
	Axis    string // what it is: "commit", "kernel"
	Role    string
	Trial   Trial
	Dir     string  // where everything is that the trial saw
	Said    Verdict // what the test says; a skip where nothing was tested
	Left    int     // candidates that could be the first bad one
	CanBack bool    // there is a verdict to take back
}

// A Reply is the answer: a Mark, or one of these.
type Reply string

// The replies that are no verdicts.
const (
	ReplyRetry Reply = "retry" // do the trial again
	ReplyBack  Reply = "back"  // take back the last verdict, and go on from there
	ReplyExit  Reply = "exit"  // stop; the same command goes on
)

// ErrStopped is why a bisect ended whose user wanted to go on another time.
var ErrStopped = errors.New("stopped; the same command goes on from here")

// asked has a trial judged by whoever watches, where somebody wants to be
// asked; again says that they want it done again.
func (b *bisection) asked(ctx context.Context, t Trial, r *Tested) (again bool, err error) {
	if b.ask == nil || b.spec.Symptom.Kind == SymptomAsk && t.End == EndBuild {
		return false, nil
	}
	q := Question{
		Commit: r.Commit, Axis: b.words("commit"), Role: r.Role, Trial: t, Dir: r.Dir, Said: Verdict{b.result.Terms.Turn(r.Mark), r.Reason}, Left: r.Left,
		CanBack: slices.ContainsFunc(b.journal.records, func(r record) bool { return r.Tested != nil }),
	}
	reply, err := b.ask(ctx, q)
	if err != nil {
		return false, err
	}
	switch reply {
	case ReplyRetry:
		return true, nil
	case ReplyExit:
		return false, ErrStopped
	case ReplyBack:
		if err := b.journal.update(func() (record, error) { return undo(b.journal.records, 1) }); err != nil {
			return false, err
		}
		return false, errOvertaken
	case Reply(Good), Reply(Bad), Reply(Skip):
	default:
		return false, fmt.Errorf("ask for a verdict: %q is none", reply)
	}
	reason := "by hand"
	if b.spec.Symptom.Kind != SymptomAsk {
		reason = fmt.Sprintf("by hand, where the test says %s: %s", b.called(r.Mark), r.Reason)
	}
	r.Verdict, r.ByHand = Verdict{b.result.Terms.Turn(Mark(reply)), reason}, true
	return false, nil
}
