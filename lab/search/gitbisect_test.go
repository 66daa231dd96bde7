package search

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// gits is git's own choice of the commit to test next (find_bisection,
// managed_skipped and what they call in git's bisect.c, version 2.39), for a
// graph of which the first commit is good.
type gits struct {
	graph
	ids []string // which order equals when commits are skipped
}

// list is what git looks at, in its order, the oldest first: the ancestors of
// bad that are none of good's, as a walk from the newest date on finds them,
// reversed.
func (g gits) list(bad int, good []bool) []int {
	var list []int
	seen := make([]bool, len(g.parents))
	queue := []int{bad} // newest first; of equal dates in the order they were found
	seen[bad] = true
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		list = append(list, i)
		for _, p := range g.parents[i] {
			if seen[p] || good[p] {
				continue
			}
			seen[p] = true
			at, _ := slices.BinarySearchFunc(queue, g.dates[p], func(q int, date int64) int {
				if g.dates[q] >= date {
					return -1
				}
				return 1
			})
			queue = slices.Insert(queue, at, p)
		}
	}
	slices.Reverse(list)
	return list
}

// next is the commit that git tests; the bad one itself when nothing else is left.
func (g gits) next(bad int, good, skipped []bool) int {
	list := g.list(bad, good)
	nr := len(list)
	in := make([]bool, len(g.parents))
	for _, i := range list {
		in[i] = true
	}
	weight := make(map[int]int, nr)
	ones := make([]Candidate, 0, nr)
	at := make(map[int]int, nr)
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	for _, i := range sorted {
		var c Candidate
		for _, p := range g.parents[i] {
			if in[p] {
				c.Parents = append(c.Parents, at[p])
			}
		}
		at[i] = len(ones)
		ones = append(ones, c)
	}
	counts := bruteWeights(ones)
	anySkipped := false
	for _, i := range list {
		weight[i] = counts[at[i]]
		anySkipped = anySkipped || skipped[i]
	}
	for _, is := range skipped {
		anySkipped = anySkipped || is
	}
	if anySkipped {
		return g.nextOfSkipped(bad, list, weight, skipped)
	}
	halfway := func(i int) bool {
		diff := max(2*weight[i]-nr, nr-2*weight[i])
		return diff <= 1 || diff < nr/1024
	}
	known := map[int]bool{}
	for _, i := range list {
		known[i] = len(ones[at[i]].Parents) == 0
	}
	for _, i := range list { // merges come first
		if len(ones[at[i]].Parents) > 1 {
			if halfway(i) {
				return i
			}
			known[i] = true
		}
	}
	for again := true; again; {
		again = false
		for _, i := range list {
			if known[i] {
				continue
			}
			for _, p := range g.parents[i] {
				if in[p] && known[p] {
					known[i] = true
				}
			}
			if !known[i] {
				again = true
			} else if halfway(i) {
				return i
			}
		}
	}
	best, distance := -1, -1
	for _, i := range list {
		if d := min(weight[i], nr-weight[i]); d > distance {
			best, distance = i, d
		}
	}
	return best
}

// nextOfSkipped is the best that is not skipped, or, when the very best is, one
// that a pseudo-random number picks.
func (g gits) nextOfSkipped(bad int, list []int, weight map[int]int, skipped []bool) int {
	nr := len(list)
	distance := func(i int) int { return min(weight[i], nr-weight[i]) }
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b int) int {
		return cmp.Or(cmp.Compare(distance(b), distance(a)), strings.Compare(g.ids[a], g.ids[b]))
	})
	if !skipped[list[0]] {
		return list[0]
	}
	list = slices.DeleteFunc(list, func(i int) bool { return skipped[i] })
	if len(list) == 0 {
		return bad
	}
	count := len(list)
	prn := int((uint32(count)*1103515245 + 12345) / 65536 % 32768)
	index := (count * prn / 32768) * sqrti(prn) / sqrti(32768)
	for i, c := range list {
		if i == index {
			if c != bad {
				return c
			}
			if i > 0 {
				return list[i-1]
			}
			break
		}
	}
	return list[0]
}

func sqrti(val int) int {
	if val == 0 {
		return 0
	}
	x := float32(val)
	for {
		y := (x + float32(val)/x) / 2
		d := float32(math.Abs(float64(y - x)))
		if x = y; d < .5 {
			return int(x)
		}
	}
}

// bruteWeights counts ancestors-or-self by sets.
func bruteWeights(c []Candidate) []int {
	words := (len(c) + 63) / 64
	sets := make([]uint64, len(c)*words)
	counts := make([]int, len(c))
	for i := range c {
		set := sets[i*words : (i+1)*words]
		set[i/64] |= 1 << (i % 64)
		for _, p := range c[i].Parents {
			for w, bits := range sets[p*words : (p+1)*words] {
				set[w] |= bits
			}
		}
		for _, w := range set {
			for ; w != 0; w &= w - 1 {
				counts[i]++
			}
		}
	}
	return counts
}

// depths is how many tests git needs for each culprit.
func (g gits) depths() []int {
	depth := make([]int, len(g.parents))
	var split func(bad int, good []bool, tests int)
	split = func(bad int, good []bool, tests int) {
		next := g.next(bad, good, make([]bool, len(g.parents)))
		if next == bad {
			depth[bad] = tests
			return
		}
		split(next, good, tests+1)
		more := slices.Clone(good)
		for i, in := range ancestorsOf(g.parents, next) {
			more[i] = more[i] || in
		}
		split(bad, more, tests+1)
	}
	good := make([]bool, len(g.parents))
	good[0] = true
	split(len(g.parents)-1, good, 0)
	return depth
}

func ancestorsOf(parents [][]int, i int) []bool {
	set := make([]bool, len(parents))
	set[i] = true
	for ; i >= 0; i-- {
		for _, p := range parents[i] {
			set[p] = set[p] || set[i]
		}
	}
	return set
}

// ourDepths is how many tests Next needs for each culprit.
func ourDepths(c []Candidate) []int {
	depth := make([]int, len(c))
	var split func(marks []Mark, tests int)
	split = func(marks []Mark, tests int) {
		step := Next(c, marks)
		if step.Test < 0 {
			depth[step.Culprit] = tests
			return
		}
		for _, m := range []Mark{Good, Bad} {
			marks[step.Test] = m
			split(marks, tests+1)
		}
		marks[step.Test] = Unknown
	}
	split(make([]Mark, len(c)), 0)
	return depth
}

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
			ours, theirs, searches, left, gitLeft := 0, 0, 150, 0, 0
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
