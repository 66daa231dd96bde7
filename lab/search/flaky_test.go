package search

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// flaky is a test of one history that fails on bad commits at a rate, and on
// good ones never. It counts what is asked of it.
type flaky struct {
	bad     []bool
	rate    float64
	rnd     *rand.Rand
	runs    int
	kernels map[int]bool
}

func newFlaky(c []Candidate, culprit int, rate float64, rnd *rand.Rand) *flaky {
	f := &flaky{bad: make([]bool, len(c)), rate: rate, rnd: rnd, kernels: map[int]bool{}}
	for i, m := range answers(c, culprit, nil) {
		f.bad[i] = m == Bad
	}
	return f
}

// run tests a commit once; -1 is the good end.
func (f *flaky) run(i int) bool {
	f.runs++
	f.kernels[i] = true
	return i >= 0 && f.bad[i] && f.rnd.Float64() < f.rate
}

// learning is the scheme of Search: the good end is run once, the bad end until
// it fails, and the search says the rest.
//
// A kernel that was not run before takes dear runs' time to build.
func learning(c []Candidate, f *flaky, confidence, dear float64) int {
	c = slices.Clone(c)
	for i := range c {
		c[i].Cost = 1 + dear
	}
	s := Search{Candidates: c, Confidence: confidence, MaxTotal: 20_000}
	e := make([]Evidence, len(c))
	f.run(-1)
	run := func(i int) bool {
		bad := f.run(i)
		c[i].Cost = 1
		if bad {
			e[i].Bad++
		} else {
			e[i].Good++
		}
		return bad
	}
	for !run(len(c) - 1) {
	}
	for {
		step := s.Next(e)
		if step.Test < 0 {
			return step.Culprit
		}
		run(step.Test)
	}
}

// syzBisect is the scheme of syzkaller's pkg/bisect: 20 runs of the bad end,
// then 10 of each commit, and 20 once fewer than half of the runs failed; bad is
// what fails max(2, runs/6) times, good what never fails, and what is between
// is skipped. An answer in which it has a confidence below .66 is withheld.
func syzBisect(c []Candidate, f *flaky) int {
	isFlaky, ratio, sure := false, 1.0, 1.0
	test := func(i, runs int) Mark {
		bad := 0
		for range runs {
			if f.run(i) {
				bad++
			}
		}
		if bad > 0 {
			if ratio = min(ratio, float64(bad)/float64(runs)); ratio < .5 {
				isFlaky = true
			}
		}
		switch {
		case bad >= max(2, runs/6):
			return Bad
		case bad == 0:
			sure *= 1 - math.Pow(1-ratio, float64(runs))
			return Good
		}
		return Skip
	}
	if test(len(c)-1, 20) != Bad {
		return -1
	}
	often := func() int {
		if isFlaky {
			return 20
		}
		return 10
	}
	test(-1, often())
	marks := make([]Mark, len(c))
	for {
		step := Next(c, marks)
		if step.Test < 0 {
			if sure < .66 {
				return -1
			}
			return step.Culprit
		}
		marks[step.Test] = test(step.Test, often())
	}
}

// repeating runs each commit up to so many times, until it fails.
func repeating(c []Candidate, f *flaky, times int) int {
	test := func(i int) Mark {
		for range times {
			if f.run(i) {
				return Bad
			}
		}
		return Good
	}
	test(-1)
	if test(len(c)-1) != Bad {
		return -1
	}
	marks := make([]Mark, len(c))
	for {
		step := Next(c, marks)
		if step.Test < 0 {
			return step.Culprit
		}
		marks[step.Test] = test(step.Test)
	}
}

// tally counts searches.
type tally struct{ searches, right, answered, runs, kernels int }

func (t *tally) add(f *flaky, culprit, found int) {
	t.searches++
	if found == culprit {
		t.right++
	}
	if found >= 0 {
		t.answered++
	}
	t.runs += f.runs
	t.kernels += len(f.kernels)
}

// wilson is the 95 % interval of a rate of which k of n were seen (E. B. Wilson,
// "Probable inference, the law of succession, and statistical inference", 1927).
func wilson(k, n int) (low, high float64) {
	const z = 1.96
	p, m := float64(k)/float64(n), float64(n)
	middle, half := p+z*z/(2*m), z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return (middle - half) / (1 + z*z/m), (middle + half) / (1 + z*z/m)
}

func (t tally) String() string {
	low, high := wilson(t.right, t.searches)
	n := float64(t.searches)
	return fmt.Sprintf("%5.1f %% right (%.1f–%.1f), %.1f %% answered, %6.1f runs, %5.1f kernels", 100*float64(t.right)/n, 100*low, 100*high, 100*float64(t.answered)/n, float64(t.runs)/n, float64(t.kernels)/n)
}

// hold has one scheme search for culprits that are the same for every scheme.
func hold(c []Candidate, rate float64, searches int, search func(f *flaky) int) (sum tally) {
	for seed := range searches {
		rnd := rand.New(rand.NewPCG(uint64(seed), 21))
		culprit := rnd.IntN(len(c))
		f := newFlaky(c, culprit, rate, rnd)
		sum.add(f, culprit, search(f))
	}
	return sum
}

// contest has the schemes search for the same culprits.
func contest(c []Candidate, rate float64, searches int) (ours, syz, repeated tally, times int) {
	ours = hold(c, rate, searches, func(f *flaky) int { return learning(c, f, .95, 0) })
	syz = hold(c, rate, searches, func(f *flaky) int { return syzBisect(c, f) })
	// The fewest repetitions that are right as often.
	for times = 1; ; times += 1 + times/10 {
		repeated = hold(c, rate, searches, func(f *flaky) int { return repeating(c, f, times) })
		if repeated.right >= ours.right || times > 300 {
			return ours, syz, repeated, times
		}
	}
}

// The right commit is found as often as the confidence says, with fewer runs
// than by the other schemes, as long as these find it as often.
func TestFlakySearches(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	for _, test := range []struct {
		graph    string
		rate     float64
		searches int
	}{{"spinnaker", .9, 40}, {"go-git", .5, 80}, {"desk", .2, 25}, {"storable", .05, 8}} {
		c := readGraph(t, test.graph).candidates()
		ours, syz, repeated, times := contest(c, test.rate, test.searches)
		t.Logf("%s, %v %%: %v", test.graph, test.rate*100, ours)
		t.Logf("  syz-bisect: %v", syz)
		t.Logf("  %d times: %v", times, repeated)
		if float64(ours.right) < .95*float64(ours.searches) {
			t.Errorf("%s, %v %%: %v", test.graph, test.rate*100, ours)
		}
		if ours.runs >= repeated.runs || syz.right >= ours.right && ours.runs >= syz.runs {
			t.Errorf("%s, %v %%: more runs than others", test.graph, test.rate*100)
		}
	}
}

// repairing is learning where the first bad commit is a repair: all that is not
// built upon it fails at the rate.
func repairing(c []Candidate, f *flaky) int {
	s := Search{Candidates: c, Fix: true, MaxTotal: 20_000}
	e := make([]Evidence, len(c))
	run := func(i int) (failed bool) {
		f.runs++
		f.kernels[i] = true
		return (i < 0 || !f.bad[i]) && f.rnd.Float64() < f.rate
	}
	for !run(-1) {
	}
	e[len(c)-1].Bad++ // the end passes
	for {
		step := s.Next(e)
		if step.Test < 0 {
			return step.Culprit
		}
		if run(step.Test) {
			e[step.Test].Good++
		} else {
			e[step.Test].Bad++
		}
	}
}

// Of repairs the right one is found as often as the confidence says, too.
func TestRepairSearches(t *testing.T) {
	for _, test := range []struct {
		graph    string
		rate     float64
		searches int
	}{{"spinnaker", .9, 30}, {"go-git", .5, 60}, {"desk", .2, 20}} {
		c := readGraph(t, test.graph).candidates()
		sum := hold(c, test.rate, test.searches, func(f *flaky) int { return repairing(c, f) })
		t.Logf("%s, %v %%: %v", test.graph, test.rate*100, sum)
		if float64(sum.right) < .93*float64(sum.searches) {
			t.Errorf("%s, %v %%: %v", test.graph, test.rate*100, sum)
		}
	}
}

// A test that never errs costs two runs more than one that is known not to, the
// checks of the answer included, and hardly another kernel: without them it could
// not be told from one that errs half the time, of which the answers would be
// wrong. One that is known not to err takes no more runs than ever (TestAgainstGit).
func TestSteadySearches(t *testing.T) {
	c := readGraph(t, "go-git").candidates()
	var ours, plain tally
	for culprit := 0; culprit < len(c); culprit += 2 {
		f := newFlaky(c, culprit, 1, nil)
		f.rnd = rand.New(rand.NewPCG(1, 1))
		ours.add(f, culprit, learning(c, f, .95, 0))
		f = newFlaky(c, culprit, 1, f.rnd)
		found := repeating(c, f, 1)
		f.run(found)
		for _, p := range c[found].Parents {
			f.run(p)
		}
		plain.add(f, culprit, found)
	}
	t.Logf("unknown: %v", ours)
	t.Logf("known:   %v", plain)
	if ours.right != ours.searches || 2*ours.runs > 2*plain.runs+5*ours.searches || ours.kernels > plain.kernels+ours.searches/2 {
		t.Error("too many runs of a test that never errs")
	}
}

// BenchmarkFlaky prints the table of all schemes:
//
//	go test -run - -bench Flaky -benchtime 1x ./lab/search
func BenchmarkFlaky(b *testing.B) {
	for b.Loop() {
		for _, rate := range []float64{1, .9, .5, .2, .05} {
			for _, name := range graphs {
				c := readGraph(b, name).candidates()
				const searches = 300
				ours, syz, repeated, times := contest(c, rate, searches)
				dear := hold(c, rate, searches, func(f *flaky) int { return learning(c, f, .95, 10) })
				fmt.Printf("%-11s %3.0f %% learned:     %v\n", name, rate*100, ours)
				fmt.Printf("%-11s %3.0f %% build is 10: %v\n", name, rate*100, dear)
				fmt.Printf("%-11s %3.0f %% syz-bisect:  %v\n", name, rate*100, syz)
				fmt.Printf("%-11s %3.0f %% %3d times:   %v\n", name, rate*100, times, repeated)
			}
		}
	}
}
