package search

import (
	"cmp"
	"math"
	"slices"
)

// picked is the candidate to run next, -1 when no run would tell anything.
type picked struct {
	index   int
	bits    float64 // what a run is expected to tell
	instead string  // why another one, that would tell more, was not picked
}

// alike is how little scores may differ to count as equal.
const alike = 1e-8

// choose picks the run that is expected to tell most for its cost, the oldest
// of equals. Of an exact search only the suspects are run; of another one, the
// suspects are those among which something must be told apart still.
func (s Search) choose(b *belief, e []Evidence, suspects []int) picked {
	allowed := make([]bool, len(e))
	barred := false
	for _, i := range suspects {
		allowed[i] = true
	}
	for i := range e {
		may := !e[i].Skip && (s.MaxRuns == 0 || e[i].runs() < s.MaxRuns)
		barred = barred || !may
		allowed[i] = may && (allowed[i] || !b.exact)
	}
	if barred && !b.exact && !b.parts(suspects, allowed) {
		return picked{index: -1}
	}
	chance := b.chances(e)
	pick := picked{index: -1}
	bestScore, most := 0.0, 0.0
	dear := false // another one would tell more, but costs more
	bits, _ := b.told()
	for i, told := range bits {
		if told == 0 || !b.exact && told < 1e-12 {
			continue // the sums of what is not exact are off by so much
		}
		most = max(most, told)
		if !allowed[i] {
			continue
		}
		score := told * chance[i] / s.cost(i)
		if score > bestScore*(1+alike) {
			pick.index, bestScore = i, score
		}
	}
	if pick.index < 0 {
		return pick
	}
	if i := s.endgame(b, e, suspects); i >= 0 {
		pick.index = i
	}
	pick.bits = bits[pick.index]
	if pick.bits >= most*(1-alike) {
		return pick
	}
	for i, told := range bits {
		if told > pick.bits && allowed[i] && told*chance[i] > pick.bits*chance[pick.index] {
			dear = true
		}
	}
	switch {
	case dear:
		pick.instead = "another one would tell more, but costs more; "
	case barred:
		pick.instead = "the middle cannot be tested; next best, "
	}
	return pick
}

// cost is what a run is worth to be spared. In an exact search a kernel is run
// once. In another one it is run again when it is there, so that a build is
// shared by runs to come, of which nobody knows how many: the root of the cost,
// between all of it and none, came out best in simulations with builds of 3, 10
// and 30 times a run.
func (s Search) cost(i int) float64 {
	c := s.Candidates[i].Cost
	if c <= 0 {
		return 1
	}
	if s.Exact {
		return c
	}
	return math.Sqrt(c)
}

// parts says whether a run that is allowed could tell some of the suspects from
// the others.
func (b *belief) parts(suspects []int, allowed []bool) bool {
	is := make([]float64, len(b.prior))
	for _, i := range suspects {
		is[i] = 1
	}
	for i, n := range b.chains.upto(func(i int) [2]float64 { return [2]float64{is[i]} }) {
		if allowed[i] && n[0] > 0 && n[0] < float64(len(suspects)) {
			return true
		}
	}
	return false
}

// suspects lists the commits that have at least a part of the probability of the
// likeliest; all that may be the first bad one when the part is 0.
func (b *belief) suspects(part float64) []int {
	least := 0.0
	for i := range b.prior {
		least = max(least, b.of(i)*part)
	}
	var list []int
	for i := range b.prior {
		if p := b.of(i); p > 0 && p >= least {
			list = append(list, i)
		}
	}
	return list
}

// top lists the likeliest commits, the likeliest first, the older of equals.
func (b *belief) top(n int) []Suspect {
	var list []Suspect
	for i := range b.prior {
		p := b.of(i)
		if p == 0 || len(list) == n && p <= list[n-1].Probability {
			continue
		}
		at := len(list)
		for at > 0 && list[at-1].Probability < p {
			at--
		}
		list = slices.Insert(list, at, Suspect{i, p})
		list = list[:min(n, len(list))]
	}
	return list
}

// holds gives the smallest set of commits that together are as probable as the
// confidence asks, ascending, with all that are as likely as its last; and how
// probable they are.
func (b *belief) holds(confidence float64) ([]int, float64) {
	var list []Suspect
	for i := range b.prior {
		if p := b.of(i); p > 0 {
			list = append(list, Suspect{i, p})
		}
	}
	slices.SortStableFunc(list, func(x, y Suspect) int { return cmp.Compare(y.Probability, x.Probability) })
	var set []int
	sum := 0.0
	for k, s := range list {
		if sum >= confidence && s.Probability < list[k-1].Probability*(1-alike) {
			break
		}
		set = append(set, s.Index)
		sum += s.Probability
	}
	slices.Sort(set)
	return set, min(sum, 1)
}

// uncertainty is how many bits are left to be known of the first bad commit.
func (b *belief) uncertainty() float64 {
	bits := 0.0
	for i := range b.prior {
		if p := b.of(i); p > 0 {
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// chances guesses for every commit the chance that it can be tested: 0 for the
// skipped ones, 1 while there are none among the suspects.
//
// What keeps commits from being built or booted comes in stretches, and nothing
// is known of their length but what was seen of it. So a commit at a distance d
// from the nearest skipped one has a chance of d/(d+l), where l is how far the
// skipped ones stretch: one broken commit is left by a step aside, a long
// stretch by steps that grow. Between skipped commits, with one among the
// ancestors and one among the descendants, each skipped commit halves the
// chance that there is anything but more of them.
//
// One time in five, what keeps commits from being built is nothing of the kind,
// but comes here and there; then the chance is that of all commits so far. Each
// commit that is skipped speaks against it.
//
// A commit that was run before can be run again.
func (b *belief) chances(e []Evidence) []float64 {
	n := len(e)
	chance := make([]float64, n)
	for i := range chance {
		chance[i] = 1
	}
	in := make([]bool, n)
	var skipped []int
	for _, i := range b.suspects(1e-6) {
		in[i] = true
		if e[i].Skip {
			skipped = append(skipped, i)
		}
	}
	if len(skipped) == 0 {
		return chance
	}
	// The suspects' graph alone, in both directions.
	near := make([][]int32, n)
	above, below := make([]bool, n), make([]bool, n) // of a skipped commit, or one itself
	for _, i := range skipped {
		above[i], below[i] = true, true
	}
	for i, is := range in {
		if !is {
			continue
		}
		for _, p := range b.candidates[i].Parents {
			if in[p] {
				near[i] = append(near[i], int32(p))
				near[p] = append(near[p], int32(i))
				above[i] = above[i] || above[p]
			}
		}
	}
	for i := n - 1; i >= 0; i-- {
		for _, p := range b.candidates[i].Parents {
			below[p] = below[p] || below[i] && in[i] && in[p]
		}
	}
	low, high := math.Inf(1), 0.0
	for _, w := range b.chains.below(skipped, in) {
		low, high = min(low, float64(w)), max(high, float64(w))
	}
	length := high - low + 1
	ran := 0
	for i := range e {
		if e[i].runs() > 0 {
			ran++
		}
	}
	apart := math.Pow(float64(ran)/float64(ran+len(skipped)), float64(len(skipped))/3)
	between := math.Ldexp(1, -len(skipped))
	for i, d := range distances(near, skipped) {
		if !in[i] || e[i].runs() > 0 {
			continue
		}
		if d == 0 {
			chance[i] = 0
			continue
		}
		c := float64(d) / (float64(d) + length)
		if above[i] && below[i] {
			c = between
		}
		chance[i] = .8*c + .2*apart
	}
	return chance
}

// distances measures every commit's distance in edges, either way, to the
// nearest of some; len(near) when no path leads there.
func distances(near [][]int32, from []int) []int {
	distance := make([]int, len(near))
	for i := range distance {
		distance[i] = len(near)
	}
	queue := slices.Clone(from)
	for _, s := range from {
		distance[s] = 0
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range near[i] {
			if distance[j] == len(near) {
				distance[j] = distance[i] + 1
				queue = append(queue, int(j))
			}
		}
	}
	return distance
}
