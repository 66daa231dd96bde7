package search

import (
	"math/rand/v2"
	"testing"
)

// least is the fewest tests of all culprits together, found by trying every
// commit at every step, with nothing left out.
func least(c []Candidate, marks []Mark) int {
	var left []int
	for i := range c {
		marks := append([]Mark(nil), marks...)
		fits := true
		for j, m := range answers(c, i, nil) {
			fits = fits && (marks[j] == Unknown || marks[j] == m)
		}
		if fits {
			left = append(left, i)
		}
	}
	if len(left) == 1 {
		return 0
	}
	best := 1 << 30
	for _, i := range left {
		if marks[i] != Unknown {
			continue
		}
		bad := 0
		for _, culprit := range left {
			if answers(c, culprit, nil)[i] == Bad {
				bad++
			}
		}
		if bad == len(left) {
			continue
		}
		sum := len(left)
		for _, m := range []Mark{Good, Bad} {
			marks[i] = m
			sum += least(c, marks)
		}
		marks[i] = Unknown
		best = min(best, sum)
	}
	return best
}

// Of a few suspects, no way of searching needs fewer tests.
func TestTheEndgameIsTheBest(t *testing.T) {
	rnd := rand.New(rand.NewPCG(13, 13))
	for n := 2; n < 9; n++ {
		for range 4 {
			c := fromParents(randomDAG(rnd, n))
			marks := make([]Mark, n)
			marks[n-1] = Bad
			sum := 0
			for _, d := range ourDepths(c) {
				sum += d
			}
			if want := least(c, marks); sum != want {
				t.Errorf("%v: %d tests, %d are enough", c, sum, want)
			}
		}
	}
	if n := fewest(16); n != 64 {
		t.Errorf("16 culprits take %d tests together, not 4 each", n)
	}
	if n := fewest(5); n != 12 {
		t.Errorf("5 culprits take %d tests together, not 2, 2, 2, 3 and 3", n)
	}
}
