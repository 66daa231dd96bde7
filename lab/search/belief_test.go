package search

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// slowBelief is Bayes' rule as it is written down: for every commit, every pair
// of rates and every run.
func slowBelief(c []Candidate, e []Evidence) (posterior, told []float64) {
	n := len(c)
	posterior, told = make([]float64, n), make([]float64, n)
	failRate := make([][]float64, n) // of each candidate, given the first bad commit
	whole := 0.0
	for culprit := range c {
		failRate[culprit] = make([]float64, n)
		answer := answers(c, culprit, nil)
		if answer[n-1] != Bad {
			continue
		}
		for k, prior := range ratePriors() {
			p := rates[k].rate
			for _, f := range falseRates {
				if f.rate >= p {
					continue
				}
				l := f.prior * prior
				if c[culprit].Inert {
					l *= inertPrior
				}
				for i, x := range e {
					fails := f.rate
					if answer[i] == Bad {
						fails = p
					}
					l *= math.Pow(fails, float64(x.Bad)) * math.Pow(1-fails, float64(x.Good))
				}
				posterior[culprit] += l
				for i := range c {
					if answer[i] == Bad {
						failRate[culprit][i] += l * p
					} else {
						failRate[culprit][i] += l * f.rate
					}
				}
			}
		}
		whole += posterior[culprit]
	}
	for i := range told {
		fails, given := 0.0, 0.0
		for culprit, l := range posterior {
			if l > 0 {
				fails += failRate[culprit][i] / whole
				given += l / whole * entropy(failRate[culprit][i]/l)
			}
		}
		told[i] = entropy(fails) - given
	}
	for i := range posterior {
		posterior[i] /= whole
	}
	return posterior, told
}

// The sums over chains and classes are those of Bayes' rule.
func TestBelief(t *testing.T) {
	rnd := rand.New(rand.NewPCG(10, 10))
	for _, n := range []int{1, 2, 7, 30, 90} {
		for range 5 {
			c := fromParents(randomDAG(rnd, n))
			e := make([]Evidence, n)
			for i := range c {
				c[i].Inert = rnd.IntN(4) == 0
				if n > 80 || rnd.IntN(3) == 0 { // more than 64 are tested, too
					e[i] = Evidence{Bad: rnd.IntN(3), Good: rnd.IntN(3)}
				}
			}
			b := Search{Candidates: c}.believe(e, false)
			told, _ := b.told()
			posterior, slowTold := slowBelief(c, e)
			for i := range c {
				if math.Abs(b.of(i)-posterior[i]) > 1e-9 || math.Abs(told[i]-slowTold[i]) > 1e-9 {
					t.Fatalf("commit %d of %d: %g and %g bits, not %g and %g", i, n, b.of(i), told[i], posterior[i], slowTold[i])
				}
			}
		}
	}
}

// A first verdict that was wrong is overturned by the runs that follow.
func TestAWrongVerdictIsOverturned(t *testing.T) {
	for _, first := range []struct {
		name string
		at   int
		run  Evidence
	}{{"good for bad", 60, Evidence{Good: 1}}, {"bad for good", 20, Evidence{Bad: 1}}, {"good for bad, twice", 90, Evidence{Good: 2}}} {
		t.Run(first.name, func(t *testing.T) {
			const culprit = 30
			c := line(100)
			e := make([]Evidence, 100)
			e[99].Bad = 3
			e[first.at] = first.run
			for n := 0; ; n++ {
				step := Search{Candidates: c}.Next(e)
				if step.Culprit >= 0 {
					t.Logf("%d runs more: %s", n, step.Why)
					if step.Culprit != culprit || step.Confidence < .95 {
						t.Errorf("%+v", step)
					}
					return
				}
				if step.Test < 0 || n > 60 {
					t.Fatalf("%d runs, and %+v", n, step)
				}
				if step.Test >= culprit {
					e[step.Test].Bad++
				} else {
					e[step.Test].Good++
				}
			}
		})
	}
}

func TestTheRateIsLearned(t *testing.T) {
	for _, test := range []struct {
		bad, good int
		low, high float64 // the mean is between
	}{{50, 0, .99, 1}, {20, 20, .4, .6}, {5, 95, .03, .08}} {
		step := Search{Candidates: line(3)}.Next([]Evidence{{}, {}, {Bad: test.bad, Good: test.good}})
		r := step.Rate
		if r.Mean < test.low || r.Mean > test.high || r.Low > r.Mean || r.High < r.Mean || r.Low < 0 || r.High > 1 || r.High-r.Low > .4 {
			t.Errorf("%d bad and %d good runs: %+v", test.bad, test.good, r)
		}
	}
}

func TestSearchNext(t *testing.T) {
	for _, test := range []struct {
		name string
		s    Search
		e    []Evidence
		want Step // Test, Culprit and Suspects
		why  string
	}{
		{"nothing is known", Search{Candidates: line(9)}, nil,
			Step{Test: 3, Culprit: -1}, "a run of it tells most: 44.4% of the suspicion is on it"},
		{"always fails", Search{Candidates: line(4)}, []Evidence{{Good: 6}, {Bad: 3}, {}, {Bad: 2}},
			Step{Test: -1, Culprit: 1}, "the first bad commit with a probability of"},
		{"the good side is not sure", Search{Candidates: line(40)}, []Evidence{20: {Good: 1}, 21: {Bad: 2}, 39: {Bad: 2}},
			Step{Test: 20, Culprit: -1}, "run 2 of it, after 0 bad and 1 good, tells most"},
		{"it may not be run again", Search{Candidates: line(40), MaxRuns: 1}, []Evidence{20: {Good: 1}, 21: {Bad: 2}, 39: {Bad: 2}},
			Step{Test: 19, Culprit: -1}, "the middle cannot be tested; next best, a run of it"},
		{"a skipped commit is no answer", Search{Candidates: line(4)}, []Evidence{{Good: 12}, {Skip: true}, {Bad: 6}, {Bad: 6}},
			Step{Test: -1, Culprit: -1, Suspects: []int{1, 2}}, "no run that is left tells these apart: the first bad commit is one of 2"},
		{"all runs are used up", Search{Candidates: line(3), MaxTotal: 4}, []Evidence{{Good: 1}, {Good: 2}, {Bad: 1}},
			Step{Test: -1, Culprit: -1, Suspects: []int{0, 1, 2}}, "no run that is left"},
		{"just enough runs", Search{Candidates: line(3), MaxTotal: 6, Confidence: .94}, []Evidence{{Good: 1}, {Good: 3}, {Bad: 2}},
			Step{Test: -1, Culprit: 2}, "the first bad commit with a probability of 94.3%; no run that is left would tell more"},
		{"a good end that is bad", Search{Candidates: line(3)}, []Evidence{{Good: 1, Bad: 6}, {Bad: 4}, {Bad: 4}},
			Step{Test: -1, Culprit: 0}, "the first bad commit with a probability of"},
		{"what is built already", Search{Candidates: costs(9, 9, 9, 9, 9, 9, 1, 9, 9)}, nil,
			Step{Test: 6, Culprit: -1}, "another one would tell more, but costs more; a run of it"},
		{"exact, and both", Search{Candidates: line(3), Exact: true}, []Evidence{{Good: 1, Bad: 1}},
			Step{Test: -1, Culprit: -1}, "c0 is both good and bad"},
		{"one commit", Search{Candidates: line(1)}, nil,
			Step{Test: -1, Culprit: 0}, "the first bad commit with a probability of 100%"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := test.s.Next(test.e)
			if got.Test != test.want.Test || got.Culprit != test.want.Culprit || !slices.Equal(got.Suspects, test.want.Suspects) || !strings.HasPrefix(got.Why, test.why) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// costs is a line of commits with these costs.
func costs(of ...float64) []Candidate {
	c := line(len(of))
	for i := range c {
		c[i].Cost = of[i]
	}
	return c
}

// Any history with any runs gives one kind of step, and probabilities.
func FuzzSearch(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0}, []byte{0, 1, 9, 0x80})
	f.Add([]byte("some merges and marks"), []byte("some runs of some commits"))
	f.Fuzz(func(t *testing.T, shape, runs []byte) {
		c := make([]Candidate, min(len(shape), 60))
		e := make([]Evidence, min(len(runs), len(c)))
		for i := range c {
			c[i].Inert = shape[i]&12 == 8
			c[i].Cost = float64(shape[i]&3) - 1
			for _, d := range []int{int(shape[i] >> 2 & 7), int(shape[i] >> 5)} {
				if p := i - d; d > 0 && p >= 0 && !slices.Contains(c[i].Parents, p) {
					c[i].Parents = append(c[i].Parents, p)
				}
			}
		}
		for i := range e {
			e[i] = Evidence{Bad: int(runs[i] & 3), Good: int(runs[i] >> 2 & 31), Skip: runs[i]&0x80 != 0}
		}
		s := Search{Candidates: c, MaxRuns: 30}
		step := s.Next(e)
		kinds := 0
		for _, is := range []bool{step.Test >= 0, step.Culprit >= 0, step.Suspects != nil, step.Conflict != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || step.Why == "" || !(step.Confidence >= 0 && step.Confidence <= 1+1e-9) || !(step.Rate.Mean >= 0 && step.Rate.Mean <= 1+1e-9) {
			t.Fatalf("%+v", step)
		}
		if step.Test >= 0 && step.Test < len(e) && (e[step.Test].Skip || e[step.Test].runs() >= 30) {
			t.Fatalf("%+v may not be run", step)
		}
		if len(c) == 0 {
			return
		}
		all := make([]Evidence, len(c))
		copy(all, e)
		b := s.believe(all, false)
		sum := 0.0
		for i := range c {
			sum += b.of(i)
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Fatalf("the probabilities add up to %v", sum)
		}
	})
}
