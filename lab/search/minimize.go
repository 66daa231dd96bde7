package search

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// Delta is one of the differences between what is good and what is bad: a config
// option, a boot option, a capability.
type Delta struct {
	ID string
	// Needs are the indexes of the deltas without which this one has no meaning
	// or cannot be made. Deltas that need each other are a group: they are made
	// together or not at all.
	Needs []int
}

// SetTest is a set of deltas, made all at once on what is good, and what became
// of it: Good, Bad, or Skip where it cannot be judged.
type SetTest struct {
	Set  []int // ascending
	Mark Mark
}

// SetStep is what to do next. Exactly one of Test, Minimal and Conflict is not
// nil, but all can be empty.
type SetStep struct {
	Test     []int // test this set
	Minimal  []int // finished: this set is bad, and with any one delta less it is not known to be
	Conflict []int // the empty set is not good, or the set of all deltas is not bad: this one

	// Unsure are those of Minimal without which the rest could not be judged, so
	// that they may be in it for no other reason.
	Unsure []int
	Left   int    // deltas that are not ruled out
	Steps  int    // tests to expect after this one, if one delta is to blame
	Why    string // one plain sentence for people
}

// Minimize finds a smallest set of deltas that makes what is good bad, by delta
// debugging: halves, then quarters and so on of what is left are tried, and what
// is bad without a part is searched on without it (the algorithm ddmin of Zeller
// and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).
// The answer is 1-minimal: without any one of its deltas, and those that need
// it, it is good or cannot be judged.
//
// It is pure, as Next is: given what is known, in any order, it says what to
// test next. A set is never tested twice; of two results of one set the later
// counts. n deltas take at most n*n+3n tests, and about twice the binary
// logarithm of n where one delta is to blame. Two things are not as in the
// paper: sets are made whole by what their deltas need, and parts that are in a
// set which was good are not tried by themselves, for it would be odd if they
// were bad.
func Minimize(deltas []Delta, known []SetTest) SetStep {
	m := minimizer{deltas: deltas, marks: make(map[string]Mark, len(known))}
	m.needed = make([][]int, len(deltas))
	for i, d := range deltas {
		for _, n := range d.Needs {
			if n < 0 || n >= len(deltas) {
				panic(fmt.Sprintf("search: delta %d needs %d, which is none", i, n))
			}
			m.needed[n] = append(m.needed[n], i)
		}
	}
	for _, k := range known {
		if set, ok := m.set(k.Set); ok {
			m.marks[set.key()] = k.Mark
		}
	}
	for _, k := range known {
		if set, ok := m.set(k.Set); ok && m.marks[set.key()] == Good {
			m.good = append(m.good, set)
		}
	}
	return m.run()
}

// deltaSet has a bit for each delta.
type deltaSet []uint64

func (s deltaSet) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s deltaSet) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }

func (s deltaSet) key() string {
	b := make([]byte, 0, len(s)*8)
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return string(b)
}

// within says whether all of s is in other.
func (s deltaSet) within(other deltaSet) bool {
	for i, w := range s {
		if w&^other[i] != 0 {
			return false
		}
	}
	return true
}

func (s deltaSet) list() []int {
	list := []int{}
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			list = append(list, i*64+bits.TrailingZeros64(w))
		}
	}
	return list
}

// minimizer does all that is known, from the start, up to a test that is not.
type minimizer struct {
	deltas []Delta
	needed [][]int // of a delta: those that need it
	marks  map[string]Mark
	good   []deltaSet
	ask    deltaSet // the set that has to be tested first
	from   int      // of the parts to do without, those from this delta on come first
}

func (m *minimizer) set(list []int) (deltaSet, bool) {
	s := make(deltaSet, (len(m.deltas)+63)/64)
	for _, i := range list {
		if i < 0 || i >= len(m.deltas) {
			return nil, false
		}
		s.add(i)
	}
	return s, true
}

// mark is what is known of a set; where nothing is, that has to be asked for.
func (m *minimizer) mark(s deltaSet) (Mark, bool) {
	mark := m.marks[s.key()]
	if mark == Unknown {
		m.ask = s
	}
	return mark, mark != Unknown
}

// spread adds to some deltas all that edges lead to, within a set.
func (m *minimizer) spread(from []int, within deltaSet, edges func(int) []int) deltaSet {
	s, _ := m.set(from)
	queue := slices.Clone(from)
	for len(queue) > 0 {
		i := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, j := range edges(i) {
			if within.has(j) && !s.has(j) {
				s.add(j)
				queue = append(queue, j)
			}
		}
	}
	return s
}

// alone is a part of a set with all that it needs.
func (m *minimizer) alone(part []int, in deltaSet) deltaSet {
	return m.spread(part, in, func(i int) []int { return m.deltas[i].Needs })
}

// without is a set less a part of it and all that needs that.
func (m *minimizer) without(part []int, in deltaSet) deltaSet {
	gone := m.spread(part, in, func(i int) []int { return m.needed[i] })
	rest := slices.Clone(in)
	for i := range rest {
		rest[i] &^= gone[i]
	}
	return rest
}

func (m *minimizer) run() SetStep {
	none, _ := m.set(nil)
	all := slices.Clone(none)
	for i := range m.deltas {
		all.add(i)
	}
	for _, end := range []struct {
		set  deltaSet
		want Mark
		what string
	}{{none, Good, "what is good, with none of the differences"}, {all, Bad, "what is bad, with all of the differences"}} {
		mark, known := m.mark(end.set)
		if !known {
			return SetStep{Test: end.set.list(), Left: len(m.deltas), Steps: expect(len(m.deltas)), Why: "checks " + end.what}
		}
		if mark != end.want {
			return SetStep{Conflict: end.set.list(), Left: len(m.deltas), Why: fmt.Sprintf("%s, is not %s but %s", end.what, end.want, mark)}
		}
	}
	left, parts := all, 2
	for {
		list := left.list()
		parts = min(parts, len(list))
		smaller, isPart, known := m.reduce(left, list, parts)
		switch {
		case !known:
			return m.step(list, parts, isPart)
		case smaller != nil:
			left, parts = smaller, max(parts-1, 2)
			if isPart {
				parts = 2
			}
		case parts < len(list):
			parts *= 2
		default:
			return m.answer(left, list)
		}
	}
}

// reduce looks for a part that is bad alone, and then for one without which the
// rest is; nil when there is none.
func (m *minimizer) reduce(left deltaSet, list []int, parts int) (smaller deltaSet, isPart, known bool) {
	for k := range parts {
		part := m.alone(list[k*len(list)/parts:(k+1)*len(list)/parts], left)
		if left.within(part) || parts > 2 && slices.ContainsFunc(m.good, part.within) {
			continue
		}
		mark, known := m.mark(part)
		if !known || mark == Bad {
			return part, true, known
		}
	}
	start := 0
	for start < parts && list[start*len(list)/parts] < m.from {
		start++
	}
	for k := range parts {
		k = (start + k) % parts
		end := (k + 1) * len(list) / parts
		rest := m.without(list[k*len(list)/parts:end], left)
		if parts < len(list) && slices.ContainsFunc(m.good, rest.within) {
			continue // at the end, when each part is one delta, all are tried
		}
		mark, known := m.mark(rest)
		if !known || mark == Bad {
			m.from = list[end-1] + 1
			return rest, false, known
		}
	}
	return nil, false, true
}

func (m *minimizer) step(list []int, parts int, isPart bool) SetStep {
	test := m.ask.list()
	s := SetStep{Test: test, Left: len(list), Steps: expect(len(list))}
	of := plural(len(list), "difference")
	switch {
	case parts == 2 && len(list) > 2:
		s.Why = fmt.Sprintf("tries %d of %s left", len(test), of)
	case isPart:
		s.Steps += parts
		s.Why = fmt.Sprintf("tries %d of %s left: neither half alone was bad", len(test), of)
	case parts < len(list):
		s.Steps += parts
		s.Why = fmt.Sprintf("does without %d of %s left: neither half alone was bad", len(list)-len(test), of)
	default:
		s.Steps = len(list) - 1
		gone := slices.IndexFunc(list, func(i int) bool { return !m.ask.has(i) })
		s.Why = fmt.Sprintf("does without %s, one of %s left", m.deltas[list[gone]].ID, of)
	}
	return s
}

// answer names the deltas without which nothing could be judged.
func (m *minimizer) answer(left deltaSet, list []int) SetStep {
	s := SetStep{Minimal: list, Left: len(list)}
	for _, i := range list {
		if m.marks[m.without([]int{i}, left).key()] == Skip {
			s.Unsure = append(s.Unsure, i)
		}
	}
	s.Why = fmt.Sprintf("bad with %s, and with none of them less", plural(len(list), "difference"))
	if len(s.Unsure) > 0 {
		s.Why = fmt.Sprintf("bad with %s; without %d of them it cannot be judged", plural(len(list), "difference"), len(s.Unsure))
	}
	return s
}

// expect is how many tests one delta among n takes: two for each halving at most.
func expect(n int) int {
	if n < 2 {
		return 0
	}
	return 2*bits.Len(uint(n-1)) - 1
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
