// Package search decides which commit of a bisection to test next. It is pure:
// it runs nothing, reads nothing and remembers nothing; the same candidates and
// marks always give the same step.
//
// The meaning of good, bad and skip is git's own (git-bisect(1)): everything a
// good commit is built upon is good; the first bad commit is a bad commit or one
// of those it is built upon; a skipped commit says nothing and stays a suspect.
package search

import (
	"fmt"
	"math/bits"
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

// Step is what to do next. Exactly one of these holds:
//
//	Test >= 0        test that candidate
//	Culprit >= 0     finished: that candidate is the first bad commit
//	Suspects != nil  finished: only skipped commits are left to test, and the
//	                 first bad commit could be any of the suspects
//	Conflict != nil  the marks contradict each other, or there are no candidates
//
// Candidates are named by their index; Test and Culprit are -1 when they do not
// hold.
type Step struct {
	Test     int
	Culprit  int
	Suspects []int // ascending; the last one is the bad commit that the others lead up to
	Conflict []int // ascending: marks that cannot all be right; empty but not nil when there are no candidates

	Left  int    // candidates that may still be the first bad commit, the bad end included
	Steps int    // tests to expect after this one: the "roughly N steps" of git bisect
	Why   string // one plain sentence for people
}

// Next chooses the commit to test next. The last candidate is the bad end: it is
// Bad whatever its mark, unless that is Good, which is a conflict. marks[i]
// belongs to c[i]; marks missing at the end are Unknown.
//
// It picks the commit that splits what is left most evenly, the older one of
// equals; only commits that are not inert count. When no commit splits those any
// further, it picks the first that is built upon all of them, then the last that
// is built upon none: both are expected to be known without much ado, and leave
// nothing inert around the first bad commit. Once commits were skipped, nearness to them counts against a commit,
// because what keeps a commit from being built or booted mostly keeps its
// neighbours from it too.
//
// It panics when a parent's index is not smaller than its child's.
func Next(c []Candidate, marks []Mark) Step {
	step := Step{Test: -1, Culprit: -1}
	if len(c) == 0 {
		step.Conflict = []int{}
		step.Why = "there is no commit between good and bad"
		return step
	}
	m := make([]Mark, len(c))
	copy(m, marks)
	end := len(c) - 1
	if m[end] == Good {
		step.Conflict = []int{end}
		step.Why = fmt.Sprintf("%s is the bad end, and is marked good", c[end].ID)
		return step
	}
	m[end] = Bad

	left := remaining(c, m)
	step.Left = len(left)
	switch len(left) {
	case 0:
		step.Conflict, step.Why = conflict(c, m)
		return step
	case 1:
		step.Culprit = left[0]
		step.Why = "every other commit is ruled out"
		return step
	}

	g := subgraph(c, m, left)
	i, even := g.choose()
	if i < 0 {
		step.Suspects = left
		step.Why = fmt.Sprintf("only skipped commits are left to test; the first bad commit could be any of %d", len(left))
		return step
	}
	step.Test = left[i]
	step.Steps = steps(g.total)
	a, b := g.mass[i], g.total-g.mass[i]
	of := fmt.Sprintf("%d commits", g.total)
	if g.total < len(left) {
		of = fmt.Sprintf("%d commits that can matter of %d", g.total, len(left))
	}
	if a == 0 || b == 0 {
		step.Why = fmt.Sprintf("closes in on what can matter, %d of %d commits, which nothing splits further", g.total, len(left))
		return step
	}
	split := fmt.Sprintf("halves %s: %d on each side", of, a)
	if a != b {
		split = fmt.Sprintf("splits %s: %d and %d", of, a, b)
	}
	if !even {
		split = "the middle cannot be tested; next best, " + split
	}
	step.Why = split
	return step
}

// remaining lists the candidates that may still be the first bad commit: the
// ancestors-or-self of every bad mark, without those of any good one.
func remaining(c []Candidate, m []Mark) []int {
	good := make([]bool, len(c))
	suspect := make([]bool, len(c))
	for i := range c {
		good[i] = m[i] == Good
		suspect[i] = true
	}
	addAncestors(c, good)
	below := make([]bool, len(c))
	for i := range c {
		if m[i] != Bad {
			continue
		}
		clear(below)
		below[i] = true
		addAncestors(c, below)
		for j := range suspect {
			suspect[j] = suspect[j] && below[j]
		}
	}
	var left []int
	for i := range c {
		if suspect[i] && !good[i] {
			left = append(left, i)
		}
	}
	return left
}

// addAncestors adds to a set of candidates all their ancestors.
func addAncestors(c []Candidate, set []bool) {
	for i := len(c) - 1; i >= 0; i-- {
		for _, p := range c[i].Parents {
			if p < 0 || p >= i {
				panic(fmt.Sprintf("search: candidate %d has parent %d: parents come first", i, p))
			}
			set[p] = set[p] || set[i]
		}
	}
}

// conflict names marks that cannot all be right: a bad commit and a good one
// built upon it, or else bad commits that have no suspect in common.
func conflict(c []Candidate, m []Mark) ([]int, string) {
	var bads []int
	for i := range c {
		if m[i] == Bad {
			bads = append(bads, i)
		}
	}
	for g := range c {
		if m[g] != Good {
			continue
		}
		below := make([]bool, g+1)
		below[g] = true
		addAncestors(c[:g+1], below)
		for _, b := range bads {
			if b < g && below[b] {
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
