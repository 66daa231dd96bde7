package search

import (
	"fmt"
	"math/bits"
)

// chains are the commits' graph with every stretch that neither forks nor
// merges drawn together into one: of Linux's million commits some two hundred
// thousand chains are left. All that a search asks of the graph is a sum over
// the ancestors of a commit, and within a chain that is a running sum.
type chains struct {
	of      []int32 // the chain of every commit
	parents []int32 // of a chain: where in built begin the chains that its first commit is built upon
	built   []int32
	last    []int32 // of a chain: its last commit
	next    []int32 // of a commit: the next one of its chain, or -1
	first   []int32 // of a chain: its first commit
}

// contract draws the candidates together. A commit for which cut is true ends
// its chain. It panics when a parent's index is not smaller than its child's.
func contract(c []Candidate, cut func(int) bool) chains {
	children := make([]uint8, len(c)) // two stand for more
	for i := range c {
		for _, p := range c[i].Parents {
			if p < 0 || p >= i {
				panic(fmt.Sprintf("search: candidate %d has parent %d: parents come first", i, p))
			}
			children[p] = min(2, children[p]+1)
		}
	}
	g := chains{of: make([]int32, len(c)), next: make([]int32, len(c))}
	for i := range c {
		g.next[i] = -1
		if ps := c[i].Parents; len(ps) == 1 && children[ps[0]] == 1 && !cut(ps[0]) {
			g.of[i] = g.of[ps[0]]
			g.next[ps[0]] = int32(i)
			g.last[g.of[i]] = int32(i)
			continue
		}
		g.of[i] = int32(len(g.first))
		g.first = append(g.first, int32(i))
		g.last = append(g.last, int32(i))
		g.parents = append(g.parents, int32(len(g.built)))
		for _, p := range c[i].Parents {
			g.built = append(g.built, g.of[p])
		}
	}
	g.parents = append(g.parents, int32(len(g.built)))
	return g
}

// upto gives for every commit the sum of two values over its ancestors and
// itself.
func (g chains) upto(value func(int) [2]float64) [][2]float64 {
	sum := make([][2]float64, len(g.of))
	weight := make([][2]float64, len(g.first))
	for i, k := range g.of {
		sum[i] = value(i)
		weight[k][0] += sum[i][0]
		weight[k][1] += sum[i][1]
	}
	ancestors := g.sums(weight)
	for k, i := range g.first {
		s := [2]float64{ancestors[k][0] - weight[k][0], ancestors[k][1] - weight[k][1]}
		for ; i >= 0; i = g.next[i] {
			s[0] += sum[i][0]
			s[1] += sum[i][1]
			sum[i] = s
		}
	}
	return sum
}

// sums adds up for every chain the weights of its ancestors-or-self. As many as
// a bitset holds of those that weigh something are looked at in one walk from
// the oldest of them up: n*m/256 steps for m that weigh something and little
// memory, whatever the merges. Mostly a chain has the same ancestors among them
// as one of its parents has, and then nothing is left to add up one by one.
func (g chains) sums(weight [][2]float64) [][2]float64 {
	n := len(weight)
	sum := make([][2]float64, n)
	part := make([][2]float64, n) // the sum over those of the block
	reach := make([]bitset, n)
	var block [len(bitset{}) * 64]int
	for next := 0; next < n; {
		m := 0
		for ; next < n && m < len(block); next++ {
			if weight[next] != [2]float64{} {
				block[m] = next
				m++
			}
		}
		if m == 0 {
			break
		}
		first, mine := block[0], 0
		for k := first; k < n; k++ {
			var r bitset
			same := -1 // a parent whose ancestors are those of all
			for _, p := range g.built[g.parents[k]:g.parents[k+1]] {
				if int(p) < first || reach[p] == r {
					continue
				}
				before, q := r, &reach[p]
				r[0] |= q[0]
				r[1] |= q[1]
				r[2] |= q[2]
				r[3] |= q[3]
				switch r {
				case *q:
					same = int(p)
				case before:
				default:
					same = -1
				}
			}
			s := [2]float64{}
			switch {
			case same >= 0:
				s = part[same]
			case r != bitset{}:
				for word, set := range r {
					for ; set != 0; set &= set - 1 {
						w := &weight[block[word*64+bits.TrailingZeros64(set)]]
						s[0] += w[0]
						s[1] += w[1]
					}
				}
			}
			if mine < m && block[mine] == k {
				r[mine/64] |= 1 << (mine % 64)
				s[0] += weight[k][0]
				s[1] += weight[k][1]
				mine++
			}
			reach[k], part[k] = r, s
			sum[k][0] += s[0]
			sum[k][1] += s[1]
		}
	}
	return sum
}

// A bitset has a bit for each of some chains.
type bitset [4]uint64

// descendants gives for every chain which of the commits are built upon it, one
// bit each, or are its own last one; at most 64 commits, each the last of its
// chain.
func (g chains) descendants(commits []int) []uint64 {
	set := make([]uint64, len(g.first))
	for bit, i := range commits {
		set[g.of[i]] |= 1 << bit
	}
	for k := len(set) - 1; k >= 0; k-- {
		for _, p := range g.built[g.parents[k]:g.parents[k+1]] {
			set[p] |= set[k]
		}
	}
	return set
}

// below counts for each of some commits, each the last of its chain, those of a
// set that it is built upon, and itself.
func (g chains) below(commits []int, in []bool) []int {
	size := make([]int, len(g.first))
	for i, is := range in {
		if is {
			size[g.of[i]]++
		}
	}
	counts := make([]int, len(commits))
	for from := 0; from < len(commits); from += 64 {
		for k, set := range g.descendants(commits[from:min(len(commits), from+64)]) {
			for ; set != 0; set &= set - 1 {
				counts[from+bits.TrailingZeros64(set)] += size[k]
			}
		}
	}
	return counts
}
