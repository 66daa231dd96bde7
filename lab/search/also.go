package search

import "slices"

// unlikely is how improbable a set of outcomes has to be to be left out.
const unlikely = 1e-3

// Also chooses what to run beside candidates that are running already, or -1
// when the search is at its end or nothing more would be told. What it picks
// tells most whatever becomes of the others: what is expected of it, for each
// way in which the others may end, weighed by how likely that is. So N tests of
// a line at the same time divide it by N+1.
//
// It takes a choice of its own for each way in which the others may end: in an
// exact search some len(running)+1, in another one up to 2^len(running).
func (s Search) Also(evidence []Evidence, running []int) int {
	step := s.Next(evidence)
	if step.Test < 0 || len(running) == 0 {
		return step.Test
	}
	e := make([]Evidence, len(s.Candidates))
	copy(e, evidence)
	if s.Exact {
		e[len(e)-1].Bad = 1
	}
	b := s.believe(e, s.Exact)
	chance := b.chances(e)
	told := make([]float64, len(e))
	s.foresee(e, running, 1, told)
	best, bestScore := -1, 1e-9 // less is nothing but the error of the sums
	for i, bits := range told {
		if e[i].Skip || s.MaxRuns > 0 && e[i].runs()+count(running, i) >= s.MaxRuns || s.Exact && b.of(i) == 0 {
			continue
		}
		if score := bits * chance[i] / s.cost(i); score > bestScore*(1+alike) {
			best, bestScore = i, score
		}
	}
	return best
}

// foresee adds up what each candidate's run would tell after those that are
// running have ended, for each way in which they may.
func (s Search) foresee(e []Evidence, running []int, probability float64, told []float64) {
	b := s.believe(e, s.Exact)
	bits, bad := b.told()
	if len(running) == 0 {
		for i, t := range bits {
			told[i] += probability * t
		}
		return
	}
	r := running[0]
	if p := probability * bad[r]; p >= unlikely {
		e[r].Bad++
		s.foresee(e, running[1:], p, told)
		e[r].Bad--
	}
	if p := probability * (1 - bad[r]); p >= unlikely {
		e[r].Good++
		s.foresee(e, running[1:], p, told)
		e[r].Good--
	}
}

func count(list []int, i int) int {
	return len(slices.DeleteFunc(slices.Clone(list), func(j int) bool { return j != i }))
}

// Together chooses what to run at the same time, n at most, beside what is
// running: each tells most whatever becomes of those before it.
func (s Search) Together(evidence []Evidence, running []int, n int) []int {
	picks := slices.Clone(running)
	for len(picks) < n {
		i := s.Also(evidence, picks)
		if i < 0 {
			break
		}
		picks = append(picks, i)
	}
	return picks[min(len(running), len(picks)):]
}

// little is which part of what the best run tells is too little to go on with a
// run that was begun when it told more.
const little = 1. / 20

// Vain tells of what is running whether it says next to nothing any more, by the
// evidence that has come in since it was begun.
func (s Search) Vain(evidence []Evidence, running []int) []bool {
	vain := make([]bool, len(running))
	if len(running) == 0 {
		return vain
	}
	e := make([]Evidence, len(s.Candidates))
	copy(e, evidence)
	if s.Exact {
		e[len(e)-1].Bad = 1
	}
	b := s.believe(e, s.Exact)
	if len(b.each) == 0 {
		return vain // the evidence contradicts itself
	}
	bits, _ := b.told()
	most := slices.Max(bits)
	for k, i := range running {
		vain[k] = bits[i] <= max(most*little, 1e-12)
	}
	return vain
}
