package search

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// kernels gives every commit the kernel that it builds to: the commits it is
// built upon, itself included, that are not inert. A merge of two kernels is
// a third one, and so not inert.
func kernels(c []Candidate) []string {
	sets := make([][]bool, len(c))
	names := make([]string, len(c))
	for i := range c {
		sets[i] = make([]bool, len(c))
		same := len(c[i].Parents) == 0
		for _, p := range c[i].Parents {
			for j, in := range sets[p] {
				sets[i][j] = sets[i][j] || in
			}
		}
		for _, p := range c[i].Parents {
			same = same || slices.Equal(sets[i], sets[p])
		}
		if !same {
			c[i].Inert = false
		}
		sets[i][i] = !c[i].Inert
		names[i] = fmt.Sprint(sets[i])
	}
	return names
}

// Where most commits are inert, a search builds no more kernels than the others
// would take alone, finds the same commit, and leaves no inert one untested.
func TestInertCommitsCostNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 8))
	for _, n := range []int{12, 60, 150} {
		for _, merges := range []bool{false, true} {
			c := line(n)
			if merges {
				c = fromParents(randomDAG(rnd, n))
			}
			for i := range c {
				c[i].Inert = rnd.IntN(10) > 0
			}
			kernel := kernels(c)
			plain := slices.Clone(c)
			matter := 0
			for i := range plain {
				if plain[i].Inert = false; !c[i].Inert {
					matter++
				}
			}
			most, total, mostPlain, totalPlain := 0, 0, 0, 0
			for culprit := range c {
				if c[culprit].Inert {
					continue
				}
				answer := answers(c, culprit, nil)
				if answer[n-1] != Bad {
					continue
				}
				history, last := simulate(t, c, answer)
				if last.Culprit != culprit {
					t.Fatalf("found %d, not %d", last.Culprit, culprit)
				}
				// The ends are built in any case.
				built := map[string]bool{kernel[n-1]: true, fmt.Sprint(make([]bool, n)): true}
				builds := -len(built)
				for _, tested := range history {
					i := slices.IndexFunc(c, func(x Candidate) bool { return x.ID == tested.ID })
					built[kernel[i]] = true
				}
				builds += len(built)
				historyPlain, _ := simulate(t, plain, answer)
				most, total = max(most, builds), total+builds
				mostPlain, totalPlain = max(mostPlain, len(historyPlain)), totalPlain+len(historyPlain)
			}
			t.Logf("%d commits, merges %v, %d can matter: at most %d builds, %d in all; without the rule %d and %d", n, merges, matter, most, total, mostPlain, totalPlain)
			if most > mostPlain || total > totalPlain || !merges && most > steps(matter)+1 {
				t.Errorf("more builds than without the rule, or than %d commits would take", matter)
			}
		}
	}
}

// The rule may be wrong about a commit: it is found all the same.
func TestAnInertCulpritIsFound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	for range 4 {
		c := fromParents(randomDAG(rnd, 40))
		for i := range c {
			c[i].Inert = rnd.IntN(3) > 0
		}
		for culprit := range c {
			skipped := map[int]bool{}
			for range rnd.IntN(4) {
				skipped[rnd.IntN(len(c)-1)] = true
			}
			if answer := answers(c, culprit, skipped); answer[len(c)-1] == Bad {
				_, last := simulate(t, c, answer)
				if last.Culprit != culprit && !slices.Contains(last.Suspects, culprit) {
					t.Errorf("%+v does not have %d", last, culprit)
				}
			}
		}
	}
}

func TestNextClosesIn(t *testing.T) {
	// m is the one commit of nine that can matter.
	c := line(9)
	for i := range c {
		c[i].Inert = i != 3
	}
	for _, test := range []struct {
		marks []Mark
		want  int
		why   string
	}{
		{nil, 3, "closes in on what can matter, 1 of 9 commits, which nothing splits further"},
		{[]Mark{3: Bad}, 2, "closes in on what can matter, 1 of 4 commits, which nothing splits further"},
		{[]Mark{3: Bad, 2: Skip}, 1, "closes in on what can matter, 1 of 4 commits, which nothing splits further"},
		{[]Mark{3: Good, 8: Bad}, 5, "splits 5 commits: 2 and 3"}, // the rule was wrong: they count again
	} {
		if got := Next(c, test.marks); got.Test != test.want || got.Why != test.why {
			t.Errorf("%v: %d (%s), want %d (%s)", test.marks, got.Test, got.Why, test.want, test.why)
		}
	}
	c[7].Inert, c[8].Inert = false, false
	if got := Next(c, nil); got.Test != 3 || !strings.HasPrefix(got.Why, "splits 3 commits that can matter of 9: 1 and 2") || got.Left != 9 || got.Steps != 1 {
		t.Errorf("%+v", got)
	}
}
