package search

import (
	"math"
	"slices"
)

// Evidence is what the runs of one candidate said.
type Evidence struct {
	Bad, Good int
	Skip      bool // it cannot be tested; runs that it had before still count
}

func (e Evidence) runs() int { return e.Bad + e.Good }

// Rate is what is believed of the rate at which a bad kernel fails its test.
type Rate struct {
	Mean      float64
	Low, High float64 // it is between these with a probability of 95 %
}

// The rates at which a bad kernel may fail its test, and how likely each is
// before any run, measured by the others. They lie closer where a step of the
// same size matters more.
//
// Both the rates' weights and always were chosen by simulation, so that whatever
// the rate is, the right commit is found as often as the confidence says, with
// few runs: the answers of any search that runs nothing twice fit a test that
// never errs, and with a bad kernel that fails half its runs they are wrong all
// the same. A rate just below 1 is hardly told from 1, and errs hardly more.
var rates = []struct{ rate, weight float64 }{
	{1, 0}, // its probability is always
	{.98, .001}, {.95, .01}, {.9, .04}, {.8, .2}, {.7, .5}, {.6, .75}, {.5, 1}, {.4, 1}, {.3, .95}, {.25, .9},
	{.2, .85}, {.15, .8}, {.12, .75}, {.1, .7}, {.08, .65}, {.065, .6}, {.05, .55}, {.04, .5}, {.03, .45}, {.02, .4}, {.01, .3},
}

// always is the probability, before any run, that a bad kernel fails every run.
const always = .25

// margin is how much less probable an error must be than what is asked for: the
// probability of an answer is an average over all rates, and that for the rate
// at hand may be less. Also by simulation.
const margin = .5

// The rates at which a good kernel fails all the same, and their probabilities
// before any run. A test with a higher one looks for something else than what
// is searched for; it has to be mended first.
var falseRates = []struct{ rate, prior float64 }{{0, .9}, {.001, .08}, {.01, .02}}

// inertPrior is how likely an inert commit is the first bad one, measured by
// one that is not: about one in ten thousand. In an exact search, where every
// suspect is ruled out before the end, it only has to be next to nothing; as
// powers of two they make the sums of such a search exact.
const (
	inertPrior      = 1. / (1 << 13)
	inertPriorExact = 1. / (1 << 30)
)

// belief is what the runs so far make of the candidates.
type belief struct {
	candidates []Candidate
	chains     chains
	prior      []float64 // of a commit, before any run: 1, or less for an inert one
	class      []int32   // of a chain: -1 when it is no suspect
	// Of a class, the chains of which saw the same runs on top of them:
	each  []float64 // the probability of one of its commits with prior 1
	bad   []float64 // the rate of bad runs of a bad kernel, were the first bad commit one of the class
	good  []float64 // that of a good kernel
	total float64   // the prior of all suspects
	rate  Rate
	exact bool
}

// believe weighs every candidate by Bayes' rule, with one first bad commit: all
// that are built upon it fail with one unknown rate, all others with another.
//
//	P(c, p, e | runs) ~ prior(c) prior(p) prior(e) p^B (1-p)^G e^(b-B) (1-e)^(g-G)
//
// b and g are all runs that failed and passed, B and G those of commits that are
// built upon c. So commits with equal B and G are equally likely, and there are
// few such classes. The sums over p and e are made, exactly, over their grids.
//
// With exact, every run says the truth: p is 1 and e is 0.
func (s Search) believe(evidence []Evidence, exact bool) belief {
	end := len(s.Candidates) - 1
	var tested []int
	for i, e := range evidence {
		if e.runs() > 0 {
			tested = append(tested, i)
		}
	}
	b := belief{candidates: s.Candidates, exact: exact, chains: contract(s.Candidates, func(i int) bool { return evidence[i].runs() > 0 || evidence[i].Skip })}
	n := len(b.chains.first)
	// B and G of every chain, and whether the bad end is built upon it.
	runs := make([]Evidence, n)
	all := Evidence{}
	for from := 0; from < len(tested); from += 64 {
		some := tested[from:min(len(tested), from+64)]
		sums := map[uint64]Evidence{}
		for k, set := range b.chains.descendants(some) {
			sum, known := sums[set]
			if !known {
				for bit, i := range some {
					if set>>bit&1 != 0 {
						sum.Bad += evidence[i].Bad
						sum.Good += evidence[i].Good
					}
				}
				sums[set] = sum
			}
			runs[k].Bad += sum.Bad
			runs[k].Good += sum.Good
		}
		for _, i := range some {
			all.Bad += evidence[i].Bad
			all.Good += evidence[i].Good
		}
	}
	suspect := b.chains.descendants([]int{end})

	b.prior = make([]float64, len(s.Candidates))
	mass := make([]float64, n)
	for i, c := range s.Candidates {
		b.prior[i] = 1
		if c.Inert {
			b.prior[i] = inertPrior
			if exact {
				b.prior[i] = inertPriorExact
			}
		}
		mass[b.chains.of[i]] += b.prior[i]
	}
	b.class = make([]int32, n)
	classes := map[Evidence]int32{}
	var of []Evidence
	var masses []float64
	for k := range b.class {
		b.class[k] = -1
		if suspect[k] == 0 || exact && (runs[k].Bad < all.Bad || runs[k].Good > 0) {
			continue
		}
		class, known := classes[runs[k]]
		if !known {
			class = int32(len(of))
			classes[runs[k]] = class
			of = append(of, runs[k])
			masses = append(masses, 0)
		}
		b.class[k] = class
		masses[class] += mass[k]
		b.total += mass[k]
	}
	if exact {
		b.each, b.bad, b.good = make([]float64, len(of)), make([]float64, len(of)), make([]float64, len(of))
		for i := range of {
			b.each[i], b.bad[i] = 1/b.total, 1
		}
		b.rate = Rate{1, 1, 1}
		return b
	}
	b.weigh(of, masses, all, s.Fix)
	return b
}

// weigh does the sums over the two rates. Where a repair is searched for, what is
// built upon it is bad whenever it does not fail by a false rate, and all else
// whenever it does not fail by its own.
func (b *belief) weigh(of []Evidence, masses []float64, all Evidence, fix bool) {
	type point struct {
		of                         int     // which of the rates
		rate, false                float64 // of runs that are bad: of what is built upon the first, and of all else
		prior, bad, pass, fail, ok float64 // logarithms
	}
	var grid []point
	for i, prior := range ratePriors() {
		for _, e := range falseRates {
			p, q := rates[i].rate, e.rate
			if q >= p {
				continue
			}
			if fix {
				p, q = 1-q, 1-p
			}
			grid = append(grid, point{i, p, q, math.Log(prior * e.prior), math.Log(p), math.Log1p(-p), math.Log(q), math.Log1p(-q)})
		}
	}
	times := func(n int, log float64) float64 {
		if n == 0 {
			return 0 // 0 times the logarithm of 0
		}
		return float64(n) * log
	}
	most := math.Inf(-1)
	logs := make([]float64, len(of)*len(grid))
	for i, in := range of {
		for j, g := range grid {
			l := g.prior + times(in.Bad, g.bad) + times(in.Good, g.pass) + times(all.Bad-in.Bad, g.fail) + times(all.Good-in.Good, g.ok)
			logs[i*len(grid)+j] = l
			most = max(most, l)
		}
	}
	b.each, b.bad, b.good = make([]float64, len(of)), make([]float64, len(of)), make([]float64, len(of))
	whole := 0.0
	byRate := make([]float64, len(rates))
	for i := range of {
		for j, g := range grid {
			w := math.Exp(logs[i*len(grid)+j] - most)
			b.each[i] += w
			b.bad[i] += w * g.rate
			b.good[i] += w * g.false
			byRate[g.of] += w * masses[i]
		}
		if b.each[i] > 0 {
			b.bad[i] /= b.each[i]
			b.good[i] /= b.each[i]
		}
		whole += b.each[i] * masses[i]
	}
	for i := range b.each {
		b.each[i] /= whole
	}
	// The mean rate, and what is between the 40th part at either side.
	for i, r := range rates {
		b.rate.Mean += r.rate * byRate[i] / whole
	}
	b.rate.High = -1
	above := 0.0
	for i, r := range rates { // the highest first
		p := r.rate
		above += byRate[i] / whole
		if b.rate.High < 0 && above > .025 {
			b.rate.High = p
		}
		if b.rate.Low = p; above >= .975 {
			break
		}
	}
	b.rate.Low, b.rate.High = min(b.rate.Low, b.rate.Mean), max(b.rate.High, b.rate.Mean)
}

// ratePriors are the probabilities of the rates before any run.
func ratePriors() []float64 {
	sum := 0.0
	for _, r := range rates {
		sum += r.weight
	}
	priors := []float64{always}
	for _, r := range rates[1:] {
		priors = append(priors, (1-always)*r.weight/sum)
	}
	return priors
}

// of is the probability that a commit is the first bad one.
func (b *belief) of(i int) float64 {
	class := b.class[b.chains.of[i]]
	if class < 0 {
		return 0
	}
	return b.each[class] * b.prior[i]
}

// told gives for every commit how many bits its next run is expected to tell of
// the first bad commit: the mutual information between the two. Given the first
// bad commit, the run is as uncertain as its rate of failure is; it is more
// uncertain by what it tells.
//
// And it gives how likely that run is to be bad.
func (b *belief) told() (bits, bad []float64) {
	most := slices.Max(b.each)
	type class struct{ each, fails, sure float64 }
	classes := make([]class, len(b.each))
	for k := range classes {
		bad, good := b.bad[k], b.good[k]
		if b.each[k] > most*1e-15 { // what is less adds nothing, and the sums are faster without it
			classes[k] = class{b.each[k] / most, bad - good, entropy(bad) - entropy(good)}
		}
	}
	whole, otherwise, otherSure := 0.0, 0.0, 0.0
	sums := b.chains.upto(func(i int) [2]float64 {
		k := b.class[b.chains.of[i]]
		if k < 0 {
			return [2]float64{}
		}
		c := &classes[k]
		q := b.prior[i] * c.each
		whole += q
		otherwise += q * b.good[k]
		otherSure += q * entropy(b.good[k])
		return [2]float64{q * c.fails, q * c.sure}
	})
	bits, bad = make([]float64, len(sums)), make([]float64, len(sums))
	for i, s := range sums {
		bad[i] = (s[0] + otherwise) / whole
		bits[i] = max(0, entropy(bad[i])-(s[1]+otherSure)/whole)
	}
	return bits, bad
}

// entropy of a coin, in bits.
func entropy(p float64) float64 {
	p = min(p, 1-p)
	if p <= 0 {
		return 0
	}
	return -p*math.Log2(p) - (1-p)*math.Log1p(-p)/math.Ln2
}
