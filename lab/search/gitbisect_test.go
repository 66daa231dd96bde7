package search

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// search has git's choice search with the given answers, in the order of
// candidates, and gives the commits tested; the last one is the answer, or -1
// when only skipped commits were left.
func (g gits) search(answer []Mark) (tested []int, found int) {
	bad := len(g.parents) - 1
	good, skipped := make([]bool, len(g.parents)), make([]bool, len(g.parents))
	good[0] = true
	for {
		next := g.next(bad, good, skipped)
		if next == bad {
			for _, i := range g.list(bad, good) {
				if skipped[i] && i != bad {
					return tested, -1
				}
			}
			return tested, bad
		}
		tested = append(tested, next)
		switch answer[next-1] {
		case Bad:
			bad = next
		case Good:
			for i, in := range ancestorsOf(g.parents, next) {
				good[i] = good[i] || in
			}
		default:
			skipped[next] = true
		}
	}
}

// What is called git's choice here is git's: the next commit of states that
// searches come through, and all tests of some of git's own searches.
func TestGitsChoiceIsGits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 11))
	for _, name := range []string{"go-git", "spinnaker"} {
		g := gits{graph: readGraph(t, name)}
		var r repo
		r, g.ids = newDatedRepo(t, g.parents, g.dates)
		last := len(g.parents) - 1
		for range 4 {
			answer := answers(g.candidates(), rnd.IntN(last), nil)
			bad, good, args := last, make([]bool, last+1), []string{"^" + g.ids[0]}
			good[0] = true
			for {
				next := g.next(bad, good, make([]bool, last+1))
				if got := strings.TrimSpace(r.git("", append([]string{"rev-list", "--bisect", g.ids[bad]}, args...)...)); got != g.ids[next] {
					t.Fatalf("%s: git tests %s, not %d", name, got, next)
				}
				if next == bad {
					break
				}
				if answer[next-1] == Bad {
					bad = next
					continue
				}
				args = append(args, "^"+g.ids[next])
				for i, in := range ancestorsOf(g.parents, next) {
					good[i] = good[i] || in
				}
			}
		}
		for _, part := range []int{0, 4} {
			skipped := map[int]bool{}
			for i := range last - 1 {
				skipped[i] = part > 0 && rnd.IntN(part) == 0
			}
			answer := answers(g.candidates(), rnd.IntN(last), skipped)
			m := map[string]Mark{}
			for i, a := range answer {
				m[g.ids[i+1]] = a
			}
			tests, _ := r.bisect(g.ids[0], g.ids[last], m)
			if tested, _ := g.search(answer); len(tested) != tests {
				t.Errorf("%s: git made %d tests, not %d", name, tests, len(tested))
			}
		}
	}
}

// For every culprit of every graph: never more tests than git in the worst case,
// nor on average, and fewer on average where git's are not the fewest possible.
//
// One by one, no search can need fewer tests than git for some culprit and more
// for none. A test has two outcomes, and neither git nor Next makes one that has
// a single possible outcome; so the culprits are the leaves of a full binary
// tree, of which Kraft's sum of 2^-depth is 1 in both searches, and what one
// culprit saves another pays for.
func TestAgainstGit(t *testing.T) {
	sum := 0
	for _, name := range graphs {
		g := readGraph(t, name)
		theirs, ours := gits{graph: g}.depths()[1:], ourDepths(g.candidates())
		total, gitTotal, more, fewer := 0, 0, 0, 0
		for i := range ours {
			total += ours[i]
			gitTotal += theirs[i]
			switch {
			case ours[i] > theirs[i]+1:
				t.Errorf("%s: %d tests for commit %d, git %d", name, ours[i], i, theirs[i])
			case ours[i] > theirs[i]:
				more++
			case ours[i] < theirs[i]:
				fewer++
			}
		}
		n := len(ours)
		mean := func(total int) float64 { return float64(total) / float64(n) }
		t.Logf("%-11s %d commits: %.4f tests on average, %d at most; git %.4f and %d; no way is below %.4f; one more for %d culprits, fewer for %d",
			name, n, mean(total), slices.Max(ours), mean(gitTotal), slices.Max(theirs), mean(fewest(n)), more, fewer)
		if total > gitTotal || total == gitTotal && total > fewest(n) || slices.Max(ours) > slices.Max(theirs) {
			t.Errorf("%s: more tests than git", name)
		}
		if kraft(ours) != 1 || kraft(theirs) != 1 {
			t.Errorf("%s: a test was in vain", name)
		}
		sum += gitTotal - total
	}
	if sum <= 0 {
		t.Error("no fewer tests than git")
	}
}

func kraft(depths []int) float64 {
	sum := 0.0
	for _, d := range depths {
		sum += math.Ldexp(1, -d)
	}
	return sum
}

// With commits that cannot be tested, one by one or in stretches, fewer tests
// than git makes with the same answers.
func TestAgainstGitWithSkips(t *testing.T) {
	sum := 0
	for _, name := range []string{"go-git", "storable"} {
		g := gits{graph: readGraph(t, name)}
		for i := range g.parents {
			g.ids = append(g.ids, fmt.Sprintf("%08x", uint32(i)*2654435761)) // in no order
		}
		c := g.candidates()
		for _, broken := range []struct {
			name    string
			skipped func(rnd *rand.Rand) map[int]bool
		}{
			{"one of 10", func(rnd *rand.Rand) map[int]bool { return some(rnd, len(c), 10) }},
			{"one of 3", func(rnd *rand.Rand) map[int]bool { return some(rnd, len(c), 3) }},
			{"a tenth in a row", func(rnd *rand.Rand) map[int]bool { return row(rnd, len(c), len(c)/10) }},
			{"a third in a row", func(rnd *rand.Rand) map[int]bool { return row(rnd, len(c), len(c)/3) }},
		} {
			rnd := rand.New(rand.NewPCG(12, 12))
			ours, theirs, searches, left, gitLeft := 0, 0, 75, 0, 0
			for range searches {
				culprit, skipped := rnd.IntN(len(c)), broken.skipped(rnd)
				answer := answers(c, culprit, skipped)
				history, last := simulate(t, c, answer)
				tested, found := g.search(answer)
				ours, theirs = ours+len(history), theirs+len(tested)
				if last.Culprit < 0 {
					left++
				}
				if found < 0 {
					gitLeft++
				}
			}
			mean := func(total int) float64 { return float64(total) / float64(searches) }
			t.Logf("%-8s %-17s %.2f tests on average, git %.2f; no answer in %d and %d of %d", name, broken.name, mean(ours), mean(theirs), left, gitLeft, searches)
			sum += theirs - ours
			if ours*100 > theirs*101 {
				t.Errorf("%s, %s skipped: %.2f tests, git %.2f", name, broken.name, mean(ours), mean(theirs))
			}
		}
	}
	if sum <= 0 {
		t.Error("no fewer tests than git")
	}
}

// some skips one of so many commits, and never the bad end.
func some(rnd *rand.Rand, n, of int) map[int]bool {
	skipped := map[int]bool{}
	for i := range n - 1 {
		skipped[i] = rnd.IntN(of) == 0
	}
	return skipped
}

func row(rnd *rand.Rand, n, length int) map[int]bool {
	skipped := map[int]bool{}
	first := rnd.IntN(n - length)
	for i := range length {
		skipped[first+i] = first+i < n-1
	}
	return skipped
}
