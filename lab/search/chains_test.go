package search

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// linuxlike is a history as Linux's is: some twelve of every hundred commits
// are merges, of trees that began one to three releases ago and are merged in
// turn by maintainers of maintainers, one merge of two hundred an octopus.
func linuxlike(rnd *rand.Rand, n int) [][]int {
	parents := make([][]int, n)
	heads := []int{0}
	const trees = 300
	for i := 1; i < n; i++ {
		if i == n-1 {
			parents[i] = heads
			return parents
		}
		h := rnd.IntN(len(heads))
		switch k := rnd.IntN(1000); {
		case k < 80 && len(heads) < trees: // a tree begins at some commit of the main line or of another tree
			p := heads[rnd.IntN(len(heads))]
			if rnd.IntN(3) > 0 {
				p = max(0, i-1-rnd.IntN(min(i, 20_000)))
			}
			parents[i] = []int{p}
			heads = append(heads, i)
		case k < 160 && len(heads) > 1:
			merged := 1
			if rnd.IntN(200) == 0 {
				merged = min(len(heads)-1, 2+rnd.IntN(10))
			}
			parents[i] = []int{heads[h]}
			heads[h] = i
			for range merged {
				other := rnd.IntN(len(heads))
				if heads[other] == i {
					continue
				}
				parents[i] = append(parents[i], heads[other])
				if rnd.IntN(4) > 0 { // the tree ends
					heads[other] = heads[len(heads)-1]
					heads = heads[:len(heads)-1]
				}
			}
		default:
			parents[i] = []int{heads[h]}
			heads[h] = i
		}
	}
	return parents
}

func BenchmarkSums(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		c := fromParents(linuxlike(rand.New(rand.NewPCG(1, 7)), n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				g := contract(c, func(int) bool { return false })
				b.ReportMetric(float64(len(g.first)), "chains")
				g.upto(func(int) [2]float64 { return [2]float64{1} })
			}
		})
	}
}
