package search

import (
	"math"
	"math/bits"
	"slices"
)

// graph is what is left of the candidates, renumbered.
type graph struct {
	parents [][]int
	weight  []int // ancestors-or-self
	mass    []int // those of them that are not inert
	total   int   // commits that are not inert
	skipped []int
}

func subgraph(c []Candidate, m []Mark, left []int) graph {
	index := make(map[int]int, len(left))
	g := graph{parents: make([][]int, len(left))}
	for i, old := range left {
		index[old] = i
		for _, p := range c[old].Parents {
			if q, ok := index[p]; ok {
				g.parents[i] = append(g.parents[i], q)
			}
		}
		if m[old] == Skip {
			g.skipped = append(g.skipped, i)
		}
	}
	g.weight = weights(g.parents, nil)
	inert := make([]bool, len(left))
	for i, old := range left {
		inert[i] = c[old].Inert
		if !inert[i] {
			g.total++
		}
	}
	switch g.total {
	case 0: // then one counts as much as another
		g.total = len(left)
		g.mass = g.weight
	case len(left):
		g.mass = g.weight
	default:
		g.mass = weights(g.parents, inert)
	}
	return g
}

// weights counts the ancestors-or-self of every commit, without the inert ones;
// inert may be nil. Sixty-four commits are
// counted at a time, one bit each, in one walk from the oldest commit up: n*n/64
// steps and little memory, whatever the merges.
func weights(parents [][]int, inert []bool) []int {
	weight := make([]int, len(parents))
	reach := make([]uint64, len(parents))
	for first := 0; first < len(parents); first += 64 {
		for i := first; i < len(parents); i++ {
			var r uint64
			if i < first+64 && (inert == nil || !inert[i]) {
				r = 1 << (i - first)
			}
			for _, p := range parents[i] {
				if p >= first {
					r |= reach[p]
				}
			}
			reach[i] = r
			weight[i] += bits.OnesCount64(r)
		}
	}
	return weight
}

// choose gives the commit to test, or -1 when every commit that would tell
// something is skipped, and whether none splits the rest more evenly.
//
// A commit with w of n commits on its side is worth w*(n-w), most at the middle,
// times the chance that it can be tested at all.
func (g graph) choose() (best int, even bool) {
	chance := g.chances()
	best = -1
	bestScore, mostEven := 0.0, 0
	for i, w := range g.mass {
		value := w * (g.total - w)
		mostEven = max(mostEven, value)
		if score := float64(value) * chance[i]; score > bestScore {
			best, bestScore = i, score
		}
	}
	if best < 0 {
		return g.closeIn(chance), true
	}
	return best, g.mass[best]*(g.total-g.mass[best]) == mostEven
}

// closeIn chooses where no commit splits those that are not inert: the first
// that is built upon all of them, or else the last that is built upon none, or
// else whatever splits the inert ones.
func (g graph) closeIn(chance []float64) int {
	n := len(g.parents)
	first, last, middle := -1, -1, -1
	best := 0.0
	for i, w := range g.weight {
		if chance[i] == 0 || w == n {
			continue
		}
		switch {
		case g.mass[i] == g.total && (first < 0 || w < g.weight[first]):
			first = i
		case g.mass[i] == 0 && (last < 0 || w > g.weight[last]):
			last = i
		}
		if score := float64(w*(n-w)) * chance[i]; score > best {
			best, middle = score, i
		}
	}
	switch {
	case first >= 0:
		return first
	case last >= 0:
		return last
	}
	return middle
}

// chances guesses for every commit the chance that it can be tested: 0 for the
// skipped ones, 1 while there are none.
//
// What keeps commits from being built or booted comes in stretches, and nothing
// is known of their length but what was seen of it. So a commit at a distance d
// from the nearest skipped one has a chance of d/(d+l), where l is how far the
// skipped ones stretch: one broken commit is left by a step aside, a long
// stretch by steps that grow. Between skipped commits, with one among the
// ancestors and one among the descendants, each skipped commit halves the
// chance that there is anything but more of them.
func (g graph) chances() []float64 {
	n := len(g.parents)
	chance := make([]float64, n)
	if len(g.skipped) == 0 {
		for i := range chance {
			chance[i] = 1
		}
		return chance
	}
	above, below := make([]bool, n), make([]bool, n) // of a skipped commit, or one itself
	low, high := n, 0
	for _, s := range g.skipped {
		above[s], below[s] = true, true
		low, high = min(low, g.weight[s]), max(high, g.weight[s])
	}
	for i, ps := range g.parents {
		for _, p := range ps {
			above[i] = above[i] || above[p]
		}
	}
	for i := n - 1; i >= 0; i-- {
		for _, p := range g.parents[i] {
			below[p] = below[p] || below[i]
		}
	}
	length := float64(high - low + 1)
	between := math.Ldexp(1, -len(g.skipped))
	for i, d := range g.fromSkipped() {
		chance[i] = float64(d) / (float64(d) + length)
		if above[i] && below[i] && d > 0 {
			chance[i] = between
		}
	}
	return chance
}

// fromSkipped measures every commit's distance in edges, either way, to the
// nearest skipped one; n when no path leads there.
func (g graph) fromSkipped() []int {
	n := len(g.parents)
	near := make([][]int, n)
	for i, ps := range g.parents {
		for _, p := range ps {
			near[i] = append(near[i], p)
			near[p] = append(near[p], i)
		}
	}
	distance := make([]int, n)
	for i := range distance {
		distance[i] = n
	}
	queue := slices.Clone(g.skipped)
	for _, s := range g.skipped {
		distance[s] = 0
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range near[i] {
			if distance[j] == n {
				distance[j] = distance[i] + 1
				queue = append(queue, j)
			}
		}
	}
	return distance
}
