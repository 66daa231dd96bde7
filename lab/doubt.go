package lab

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"lab/kernel"
	"lab/lab/search"
)

// How often a candidate is run at most, and the bad end until it fails for the
// first time, unless the user says.
const (
	defaultMaxRuns = 100
	defaultEndRuns = 20
)

// A Rate is that at which a bad kernel fails its test: it is between Low and High
// with a probability of 95 %.
type Rate struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// weighed is a step of the search by all runs so far, and the commits that its
// indexes mean: the good ends, which may turn out to be bad themselves, and the
// range behind them.
type weighed struct {
	search.Search
	search.Step
	evidence []search.Evidence
	commits  []kernel.Commit
}

// weighAll has the search weigh all runs so far.
func (b *bisection) weighAll() weighed {
	l := newLineage(slices.Concat(b.result.Good, b.commits))
	w := weighed{commits: l.commits}
	run, build, built := b.costs()
	list := l.candidates()
	for i := range list {
		c := &list[i]
		if c.Cost = run + build; built[c.ID] {
			c.Cost = run
		}
		if first := len(b.result.Good); i < first {
			c.Parents = nil // the order of the good ends is the user's
		} else {
			c.Inert = b.candidates[i-first].Inert
		}
	}
	w.evidence, _ = evidence(b.journal.records, l, certain, b.fixes())
	w.Search = search.Search{Candidates: list, Confidence: b.confidence, MaxRuns: b.maxRuns, Fix: b.fixes()}
	w.Step = w.Next(w.evidence)
	return w
}

// costs says what a run takes, and a build before it, in seconds, as far as is
// known; and which commits were built.
func (b *bisection) costs() (run, build float64, built map[string]bool) {
	built = map[string]bool{}
	var runs, builds []time.Duration
	for _, r := range b.journal.records {
		t := r.Tested
		if t == nil {
			continue
		}
		built[t.Commit.Hash] = true
		if t.Inferred == "" && t.Boot+t.Test > 0 {
			runs = append(runs, t.Boot+t.Test)
		}
		if !t.Cached && !t.Unbuilt && t.Build > 0 {
			builds = append(builds, t.Build)
		}
	}
	return max(1, mean(runs)), mean(builds), built
}

// mean is in seconds; 0 of nothing.
func mean(list []time.Duration) float64 {
	sum := time.Duration(0)
	for _, d := range list {
		sum += d
	}
	return sum.Seconds() / float64(max(1, len(list)))
}

// decide goes on where certain verdicts end: with an answer that they give, or
// with runs that contradict each other. It runs whatever tells most, a commit
// that was run before included, until one commit is the first bad one with the
// probability that was asked for. It is false when the search has to go on by
// itself first.
func (b *bisection) decide(ctx context.Context) (done bool, err error) {
	w := b.weighAll()
	b.result.Confidence, b.result.Rate = w.Step.Confidence, (*Rate)(&w.Rate)
	switch {
	case w.Test >= 0:
		return false, b.round(ctx, round{
			Search: w.Search, Step: w.Step, evidence: w.evidence, commits: w.commits,
			role: func(c kernel.Commit) string {
				if b.isFlying(c, RoleStep) || b.journal.tested(c.Hash, RoleStep) != nil || b.journal.tested(c.Hash, RoleEnd) != nil {
					return RoleAgain
				}
				return RoleStep
			},
			tell: func(c kernel.Commit, why string) {
				b.Progress.Say("%s\n  %s; %s %s", name(c), why, b.words("the likeliest is the first bad one with"), search.Percent(w.Step.Confidence))
			},
		})
	case w.Culprit >= 0:
		c := w.commits[w.Culprit]
		if w.Culprit < len(b.result.Good) {
			b.result.Unclear = fmt.Sprintf("the %s end %s seems to be %s itself, with a probability of %s: give an older one", b.called(Good), name(c), b.called(Bad), search.Percent(w.Step.Confidence))
			return true, nil
		}
		if !b.confirmed(c) {
			return false, b.confirm(ctx, c)
		}
		b.found(c)
		return true, nil
	}
	b.suspects(w.commits, w.Step, b.words(w.Why))
	return true, nil
}

// Sure says in a line how sure the answer is, and by which runs; empty where
// there is none, or one run was taken for the truth.
func (b *Bisection) Sure() string {
	if b.Culprit == nil || b.Rate == nil || len(b.Runs) == 0 {
		return ""
	}
	runs := fmt.Sprintf("it failed %d of %d runs", b.failed(b.Runs[0]), b.Runs[0].Bad+b.Runs[0].Good)
	for _, parent := range b.Runs[1:] {
		runs += fmt.Sprintf(", %s %d of %d", name(parent.Commit), b.failed(parent), parent.Bad+parent.Good)
	}
	rate := ""
	if b.Rate.Mean < .9 || slices.ContainsFunc(b.Runs, func(r Runs) bool { return r.Good > 0 && r.Bad > 0 }) {
		with := b.Terms.Word(b.Terms.Turn(Bad))
		rate = fmt.Sprintf("; a %s one fails %.0f%% of its runs (%.0f%% to %.0f%%)", with, 100*b.Rate.Mean, 100*b.Rate.Low, 100*b.Rate.High)
	}
	return fmt.Sprintf("confidence %.1f%%: %s (p = %.2g)%s", math.Floor(1000*b.Confidence)/10, runs, b.PValue, rate)
}

// failed is how many runs showed the symptom.
func (b *Bisection) failed(r Runs) int {
	if b.Terms != nil && b.Terms.Fix {
		return r.Good
	}
	return r.Bad
}

// fixes tells that a repair is hunted.
func (b *bisection) fixes() bool { return b.result.Terms != nil && b.result.Terms.Fix }
