package search

import (
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
