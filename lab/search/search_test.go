package search

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// line is a history without merges.
func line(n int) []Candidate {
	c := make([]Candidate, n)
	for i := range c {
		c[i].ID = fmt.Sprintf("c%d", i)
		if i > 0 {
			c[i].Parents = []int{i - 1}
		}
	}
	return c
}

func fromParents(parents [][]int) []Candidate {
	c := make([]Candidate, len(parents))
	for i := range c {
		c[i] = Candidate{ID: fmt.Sprintf("c%d", i), Parents: parents[i]}
	}
	return c
}

func TestNext(t *testing.T) {
	// 0 - 1 - 2 ------- 5 - 6
	//      \- 3 - 4 -/
	merge := fromParents([][]int{nil, {0}, {1}, {1}, {3}, {2, 4}, {5}})
	for _, c := range []struct {
		name  string
		c     []Candidate
		marks []Mark
		want  Step
	}{
		{"one commit", line(1), nil,
			Step{Test: -1, Culprit: 0, Left: 1, Why: "every other commit is ruled out", Confidence: 1}},
		{"two commits", line(2), nil,
			Step{Test: 0, Culprit: -1, Left: 2, Steps: 0, Why: "halves 2 commits: 1 on each side"}},
		{"an even number", line(24), nil,
			Step{Test: 11, Culprit: -1, Left: 24, Steps: 4, Why: "halves 24 commits: 12 on each side"}},
		{"an odd number", line(7), nil,
			Step{Test: 2, Culprit: -1, Left: 7, Steps: 2, Why: "splits 7 commits: 3 and 4"}},
		{"good narrows", line(4), []Mark{Unknown, Good},
			Step{Test: 2, Culprit: -1, Left: 2, Why: "halves 2 commits: 1 on each side"}},
		{"bad narrows", line(4), []Mark{Unknown, Bad},
			Step{Test: 0, Culprit: -1, Left: 2, Why: "halves 2 commits: 1 on each side"}},
		{"found", line(4), []Mark{Good, Bad, Unknown, Unknown},
			Step{Test: -1, Culprit: 1, Left: 1, Why: "every other commit is ruled out", Confidence: 1}},
		{"the bad end's mark may be bad", line(2), []Mark{Good, Bad},
			Step{Test: -1, Culprit: 1, Left: 1, Why: "every other commit is ruled out", Confidence: 1}},
		{"the middle is skipped", line(8), []Mark{3: Skip},
			Step{Test: 1, Culprit: -1, Left: 8, Steps: 2, Why: "the middle cannot be tested; next best, splits 8 commits: 2 and 6"}},
		{"only skipped ones", line(5), []Mark{Good, Skip, Skip, Bad, Unknown},
			Step{Test: -1, Culprit: -1, Suspects: []int{1, 2, 3}, Left: 3, Why: "only skipped commits are left to test; the first bad commit could be any of 3", Confidence: 1}},
		{"both sides of a merge", merge, nil,
			Step{Test: 2, Culprit: -1, Left: 7, Steps: 2, Why: "splits 7 commits: 3 and 4"}},
		{"a good side", merge, []Mark{4: Good},
			Step{Test: 2, Culprit: -1, Left: 3, Steps: 1, Why: "splits 3 commits: 1 and 2"}},
		{"a bad side", merge, []Mark{4: Bad},
			Step{Test: 1, Culprit: -1, Left: 4, Steps: 1, Why: "halves 4 commits: 2 on each side"}},
		{"both sides bad", merge, []Mark{2: Bad, 4: Bad},
			Step{Test: 0, Culprit: -1, Left: 2, Why: "halves 2 commits: 1 on each side"}},
		{"no candidates", nil, nil,
			Step{Test: -1, Culprit: -1, Conflict: []int{}, Why: "there is no commit between good and bad"}},
		{"good upon bad", line(4), []Mark{Unknown, Bad, Good, Unknown},
			Step{Test: -1, Culprit: -1, Conflict: []int{1, 2}, Why: "c2 is good, yet built upon c1, which is bad"}},
		{"a good end", line(3), []Mark{Unknown, Unknown, Good},
			Step{Test: -1, Culprit: -1, Conflict: []int{2}, Why: "c2 is the bad end, and is marked good"}},
		{"two bad sides of a good commit", merge, []Mark{1: Good, 2: Bad, 4: Bad},
			Step{Test: -1, Culprit: -1, Conflict: []int{2, 4, 6}, Why: "no commit that the 3 bad ones have in common can still be the first bad one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Next(c.c, c.marks)
			if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", c.want) {
				t.Errorf("\ngot  %#v\nwant %#v", got, c.want)
			}
		})
	}
}

func TestParentsComeFirst(t *testing.T) {
	for _, p := range []int{-1, 1, 2} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "parents come first") {
					t.Errorf("parent %d of commit 1: %v", p, r)
				}
			}()
			Next([]Candidate{{}, {Parents: []int{p}}, {}}, nil)
		}()
	}
}

// git counts the same weights, for any history.
func TestWeightsAreGits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{2, 10, 63, 64, 65, 200, 700} {
		r, ids := newRepo(t, randomDAG(rnd, n))
		c := r.candidates(ids[0], ids[n-1])
		distance := make(map[string]int)
		for i, w := range contract(c, func(i int) bool { return rnd.IntN(9) == 0 }).upto(func(int) [2]float64 { return [2]float64{1, 2} }) {
			distance[c[i].ID] = min(int(w[0]), len(c)-int(w[0]))
		}
		lines := strings.Split(strings.TrimSpace(r.git("", "rev-list", "--bisect-all", ids[n-1], "^"+ids[0])), "\n")
		if len(lines) != len(c) {
			t.Fatalf("git has %d candidates, not %d", len(lines), len(c))
		}
		for _, l := range lines { // hash (refs, dist=N)
			id, rest, _ := strings.Cut(l, " ")
			if _, dist, _ := strings.Cut(rest, "dist="); dist != fmt.Sprintf("%d)", distance[id]) {
				t.Errorf("of %d: %s: git has %s, not %d", n, id, rest, distance[id])
			}
		}
	}
}

// Whatever the culprit, it is found, in as many tests as git needs.
func TestEveryCulpritIsFound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 2 {
		const n = 16
		r, ids := newRepo(t, randomDAG(rnd, n))
		c := r.candidates(ids[0], ids[n-1])
		ours, gits := 0, 0
		for culprit := range c {
			answer := answers(c, culprit, nil)
			history, last := simulate(t, c, answer)
			if last.Culprit != culprit {
				t.Fatalf("found %d, not %d: %v", last.Culprit, culprit, history)
			}
			tests, suspects := r.bisect(ids[0], ids[n-1], byID(c, answer))
			if !slices.Equal(suspects, []string{c[culprit].ID}) {
				t.Fatalf("git found %v", suspects)
			}
			if len(history) > tests+2 {
				t.Errorf("culprit %d took %d tests, git %d", culprit, len(history), tests)
			}
			ours += len(history)
			gits += tests
		}
		t.Logf("%d commits: %.2f tests on average, git %.2f", len(c), float64(ours)/float64(len(c)), float64(gits)/float64(len(c)))
		if ours > gits+len(c)/4 {
			t.Errorf("%d tests for %d culprits, git %d", ours, len(c), gits)
		}
	}
}

// In histories of any size, the culprit is found in few tests.
func TestLargerHistories(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 4 {
		c := fromParents(randomDAG(rnd, 50+rnd.IntN(500)))
		total, most := 0, 0
		for culprit := range c {
			history, last := simulate(t, c, answers(c, culprit, nil))
			if last.Culprit != culprit {
				t.Fatalf("found %d, not %d", last.Culprit, culprit)
			}
			total += len(history)
			most = max(most, len(history))
		}
		ideal := steps(len(c)) + 1
		t.Logf("%d commits: %.2f tests on average, %d at most; estimated %d", len(c), float64(total)/float64(len(c)), most, ideal)
		if total > (ideal+1)*len(c) {
			t.Errorf("%d tests for %d culprits", total, len(c))
		}
	}
}

// When commits are skipped, what git makes of the same marks is what Next makes
// of them.
func TestSkippedCommits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	ours, gits, runs := 0, 0, 0
	for range 3 {
		const n = 30
		r, ids := newRepo(t, randomDAG(rnd, n))
		c := r.candidates(ids[0], ids[n-1])
		for range 6 {
			culprit := rnd.IntN(len(c))
			skipped := make(map[int]bool)
			for range rnd.IntN(len(c)) {
				skipped[rnd.IntN(len(c)-1)] = true
			}
			answer := answers(c, culprit, skipped)
			history, last := simulate(t, c, answer)
			want := found(c, last)
			if !slices.Contains(want, c[culprit].ID) {
				t.Fatalf("the culprit is none of the suspects after %v", history)
			}
			log := Log(History{Bad: Commit{ID: ids[n-1]}, Good: []Commit{{ID: ids[0]}}, Tested: history})
			if got := r.replay(log); !slices.Equal(got, want) {
				t.Errorf("after\n%sgit suspects %v, not %v", log, got, want)
			}
			tests, _ := r.bisect(ids[0], ids[n-1], byID(c, answer))
			ours, gits, runs = ours+len(history), gits+tests, runs+1
		}
	}
	t.Logf("%.2f tests on average, git %.2f", float64(ours)/float64(runs), float64(gits)/float64(runs))
	if ours > gits+runs {
		t.Errorf("%d tests in %d searches, git %d", ours, runs, gits)
	}
}

// Without merges the suspects depend on nothing but the answers.
func TestSuspectsOfALineAreGits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	const n = 20
	parents := make([][]int, n)
	for i := 1; i < n; i++ {
		parents[i] = []int{i - 1}
	}
	r, ids := newRepo(t, parents)
	c := r.candidates(ids[0], ids[n-1])
	for range 6 {
		culprit := rnd.IntN(len(c))
		skipped := make(map[int]bool)
		for i := range len(c) - 1 {
			skipped[i] = rnd.IntN(3) > 0
		}
		answer := answers(c, culprit, skipped)
		_, last := simulate(t, c, answer)
		if _, want := r.bisect(ids[0], ids[n-1], byID(c, answer)); !slices.Equal(found(c, last), want) {
			t.Errorf("suspects %v, git has %v", found(c, last), want)
		}
	}
}

// A stretch of commits that do not build is left by growing steps.
func TestALongBrokenStretch(t *testing.T) {
	c := line(1000)
	for _, length := range []int{1, 10, 100, 400} {
		skipped := make(map[int]bool)
		for i := range length {
			skipped[500-length/2+i] = true
		}
		total, most, runs := 0, 0, 0
		for culprit := 0; culprit < len(c); culprit += 7 {
			if skipped[culprit] || skipped[culprit-1] {
				continue
			}
			history, last := simulate(t, c, answers(c, culprit, skipped))
			if last.Culprit != culprit {
				t.Fatalf("found %d, not %d", last.Culprit, culprit)
			}
			total, most, runs = total+len(history), max(most, len(history)), runs+1
		}
		t.Logf("%d of 1000 do not build: %.2f tests on average, %d at most", length, float64(total)/float64(runs), most)
		if most > 30 || total > 14*runs {
			t.Errorf("%d tests with %d of 1000 commits broken", most, length)
		}
	}
}

func TestStepsAreGits(t *testing.T) {
	const most = 40
	parents := make([][]int, most+1)
	for i := 1; i < len(parents); i++ {
		parents[i] = []int{i - 1}
	}
	r, ids := newRepo(t, parents)
	for n := 2; n <= most; n += 1 + n/10 {
		out := r.git("", "bisect", "start", "--no-checkout", ids[n], ids[0])
		r.git("", "bisect", "reset")
		_, out, _ = strings.Cut(out, "(roughly ")
		if want := fmt.Sprintf("%d step", steps(n)); !strings.HasPrefix(out, want) {
			t.Errorf("%d commits: %q, git says %q", n, want, out)
		}
	}
}

func TestManyCommits(t *testing.T) {
	c := fromParents(randomDAG(rand.New(rand.NewPCG(6, 6)), 15_000))
	skipped := make(map[int]bool)
	for i := 7000; i < 8000; i++ {
		skipped[i] = true
	}
	const culprit = 3210
	history, last := simulate(t, c, answers(c, culprit, skipped))
	if last.Culprit != culprit {
		t.Errorf("found %d, not %d, in %d tests", last.Culprit, culprit, len(history))
	}
}

func BenchmarkNext(b *testing.B) {
	for _, n := range []int{1000, 15_000, 100_000, 1_000_000} {
		c := fromParents(linuxlike(rand.New(rand.NewPCG(7, 7)), n))
		marks := make([]Mark, n)
		marks[n/2] = Skip
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Next(c, marks)
			}
		})
		b.Run(fmt.Sprintf("%d/flaky", n), func(b *testing.B) {
			e := make([]Evidence, n)
			e[n/2].Good, e[n-1].Bad = 1, 2
			for b.Loop() {
				Search{Candidates: c}.Next(e)
			}
		})
	}
}

// Any history with any marks gives one kind of step, the one that a slower and
// simpler reading of the marks gives; and any search comes to its end.
func FuzzNext(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0}, uint8(0))
	f.Add([]byte{0, 3, 0, 1, 0x21, 2, 0x13, 0}, uint8(2))
	f.Add([]byte("0A"), uint8(2)) // a good end that stands alone
	f.Add([]byte("a longer one, with several merges and marks of every kind"), uint8(9))
	f.Fuzz(func(t *testing.T, data []byte, at uint8) {
		if len(data) > 60 {
			data = data[:60]
		}
		c := make([]Candidate, len(data))
		marks := make([]Mark, len(data))
		for i, b := range data { // two bits of mark, three and three of parents' distances
			marks[i] = Mark(b & 3)
			c[i].Inert = b&12 == 8
			for _, d := range []int{int(b >> 2 & 7), int(b >> 5)} {
				if p := i - d; d > 0 && p >= 0 && !slices.Contains(c[i].Parents, p) {
					c[i].Parents = append(c[i].Parents, p)
				}
			}
		}
		step := Next(c, marks)
		kinds := 0
		for _, is := range []bool{step.Test >= 0, step.Culprit >= 0, step.Suspects != nil, step.Conflict != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || step.Why == "" {
			t.Fatalf("%+v", step)
		}
		if len(c) == 0 {
			return
		}
		suspects := slowly(c, marks)
		if step.Left != len(suspects) || step.Suspects != nil && !slices.Equal(step.Suspects, suspects) {
			t.Fatalf("%+v, expected %v", step, suspects)
		}
		if step.Test >= 0 && (!slices.Contains(suspects, step.Test) || marks[step.Test] != Unknown) {
			t.Fatalf("%+v is a useless test", step)
		}

		skipped := make(map[int]bool)
		for i, m := range marks {
			skipped[i] = m == Skip
		}
		culprit := int(at) % len(c)
		answer := answers(c, culprit, skipped)
		if answer[len(c)-1] != Bad && !skipped[len(c)-1] {
			return // the bad end is not built upon the culprit
		}
		skipped[len(c)-1] = false
		if answer = answers(c, culprit, skipped); answer[len(c)-1] != Bad {
			return
		}
		_, last := simulate(t, c, answer)
		if last.Culprit != culprit && !slices.Contains(last.Suspects, culprit) {
			t.Fatalf("%+v does not have %d", last, culprit)
		}
	})
}

// slowly lists the commits that the marks leave as first bad commits, by their
// definition: it is bad in all that are marked bad, and in none marked good.
func slowly(c []Candidate, marks []Mark) []int {
	var suspects []int
	for culprit := range c {
		answer := answers(c, culprit, nil)
		fits := answer[len(c)-1] == Bad && marks[len(c)-1] != Good
		for i, m := range marks {
			fits = fits && (m != Good && m != Bad || m == answer[i])
		}
		if fits {
			suspects = append(suspects, culprit)
		}
	}
	return suspects
}
