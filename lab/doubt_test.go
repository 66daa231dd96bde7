package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"lab/kernel"
	"lab/lab/search"
	"lab/probe"
)

// A dice is an axis of commits in a row whose test fails at a rate from one of
// them on. Some have the same bytes as the one before.
type dice struct {
	row
	*Lab
	culprit, alike int
	fix            bool // until it, not from it on
	rate           float64
	rnd            *rand.Rand
	runs           int
	ran            map[int]bool
}

func (d *dice) ends(_ context.Context, _ BisectOptions, r *Bisection) ([]kernel.Commit, error) {
	return d.between(BisectOptions{}, nil, r)
}

func (d *dice) identity() []string { return nil }

func (d *dice) trial(_ context.Context, c kernel.Commit) (Trial, error) {
	i, err := d.find(c.Hash)
	if err != nil {
		return Trial{}, err
	}
	d.runs++
	d.ran[i] = true
	t := Trial{End: EndTest, Boot: time.Second, Test: time.Second}
	t.Kernel.Digest = fmt.Sprintf("kernel of %d", i)
	if d.alike > 0 && i != d.culprit { // the same as the first of their kind
		t.Kernel.Digest = fmt.Sprintf("kernel of %d", max(i-i%d.alike, min(i, d.culprit)*boolInt(i >= d.culprit)))
	}
	if (i >= d.culprit) != d.fix && d.rnd.Float64() < d.rate {
		t.Result = probe.Result{Exit: 1}
	}
	return t, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// throw bisects n commits with the dice.
func throw(t *testing.T, n, culprit, alike int, rate float64, seed uint64, o BisectOptions) (*dice, Bisection) {
	t.Helper()
	d := &dice{row: row{what: "commit"}, Lab: testLab(t), culprit: culprit, alike: alike, fix: o.Terms.Fix, rate: rate, rnd: rand.New(rand.NewPCG(seed, 5)), ran: map[int]bool{}}
	for i := range n {
		d.add(fmt.Sprintf("%040d", i), fmt.Sprint("change ", i))
	}
	return d, d.bisect(t, memoryDir(t), o)
}

func (d *dice) bisect(t *testing.T, dir string, o BisectOptions) Bisection {
	t.Helper()
	b, err := hunt(t, d, d.Lab, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hunt is Lab.Bisect with another axis and without a guest.
func hunt(t *testing.T, x axis, l *Lab, dir string, o BisectOptions) (Bisection, error) {
	t.Helper()
	b := newBisection(l, o)
	b.axis = x
	var err error
	if b.result.Terms, err = o.Terms.AsGiven(); err != nil {
		t.Fatal(err)
	}
	commits, err := b.ends(t.Context(), o, &b.result)
	if err != nil {
		t.Fatal(err)
	}
	if b.journal, err = openJournal(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer b.journal.Close()
	if len(b.journal.records) == 0 {
		if err := b.journal.add(record{Event: "start", Format: journalFormat}); err != nil {
			t.Fatal(err)
		}
	}
	err = b.hunt(t.Context(), commits)
	return b.result, err
}

// memoryDir is a folder whose files need not wait for a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "lab-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Whatever the rate at which a bad kernel fails, the answer is right as often
// as it says.
func TestFlakyBisects(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	const n, searches = 60, 25
	for _, test := range []struct {
		rate  float64
		alike int
	}{{1, 0}, {.9, 0}, {.5, 0}, {.2, 0}, {.5, 3}} {
		right, runs, answered := 0, 0, 0
		for seed := range uint64(searches) {
			culprit := 1 + int(seed*7)%(n-1)
			d, b := throw(t, n, culprit, test.alike, test.rate, seed, BisectOptions{})
			runs += d.runs
			if b.Culprit != nil {
				answered++
				if b.Culprit.Title == fmt.Sprint("change ", culprit) {
					right++
				}
				if b.Confidence < .95 || b.Rate == nil || len(b.Runs) != 2 || b.Runs[0].Bad == 0 || b.Runs[1].Bad > 0 || b.Runs[1].Good == 0 {
					t.Errorf("rate %v: culprit %v with confidence %v, rate %v, runs %+v", test.rate, b.Culprit.Title, b.Confidence, b.Rate, b.Runs)
				}
			}
		}
		t.Logf("rate %v: %d of %d right, %d answered, %.1f runs each", test.rate, right, searches, answered, float64(runs)/searches)
		if float64(right) < .9*float64(answered) || answered < searches-2 {
			t.Errorf("rate %v: %d of %d right, %d answered", test.rate, right, searches, answered)
		}
	}
}

// The same of a repair: what is before it fails at times.
func TestFlakyRepairs(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	const n, searches = 40, 20
	for _, rate := range []float64{1, .5, .2} {
		right, runs, answered := 0, 0, 0
		for seed := range uint64(searches) {
			culprit := 1 + int(seed*7)%(n-1)
			d, b := throw(t, n, culprit, 0, rate, seed, BisectOptions{Terms: Terms{Fix: true}, MaxRuns: 200})
			runs += d.runs
			if b.Culprit == nil {
				continue
			}
			answered++
			if b.Culprit.Title == fmt.Sprint("change ", culprit) {
				right++
			}
			if b.Confidence < .95 || b.Rate == nil || b.failed(b.Runs[0]) > 0 || b.Runs[0].Bad == 0 || b.failed(b.Runs[1]) == 0 || !strings.Contains(b.Sure(), "it failed 0 of ") {
				t.Errorf("rate %v: culprit %v with confidence %v, rate %v, runs %+v: %s", rate, b.Culprit.Title, b.Confidence, b.Rate, b.Runs, b.Sure())
			}
		}
		t.Logf("rate %v: %d of %d right, %d answered, %.1f runs each", rate, right, searches, answered, float64(runs)/searches)
		if float64(right) < .9*float64(answered) || answered < searches-2 {
			t.Errorf("rate %v: %d of %d right, %d answered", rate, right, searches, answered)
		}
	}
}

// What never errs is not run much more often than the search itself asks for,
// and with Steady no more.
func TestSteadyBisects(t *testing.T) {
	const n = 60
	for culprit := 1; culprit < n; culprit += 5 {
		d, b := throw(t, n, culprit, 0, 1, 1, BisectOptions{})
		steady, s := throw(t, n, culprit, 0, 1, 1, BisectOptions{Steady: true})
		if b.Culprit == nil || s.Culprit == nil || b.Culprit.Hash != s.Culprit.Hash || s.Rate != nil || len(s.Runs) != 2 {
			t.Fatalf("%+v, %+v", b.Culprit, s.Culprit)
		}
		if d.runs > steady.runs+3 || len(d.ran) > len(steady.ran) || steady.runs > 2+6+2 {
			t.Errorf("culprit %d: %d runs of %d kernels, %d and %d of a steady test", culprit, d.runs, len(d.ran), steady.runs, len(steady.ran))
		}
	}
}

// Stopped after each run, a bisect comes to the same answer as one that was not,
// and runs nothing twice.
func TestFlakyBisectGoesOn(t *testing.T) {
	const n, culprit = 40, 17
	for seed := range uint64(4) {
		whole, want := throw(t, n, culprit, 0, .5, seed, BisectOptions{})
		d := *whole
		d.rnd, d.runs, d.ran = rand.New(rand.NewPCG(seed, 5)), 0, map[int]bool{}
		dir := memoryDir(t)
		for limit := 1; ; limit++ {
			stop := &stopping{dice: &d, left: 1}
			b, err := hunt(t, stop, d.Lab, dir, BisectOptions{})
			if err == nil {
				if b.Culprit.Hash != want.Culprit.Hash || d.runs != whole.runs || b.Confidence != want.Confidence {
					t.Errorf("%s in %d runs (%v), want %s in %d (%v)", b.Culprit.Hash, d.runs, b.Confidence, want.Culprit.Hash, whole.runs, want.Confidence)
				}
				break
			}
			if limit > 500 {
				t.Fatal("it does not end")
			}
		}
	}
}

type stopping struct {
	*dice
	left int
}

var errStopped = fmt.Errorf("stopped")

func (s *stopping) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	if s.left == 0 {
		return Trial{}, errStopped
	}
	s.left--
	return s.dice.trial(ctx, c)
}

// A bad end that never fails is told as one, with how often it was tried; and a
// good end that turns out to be bad too.
func TestWrongEnds(t *testing.T) {
	d, b := throw(t, 20, 30, 0, .5, 1, BisectOptions{})
	if b.Culprit != nil || !strings.Contains(b.Unclear, "the bad end") || !strings.Contains(b.Unclear, fmt.Sprint(defaultEndRuns, " times")) || d.runs != 1+defaultEndRuns {
		t.Errorf("after %d runs: %+v, %s", d.runs, b.Culprit, b.Unclear)
	}
	d, b = throw(t, 20, 30, 0, .5, 1, BisectOptions{MaxRuns: 3})
	if b.Culprit != nil || d.runs != 1+3 {
		t.Errorf("after %d runs: %+v, %s", d.runs, b.Culprit, b.Unclear)
	}
	bad := 0
	for seed := range uint64(20) {
		if _, b = throw(t, 20, 0, 0, .5, seed, BisectOptions{}); b.Culprit != nil {
			bad++
		}
	}
	if bad > 1 {
		t.Errorf("with a good end that is bad, %d of 20 have a culprit", bad)
	}
}

func TestEvidence(t *testing.T) {
	commits := make([]kernel.Commit, 5)
	for i := range commits {
		commits[i].Hash = fmt.Sprint(i)
	}
	of := func(i int, mark Mark, kernel, inferred string) record {
		return record{Tested: &Tested{Commit: kernelCommit(i), Verdict: Verdict{Mark: mark}, Kernel: kernel, Inferred: inferred}}
	}
	for name, test := range map[string]struct {
		records []record
		want    map[int]search.Evidence
		doubt   bool
	}{
		"each its own":         {[]record{of(0, Good, "a", ""), of(4, Bad, "b", ""), of(2, Skip, "c", "")}, map[int]search.Evidence{0: {Good: 1}, 4: {Bad: 1}, 2: {Skip: true}}, false},
		"the same bytes":       {[]record{of(1, Good, "a", ""), of(3, Good, "a", "1"), of(4, Bad, "b", "")}, map[int]search.Evidence{3: {Good: 1}, 4: {Bad: 1}}, false},
		"bad ones":             {[]record{of(4, Bad, "b", ""), of(2, Bad, "b", "4"), of(4, Bad, "b", "")}, map[int]search.Evidence{2: {Bad: 2}}, false},
		"both":                 {[]record{of(1, Good, "a", ""), of(3, Bad, "a", "")}, map[int]search.Evidence{1: {Bad: 1}, 3: {Good: 1}}, true},
		"no kernel":            {[]record{of(1, Good, "", ""), of(2, Good, "", "1"), of(1, Good, "", "")}, map[int]search.Evidence{2: {Good: 2}}, false},
		"one outside":          {[]record{of(9, Good, "a", ""), of(2, Good, "a", "9")}, map[int]search.Evidence{2: {Good: 1}}, false},
		"skipped after a run":  {[]record{of(2, Bad, "a", ""), of(2, Skip, "a", "")}, map[int]search.Evidence{2: {Bad: 1, Skip: true}}, false},
		"nothing of the range": {[]record{of(9, Bad, "a", "")}, nil, false},
	} {
		got, doubt := evidence(test.records, newLineage(commits), 1, false)
		for i, e := range got {
			if e != test.want[i] {
				t.Errorf("%s: of %d %+v, want %+v", name, i, e, test.want[i])
			}
		}
		if doubt != test.doubt {
			t.Errorf("%s: doubt is %v", name, doubt)
		}
	}
}

func kernelCommit(i int) kernel.Commit { return kernel.Commit{Hash: fmt.Sprint(i)} }
