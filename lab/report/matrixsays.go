package report

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// A rule is a conjunction: of some axes a choice of their values. Where it holds,
// cells are of one verdict.
type rule struct {
	axes   uint    // a bit for each axis that it speaks of
	values [][]int // of each axis, indexes in order; nil where it is silent
}

func (r rule) holds(c MatrixCell) bool {
	for i, v := range r.values {
		if v != nil && !slices.Contains(v, c.At[i]) {
			return false
		}
	}
	return true
}

// length is how much there is to say of it.
func (r rule) length() (n int) {
	for _, v := range r.values {
		n += len(v)
	}
	return n
}

// subsets are those of so many axes, the smallest first.
func subsets(axes int) []uint {
	list := make([]uint, 1<<axes)
	for i := range list {
		list[i] = uint(i)
	}
	slices.SortStableFunc(list, func(a, b uint) int { return bits.OnesCount(a) - bits.OnesCount(b) })
	return list
}

// only finds the shortest rule that holds for all cells of a verdict, and for no
// cell of the other one. Its values of an axis can be none but those that such
// cells have: so there is one candidate for each set of axes.
func (m Matrix) only(verdict string) (best rule, ok bool) {
	seen := make([][]int, len(m.Axes))
	for _, c := range m.Cells {
		if c.Verdict != verdict {
			continue
		}
		for i, v := range c.At {
			if !slices.Contains(seen[i], v) {
				seen[i] = append(seen[i], v)
			}
		}
	}
	for _, set := range subsets(len(m.Axes)) {
		r := rule{axes: set, values: make([][]int, len(m.Axes))}
		for i := range m.Axes {
			if set>>i&1 == 1 {
				r.values[i] = slices.Sorted(slices.Values(seen[i]))
			}
		}
		wrong := slices.ContainsFunc(m.Cells, func(c MatrixCell) bool { return c.isJudged() && c.Verdict != verdict && r.holds(c) })
		if !wrong && (!ok || r.length() < best.length()) {
			best, ok = r, true
		}
	}
	return best, ok
}

// cover finds rules of one value an axis that hold for all bad cells between them,
// and for no good one: each time one of the fewest axes, which covers most.
func (m Matrix) cover() (rules []rule) {
	left := map[int]bool{}
	for i, c := range m.Cells {
		if c.Verdict == "bad" {
			left[i] = true
		}
	}
	for len(left) > 0 {
		var best rule
		most := 0
		for _, set := range subsets(len(m.Axes)) {
			if most > 0 && bits.OnesCount(set) > bits.OnesCount(best.axes) {
				break
			}
			n, good, of := map[string]int{}, map[string]bool{}, map[string]rule{}
			var keys []string
			for i, c := range m.Cells {
				r := rule{axes: set, values: make([][]int, len(m.Axes))}
				for a := range m.Axes {
					if set>>a&1 == 1 {
						r.values[a] = []int{c.At[a]}
					}
				}
				key := fmt.Sprint(r.values)
				if _, ok := of[key]; !ok {
					of[key], keys = r, append(keys, key)
				}
				if left[i] {
					n[key]++
				}
				good[key] = good[key] || c.Verdict == "good"
			}
			for _, key := range keys {
				if !good[key] && n[key] > most {
					best, most = of[key], n[key]
				}
			}
		}
		rules = append(rules, best)
		for i, c := range m.Cells {
			if best.holds(c) {
				delete(left, i)
			}
		}
	}
	return rules
}

// phrase is a rule in words: on kernel 6.1 with quiet.
func (m Matrix) phrase(r rule) string {
	var words []string
	for i, a := range m.Axes {
		if r.values[i] == nil {
			continue
		}
		var titles []string
		for _, v := range r.values[i] {
			titles = append(titles, a.Values[v].Title)
		}
		words = append(words, fmt.Sprintf(a.Phrase, series(titles, "or")))
	}
	return strings.Join(words, " ")
}

// series is a, b and c.
func series(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// maxRules is how many a sentence has at most.
const maxRules = 3

// explain says in sentences what stands out.
func (m Matrix) explain() []string {
	n, flaky := map[string]int{}, []string(nil)
	for _, c := range m.Cells {
		n[c.Verdict]++
		if c.isFlaky() {
			flaky = append(flaky, fmt.Sprintf("%s (bad in %d of %s)", m.title(c), c.Bad, plural(c.Good+c.Bad, "run")))
		}
	}
	good, bad, skip := n["good"], n["bad"], n["skip"]
	var says []string
	switch {
	case good+bad == 0:
		says = append(says, "no cell could be judged")
	case bad == 0:
		says = append(says, "good in every cell")
	case good == 0:
		says = append(says, "bad in every cell")
	default:
		says = append(says, m.contrast())
	}
	if skip > 0 && good+bad > 0 {
		says[0] += fmt.Sprintf("; %s could not be judged", plural(skip, "cell"))
	}
	if len(flaky) > maxRules {
		flaky = append(flaky[:maxRules:maxRules], fmt.Sprintf("%d more", len(flaky)-maxRules))
	}
	if len(flaky) > 0 {
		says = append(says, "fails at times only: "+series(flaky, "and"))
	}
	return says
}

// contrast says where cells are bad, of which some are and some are not.
func (m Matrix) contrast() string {
	word := "bad"
	r, ok := m.only("bad")
	if g, also := m.only("good"); also && (!ok || g.length() < r.length()) {
		r, ok, word = g, true, "good"
	}
	if ok {
		return word + " only " + m.phrase(r) + m.forEvery(r)
	}
	rules := m.cover()
	var words []string
	for i, r := range rules {
		if i == maxRules {
			words = append(words, fmt.Sprintf("in %s", plural(len(rules)-i, "other case")))
			break
		}
		words = append(words, m.phrase(r))
	}
	return "bad " + strings.Join(words, ", and ")
}

// forEvery names the axes of several values that a rule does not speak of.
func (m Matrix) forEvery(r rule) string {
	var nouns []string
	for i, a := range m.Axes {
		if r.values[i] == nil && len(a.Values) > 1 {
			nouns = append(nouns, a.Noun)
		}
	}
	if len(nouns) == 0 {
		return ""
	}
	return ", on every " + series(nouns, "and")
}
