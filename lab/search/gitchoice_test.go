package search

import (
	"cmp"
	"math"
	"slices"
	"strings"
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
