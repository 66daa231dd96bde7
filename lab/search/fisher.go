package search

import "math"

// Fisher is the p-value of an answer: were the first bad commit and its parents
// to fail at the same rate, this is the probability that of their bad runs at
// least so many would have fallen to the commit (R. A. Fisher's exact test,
// one-sided: "The design of experiments", 1935). The smaller, the surer that the
// commit makes a difference: 5 of 5 runs bad against 0 of 5 give 0.004. It is 1
// when one of them was never run, and holds whatever the rate; but runs that
// were made until they looked convincing make it smaller than it should be, so
// it is for a number of runs that was settled before.
func Fisher(commit, parents Evidence) float64 {
	n, m := commit.runs(), parents.runs()
	bad := commit.Bad + parents.Bad
	if commit.Bad < 0 || commit.Good < 0 || parents.Bad < 0 || parents.Good < 0 {
		return 1
	}
	// The tail of the hypergeometric distribution.
	all := ways(n+m, bad)
	p := 0.0
	for k := commit.Bad; k <= min(n, bad); k++ {
		if bad-k <= m {
			p += math.Exp(ways(n, k) + ways(m, bad-k) - all)
		}
	}
	return min(p, 1)
}

// ways is the logarithm of a binomial coefficient.
func ways(n, k int) float64 {
	a, _ := math.Lgamma(float64(n) + 1)
	b, _ := math.Lgamma(float64(k) + 1)
	c, _ := math.Lgamma(float64(n-k) + 1)
	return a - b - c
}
