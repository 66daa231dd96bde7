package search

import "math/bits"

// graph is what is left of the candidates, renumbered.
type graph struct {
	parents [][]int
	weight  []int // ancestors-or-self
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
	g.weight = weights(g.parents)
	return g
}

// weights counts the ancestors-or-self of every commit. Sixty-four commits are
// counted at a time, one bit each, in one walk from the oldest commit up: n*n/64
// steps and little memory, whatever the merges.
func weights(parents [][]int) []int {
	weight := make([]int, len(parents))
	reach := make([]uint64, len(parents))
	for first := 0; first < len(parents); first += 64 {
		for i := first; i < len(parents); i++ {
			var r uint64
			if i < first+64 {
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
// A commit of weight w out of n is worth w*(n-w), most at the middle. After
// skips that is multiplied by the chance that the commit can be tested, taken
// as d/(d+l): d is the distance to the nearest skipped commit and l how far the
// skipped ones stretch already. One broken commit is so left by a step aside,
// and a long broken stretch by steps that grow with what is known of it.
func (g graph) choose() (best int, even bool) {
	n := len(g.parents)
	distance, length := g.fromSkipped()
	best = -1
	bestScore, mostEven := 0.0, 0
	for i, w := range g.weight {
		value := w * (n - w)
		mostEven = max(mostEven, value)
		score := float64(value)
		if length > 0 {
			d := float64(distance[i])
			score = score * d / (d + float64(length))
		}
		if score > bestScore {
			best, bestScore = i, score
		}
	}
	return best, best >= 0 && g.weight[best]*(n-g.weight[best]) == mostEven
}

// fromSkipped measures every commit's distance in edges, either way, to the
// nearest skipped one (n when there is no path), and how far the skipped
// commits stretch, counted in weight; 0 when there are none.
func (g graph) fromSkipped() (distance []int, length int) {
	if len(g.skipped) == 0 {
		return nil, 0
	}
	n := len(g.parents)
	near := make([][]int, n)
	for i, ps := range g.parents {
		for _, p := range ps {
			near[i] = append(near[i], p)
			near[p] = append(near[p], i)
		}
	}
	distance = make([]int, n)
	for i := range distance {
		distance[i] = n
	}
	low, high := n, 0
	queue := make([]int, 0, n)
	for _, s := range g.skipped {
		distance[s] = 0
		queue = append(queue, s)
		low, high = min(low, g.weight[s]), max(high, g.weight[s])
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
	return distance, high - low + 1
}
