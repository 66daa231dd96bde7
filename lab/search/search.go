// Package search decides which commit of a bisection to test next. It is pure:
// it runs nothing, reads nothing and remembers nothing; the same candidates and
// evidence always give the same step.
//
// Next is for tests that never err, Search for those that may; Minimize searches
// sets of differences instead of commits.
//
// The meaning of good, bad and skip is git's own (git-bisect(1)): everything a
// good commit is built upon is good; the first bad commit is a bad commit or one
// of those it is built upon; a skipped commit says nothing and stays a suspect.
package search

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Candidate is a commit that may be the first bad one.
type Candidate struct {
	ID string
	// Parents are indexes into the same slice, each smaller than the commit's
	// own: parents come first, as in `git rev-list --topo-order --reverse`.
	// Parents that are no candidates (known good) are left out.
	Parents []int
	// Inert is a commit that, as far as is known, cannot change what is tested:
	// a commit and its nearest ancestor that is not inert are expected to have
	// the same mark. It may be the first bad one all the same, should that turn
	// out wrong, and is tested before it is ruled out; but it weighs nothing
	// when the rest is split.
	Inert bool
	// Cost is how many seconds one more run of it is expected to take: little
	// where its kernel is there already, much where it has to be built. 0 stands
	// for 1, so that all cost the same where nothing is known.
	Cost float64
}

// Mark is what is known of one candidate.
type Mark int

// What can be known of a candidate.
const (
	Unknown Mark = iota // not tested
	Good                // it and all its ancestors are good
	Bad                 // it or one of its ancestors is the first bad commit
	Skip                // cannot be tested
)

// String gives the word git uses for the mark.
func (m Mark) String() string {
	switch m {
	case Good:
		return "good"
	case Bad:
		return "bad"
	case Skip:
		return "skip"
	}
	return "unknown"
}

// Search is a bisection. With nothing but Candidates it is one of a test that
// may be flaky.
type Search struct {
	// Candidates are all commits that may be the first bad one; the last is the
	// bad end, and is bad whatever its runs say.
	//
	// A good end is none of them. Where it may turn out to be bad, it can stand
	// as one that the others are built upon: as the culprit it says that all of
	// them are bad.
	Candidates []Candidate
	// Confidence is how probable an answer has to be; 0 is .95.
	Confidence float64
	// Fix: what is searched is a repair. Bad then means repaired, and it is the
	// candidates not built upon the first such one that fail, at the unknown rate: a
	// run that fails counts as Good, and one that passes as Bad.
	Fix bool
	// MaxRuns is how often one candidate may be run at most, and MaxTotal all of
	// them together; 0 is without end.
	MaxRuns, MaxTotal int
	// Exact is for a test that is never wrong. Then one run decides, evidence
	// for both is a contradiction, and the answer is certain.
	Exact bool
}

// Step is what to do next. Exactly one of these holds:
//
//	Test >= 0        test that candidate
//	Culprit >= 0     finished: that candidate is the first bad commit
//	Suspects != nil  finished: what may still be run does not tell these apart,
//	                 as only skipped commits are left to test among them, or no
//	                 run is left; the first bad commit could be any of them
//	Conflict != nil  the evidence contradicts itself, or there are no candidates
//
// Candidates are named by their index; Test and Culprit are -1 when they do not
// hold.
type Step struct {
	Test     int
	Culprit  int
	Suspects []int // ascending; of an exact search the last one is the bad commit that the others lead up to
	Conflict []int // ascending: marks that cannot all be right; empty but not nil when there are no candidates

	Left  int    // candidates that may still be the first bad commit, the bad end included
	Steps int    // tests to expect after this one: the "roughly N steps" of git bisect
	Why   string // one plain sentence for people

	// Of a search that is not exact:
	Confidence float64   // the probability of Culprit, of Suspects together, or of the most likely commit so far
	Top        []Suspect // the most likely commits, the likeliest first; five at most
	Rate       Rate      // at which a bad kernel fails, as far as the runs tell
}

// Suspect is a commit that may be the first bad one.
type Suspect struct {
	Index       int
	Probability float64
}

// Next chooses the commit to test next by marks that are certain: it is
// Search.Next of an exact search. marks[i] belongs to c[i]; marks missing at the
// end are Unknown.
func Next(c []Candidate, marks []Mark) Step {
	return Search{Candidates: c, Exact: true}.Next(Certain(marks[:min(len(marks), len(c))]))
}

// Certain is the evidence of marks that are certain, for an exact search.
func Certain(marks []Mark) []Evidence {
	evidence := make([]Evidence, len(marks))
	for i, m := range marks {
		switch m {
		case Good:
			evidence[i].Good = 1
		case Bad:
			evidence[i].Bad = 1
		case Skip:
			evidence[i].Skip = true
		}
	}
	return evidence
}

// Next chooses the candidate to run next, which may be one that was run before.
// evidence[i] belongs to the i-th candidate; what is missing at the end was
// never run.
//
// It picks the run that is expected to tell most of the first bad commit for its
// cost (generalised binary search; for flaky tests: Waeber, Frazier and
// Henderson, "Bisection search with noisy responses", 2013, and Ben-Or and
// Hassidim, "The Bayesian learner is optimal for noisy binary search", 2008,
// here on a graph and with the noise unknown), the oldest of equals. In an exact
// search that is the one that splits what is left most evenly. Inert commits
// hardly count, until nothing splits the others any further; then those around
// the most likely one are ruled out with as few tests. Once commits were
// skipped, nearness to them counts against a commit, because what keeps a commit
// from being built or booted mostly keeps its neighbours from it too.
//
// It panics when a parent's index is not smaller than its child's.
func (s Search) Next(evidence []Evidence) Step {
	step := Step{Test: -1, Culprit: -1}
	if len(s.Candidates) == 0 {
		step.Conflict = []int{}
		step.Why = "there is no commit between good and bad"
		return step
	}
	e := make([]Evidence, len(s.Candidates))
	copy(e, evidence)
	if s.Exact {
		return s.nextExact(e, step)
	}
	return s.nextFlaky(e, step)
}

func (s Search) nextExact(e []Evidence, step Step) Step {
	c := s.Candidates
	end := len(c) - 1
	if e[end].Good > 0 {
		step.Conflict = []int{end}
		step.Why = fmt.Sprintf("%s is the bad end, and is marked good", c[end].ID)
		return step
	}
	e[end].Bad = 1
	b := s.believe(e, true)
	left, matter := b.suspects(0), 0
	for _, i := range left {
		if !c[i].Inert {
			matter++
		}
	}
	step.Left = len(left)
	switch len(left) {
	case 0:
		step.Conflict, step.Why = conflict(c, e)
		return step
	case 1:
		step.Culprit, step.Confidence = left[0], 1
		step.Why = "every other commit is ruled out"
		return step
	}
	pick := s.choose(&b, e, left)
	if pick.index < 0 {
		step.Suspects, step.Confidence = left, 1
		step.Why = fmt.Sprintf("only skipped commits are left to test; the first bad commit could be any of %d", len(left))
		return step
	}
	step.Test = pick.index
	of := fmt.Sprintf("%d commits", matter)
	switch {
	case matter == 0:
		matter = len(left)
		of = fmt.Sprintf("%d commits", matter)
	case matter < len(left):
		of = fmt.Sprintf("%d commits that can matter of %d", matter, len(left))
	}
	step.Steps = steps(matter)
	below := 0
	for i, in := range ancestors(c, pick.index) {
		if in && b.of(i) > 0 && (!c[i].Inert || matter == len(left)) {
			below++
		}
	}
	switch above := matter - below; {
	case below == 0 || above == 0:
		step.Why = fmt.Sprintf("closes in on what can matter, %d of %d commits, which nothing splits further", matter, len(left))
		return step
	case below == above:
		step.Why = fmt.Sprintf("halves %s: %d on each side", of, below)
	default:
		step.Why = fmt.Sprintf("splits %s: %d and %d", of, below, above)
	}
	step.Why = pick.instead + step.Why
	return step
}

func (s Search) nextFlaky(e []Evidence, step Step) Step {
	confidence := s.Confidence
	if confidence == 0 {
		confidence = .95
	}
	b := s.believe(e, false)
	step.Rate = b.rate
	step.Top = b.top(5)
	step.Confidence = step.Top[0].Probability
	step.Left = len(b.suspects(1e-3))
	wrong := (1 - confidence) * margin
	if step.Confidence >= 1-wrong {
		step.Culprit = step.Top[0].Index
		step.Why = fmt.Sprintf("the first bad commit with a probability of %s; a kernel with the symptom fails %s of its runs", Percent(step.Confidence), Percent(b.rate.Mean))
		return step
	}
	total := 0
	for _, x := range e {
		total += x.runs()
	}
	set, held := b.holds(confidence)
	pick := picked{index: -1}
	if s.MaxTotal == 0 || total < s.MaxTotal {
		pick = s.choose(&b, e, set)
	}
	if pick.index < 0 && len(set) == 1 {
		step.Culprit = set[0]
		step.Why = fmt.Sprintf("the first bad commit with a probability of %s; no run that is left would tell more", Percent(held))
		return step
	}
	if pick.index < 0 {
		step.Suspects, step.Confidence = set, held
		step.Why = fmt.Sprintf("no run that is left tells these apart: the first bad commit is one of %d with a probability of %s", len(set), Percent(held))
		return step
	}
	step.Test = pick.index
	// Not all that is uncertain has to be known in the end.
	uncertain := b.uncertainty() - entropy(wrong) - 2*wrong
	step.Steps = max(0, int(math.Ceil(uncertain/max(pick.bits, 1e-3)))-1)
	on := 0.0
	for i, in := range ancestors(s.Candidates, pick.index) {
		if in {
			on += b.of(i)
		}
	}
	run := "a run of it"
	if x := e[pick.index]; x.runs() > 0 {
		run = fmt.Sprintf("run %d of it, after %d bad and %d good,", x.runs()+1, x.Bad, x.Good)
	}
	step.Why = fmt.Sprintf("%s%s tells most: %s of the suspicion is on it and what it is built upon", pick.instead, run, Percent(on))
	return step
}

// Percent writes a probability: 100% and 0% are said only of what is certain.
func Percent(p float64) string {
	switch {
	case p < 1 && p > .999:
		return "over 99.9%"
	case p > 0 && p < .001:
		return "under 0.1%"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", p*100), ".0") + "%"
}

// ancestors of a commit, itself included.
func ancestors(c []Candidate, i int) []bool {
	set := make([]bool, len(c))
	set[i] = true
	for ; i >= 0; i-- {
		for _, p := range c[i].Parents {
			set[p] = set[p] || set[i]
		}
	}
	return set
}

// conflict names marks that cannot all be right: a bad commit and a good one
// built upon it, or else bad commits that have no suspect in common.
func conflict(c []Candidate, e []Evidence) ([]int, string) {
	var bads []int
	for i := range e {
		if e[i].Bad > 0 {
			bads = append(bads, i)
		}
	}
	for g := range e {
		if e[g].Good == 0 {
			continue
		}
		if e[g].Bad > 0 {
			return []int{g}, fmt.Sprintf("%s is both good and bad", c[g].ID)
		}
		below := ancestors(c, g)
		for _, b := range bads {
			if below[b] {
				return []int{b, g}, fmt.Sprintf("%s is good, yet built upon %s, which is bad", c[g].ID, c[b].ID)
			}
		}
	}
	return bads, fmt.Sprintf("no commit that the %d bad ones have in common can still be the first bad one", len(bads))
}

// steps is git's estimate of the tests that follow the next one, for n
// candidates (estimate_bisect_steps in git's bisect.c): the whole part of the
// binary logarithm, less one where rounding down is nearer.
func steps(n int) int {
	if n < 3 {
		return 0
	}
	log := bits.Len(uint(n)) - 1
	power := 1 << log
	if power < 3*(n-power) {
		return log
	}
	return log - 1
}
