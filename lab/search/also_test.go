package search

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestAlso(t *testing.T) {
	s := Search{Candidates: line(16), Exact: true}
	var running []int
	for range 3 {
		running = append(running, s.Also(nil, running))
	}
	if want := []int{7, 3, 11}; !slices.Equal(running, want) {
		t.Errorf("a line of 16 is divided at %v, not %v", running, want)
	}
	for _, test := range []struct {
		name    string
		s       Search
		e       []Evidence
		running []int
		want    int
	}{
		{"nothing runs", s, nil, nil, 7},
		{"it is at its end", Search{Candidates: line(2), Exact: true}, []Evidence{{Good: 1}}, nil, -1},
		{"all that tells something runs", Search{Candidates: line(2), Exact: true}, nil, []int{0}, -1},
		{"one is skipped", Search{Candidates: line(3), Exact: true}, []Evidence{{}, {Skip: true}}, []int{0}, -1},
		{"the same once more", Search{Candidates: line(40)}, []Evidence{19: {Good: 6}, 20: {Good: 1}, 21: {Bad: 2}, 39: {Bad: 2}}, []int{20}, 20},
		{"but not too often", Search{Candidates: line(40), MaxRuns: 2}, []Evidence{19: {Good: 2}, 20: {Good: 1}, 21: {Bad: 2}, 39: {Bad: 2}}, []int{20}, 18},
	} {
		if got := test.s.Also(test.e, test.running); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// What is running is in vain when a verdict has come in that says what it will be.
func TestVain(t *testing.T) {
	s := Search{Candidates: line(16), Exact: true}
	running := s.Together(nil, nil, 3)
	if want := []int{7, 3, 11}; !slices.Equal(running, want) {
		t.Fatalf("%v at a time, not %v", running, want)
	}
	for _, test := range []struct {
		name    string
		s       Search
		e       []Evidence
		running []int
		want    []bool
	}{
		{"nothing came in", s, nil, running, []bool{false, false, false}},
		{"the middle is bad", s, []Evidence{7: {Bad: 1}}, []int{3, 11}, []bool{false, true}},
		{"the middle is good", s, []Evidence{7: {Good: 1}}, []int{3, 11}, []bool{true, false}},
		{"the middle is skipped", s, []Evidence{7: {Skip: true}}, []int{3, 11}, []bool{false, false}},
		{"a contradiction", s, []Evidence{7: {Bad: 1}, 8: {Good: 1}}, []int{3}, []bool{false}},
		{"a test that may err", Search{Candidates: line(16)}, []Evidence{7: {Bad: 20}, 15: {Bad: 1}}, []int{3, 11}, []bool{false, true}},
		{"nothing runs", s, nil, nil, []bool{}},
	} {
		if got := test.s.Vain(test.e, test.running); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	if more := s.Together([]Evidence{7: {Bad: 1}}, []int{3}, 3); len(more) != 2 || slices.Contains(more, 3) {
		t.Errorf("beside 3 of the first 8: %v", more)
	}
}

// rounds is how many rounds of so many tests at the same time are needed for
// every culprit together.
func rounds(c []Candidate, jobs int) (sum int) {
	s := Search{Candidates: c, Exact: true}
	var split func(e []Evidence, depth int)
	split = func(e []Evidence, depth int) {
		picks := s.Together(e, nil, jobs)
		if len(picks) == 0 {
			sum += depth
			return
		}
		// The culprits with the same outcomes stay together.
		b := s.believe(append(slices.Clone(e[:len(e)-1]), Evidence{Bad: 1}), true)
		outcomes := map[uint64]bool{}
		of := make([]uint64, len(c))
		for k, p := range picks {
			for i, in := range ancestors(c, p) {
				if in {
					of[i] |= 1 << k
				}
			}
		}
		for i := range c {
			if b.of(i) > 0 {
				outcomes[of[i]] = true
			}
		}
		for bad := range outcomes {
			next := slices.Clone(e)
			for k, p := range picks {
				if bad>>k&1 != 0 {
					next[p].Bad = 1
				} else {
					next[p].Good = 1
				}
			}
			split(next, depth+1)
		}
	}
	split(make([]Evidence, len(c)), 0)
	return sum
}

// N tests at a time divide what is left by N+1, or nearly so: of a history that
// forks, not all parts are as large as others.
func TestRounds(t *testing.T) {
	for _, name := range []string{"desk", "storable"} {
		c := readGraph(t, name).candidates()
		for _, jobs := range []int{1, 2, 3, 7} {
			mean := float64(rounds(c, jobs)) / float64(len(c))
			ideal := math.Log(float64(len(c))) / math.Log(float64(jobs+1))
			if mean > ideal+.6 {
				t.Errorf("%s, %d at a time: %.2f rounds, of %.2f", name, jobs, mean, ideal)
			}
		}
	}
}

// BenchmarkRounds prints the table of rounds:
//
//	go test -run - -bench Rounds -benchtime 1x ./lab/search
func BenchmarkRounds(b *testing.B) {
	for b.Loop() {
		for _, name := range graphs {
			c := readGraph(b, name).candidates()
			row := fmt.Sprintf("| %s | %d |", name, len(c))
			for _, jobs := range []int{1, 2, 3, 7} {
				mean := float64(rounds(c, jobs)) / float64(len(c))
				row += fmt.Sprintf(" %.2f (%.2f) |", mean, math.Log(float64(len(c)))/math.Log(float64(jobs+1)))
			}
			fmt.Println(row)
		}
	}
}

// With three tests at a time, the right commit is found in half the time.
func TestThreeAtATime(t *testing.T) {
	c := readGraph(t, "go-git").candidates()
	for _, rate := range []float64{1, .5} {
		rounds, alone, right, searches := 0, 0, 0, 0
		for culprit := 0; culprit < len(c); culprit += 20 {
			s := Search{Candidates: c, Exact: rate == 1}
			for _, jobs := range []int{1, 3} {
				f := newFlaky(c, culprit, rate, rand.New(rand.NewPCG(uint64(culprit), 16)))
				e := make([]Evidence, len(c))
				e[len(c)-1].Bad = 1
				for n := 0; ; n++ {
					if step := s.Next(e); step.Test < 0 {
						if jobs == 1 {
							alone += n
						} else if rounds += n; step.Culprit == culprit {
							right++
						}
						break
					}
					var running []int
					for range jobs {
						if i := s.Also(e, running); i >= 0 {
							running = append(running, i)
						}
					}
					for _, i := range running {
						if f.run(i) {
							e[i].Bad++
						} else {
							e[i].Good++
						}
					}
				}
			}
			searches++
		}
		t.Logf("%v %%: %d of %d right; %.1f rounds on average, one at a time %.1f", rate*100, right, searches, float64(rounds)/float64(searches), float64(alone)/float64(searches))
		if right < searches*9/10 || float64(rounds) > .6*float64(alone) {
			t.Errorf("%v %%: %d of %d right, %d rounds, one at a time %d", rate*100, right, searches, rounds, alone)
		}
	}
}
