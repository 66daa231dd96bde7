package search

import (
	"math"
	"math/big"
	"testing"
)

func TestFisher(t *testing.T) {
	for _, test := range []struct {
		commit, parents Evidence
		want            float64
	}{
		{Evidence{Bad: 3, Good: 1}, Evidence{Bad: 1, Good: 3}, 17. / 70}, // Fisher's lady tasting tea
		{Evidence{Bad: 4}, Evidence{Good: 4}, 1. / 70},
		{Evidence{Bad: 5}, Evidence{Good: 5}, 1. / 252},
		{Evidence{Bad: 1}, Evidence{Good: 1}, .5},
		{Evidence{Bad: 10}, Evidence{Good: 20}, 1. / 30045015},
		{Evidence{Bad: 2, Good: 8}, Evidence{Good: 30}, 45. / 780},
		{Evidence{Good: 3}, Evidence{Bad: 3}, 1},
		{Evidence{Bad: 3}, Evidence{Bad: 3}, 1},
		{Evidence{Bad: 3}, Evidence{}, 1},
		{Evidence{}, Evidence{Good: 3}, 1},
		{Evidence{}, Evidence{}, 1},
		{Evidence{Bad: -1}, Evidence{Good: 3}, 1},
	} {
		if got := Fisher(test.commit, test.parents); math.Abs(got-test.want) > 1e-9*test.want {
			t.Errorf("%+v against %+v: %v, want %v", test.commit, test.parents, got, test.want)
		}
	}
}

// It is what counting every way to deal out the bad runs gives.
func TestFisherCounts(t *testing.T) {
	for n := range 9 {
		for m := range 9 {
			for x := range n + 1 {
				for y := range m + 1 {
					ways, all := new(big.Int), new(big.Int).Binomial(int64(n+m), int64(x+y))
					for k := x; k <= min(n, x+y); k++ {
						ways.Add(ways, new(big.Int).Mul(new(big.Int).Binomial(int64(n), int64(k)), new(big.Int).Binomial(int64(m), int64(x+y-k))))
					}
					want, _ := new(big.Rat).SetFrac(ways, all).Float64()
					if got := Fisher(Evidence{Bad: x, Good: n - x}, Evidence{Bad: y, Good: m - y}); math.Abs(got-want) > 1e-12 {
						t.Fatalf("%d of %d against %d of %d: %v, want %v", x, n, y, m, got, want)
					}
				}
			}
		}
	}
}
