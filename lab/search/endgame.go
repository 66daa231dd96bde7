package search

import "math/bits"

// few is how many suspects an exact search plays out to the end.
const few = 16

// endgame picks from a few suspects the one with which the fewest tests are
// needed on average, by trying all ways: the most even split of now may leave
// what splits badly. It answers -1 when there are too many, or when they are not
// all alike: some inert, skipped, or of another cost.
func (s Search) endgame(b *belief, e []Evidence, suspects []int) int {
	if !b.exact || len(suspects) > few {
		return -1
	}
	below := make([]uint16, len(suspects)) // the suspects that each is built upon, and itself
	for k, i := range suspects {
		if s.Candidates[i].Inert || e[i].Skip || s.cost(i) != s.cost(suspects[0]) {
			return -1
		}
		in := ancestors(s.Candidates, i)
		for j := range suspects[:k+1] {
			if in[suspects[j]] {
				below[k] |= 1 << j
			}
		}
	}
	g := game{below: below, least: make([]int16, 1<<len(suspects))}
	_, best := g.play(1<<len(suspects) - 1)
	return suspects[best]
}

// game knows the least number of tests of sets of suspects, for all culprits of
// a set together.
type game struct {
	below []uint16
	least []int16 // 0 is not known yet
}

// play gives the least number of tests for a set of two at least, and the first
// test: of equals the most even, and of these the oldest.
func (g *game) play(set uint16) (least, first int) {
	n := bits.OnesCount16(set)
	ideal := fewest(n)
	least = 1 << 15
	evenness := 0
	for rest := set; rest != 0; rest &= rest - 1 {
		v := bits.TrailingZeros16(rest)
		bad := set & g.below[v]
		a := bits.OnesCount16(bad)
		if a == n {
			continue
		}
		even := min(a, n-a)
		if bound := n + fewest(a) + fewest(n-a); bound > least || bound == least && even <= evenness {
			continue
		}
		tests := n + g.total(bad) + g.total(set&^bad)
		if tests < least || tests == least && even > evenness {
			least, first, evenness = tests, v, even
		}
		if least == ideal && evenness == n/2 {
			break
		}
	}
	return least, first
}

// total is what play gives, known from before or not, and 0 for one suspect.
func (g *game) total(set uint16) int {
	if set&(set-1) == 0 {
		return 0
	}
	if g.least[set] == 0 {
		least, _ := g.play(set)
		g.least[set] = int16(least)
	}
	return int(g.least[set])
}

// fewest is the least number of tests that any way of searching needs for n
// suspects, for all culprits together: that of a tree with n leaves as even as
// can be.
func fewest(n int) int {
	log := bits.Len(uint(n)) - 1
	return n*log + 2*(n-1<<log)
}
