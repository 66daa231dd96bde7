package search

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func deltas(n int) []Delta {
	d := make([]Delta, n)
	for i := range d {
		d[i].ID = fmt.Sprintf("d%d", i)
	}
	return d
}

// minimize searches with Minimize, what is known in any order, and with what a
// search must keep to.
func minimize(t testing.TB, d []Delta, judge func(set []int) Mark) (known []SetTest, last SetStep) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(14, 14))
	seen := map[string]bool{}
	for {
		step := Minimize(d, known)
		shuffled := slices.Clone(known)
		rnd.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Minimize(d, shuffled); !reflect.DeepEqual(again, step) {
			t.Fatalf("%+v, but in another order %+v", step, again)
		}
		kinds := 0
		for _, is := range []bool{step.Test != nil, step.Minimal != nil, step.Conflict != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || step.Why == "" {
			t.Fatalf("%+v", step)
		}
		if step.Test == nil {
			return known, step
		}
		if name := fmt.Sprint(step.Test); seen[name] {
			t.Fatalf("%v is tested again", step.Test)
		} else {
			seen[name] = true
		}
		for _, i := range step.Test {
			for _, n := range d[i].Needs {
				if !slices.Contains(step.Test, n) {
					t.Fatalf("%v has %d, but not %d, which that needs", step.Test, i, n)
				}
			}
		}
		if n := len(d); len(known) > n*n+3*n+2 {
			t.Fatalf("%d tests of %d deltas", len(known), n)
		}
		known = append(known, SetTest{step.Test, judge(step.Test)})
	}
}

// all is bad with all of some deltas.
func allOf(culprits []int) func([]int) Mark {
	return func(set []int) Mark {
		for _, c := range culprits {
			if _, in := slices.BinarySearch(set, c); !in {
				return Good
			}
		}
		return Bad
	}
}

// Whatever deltas are to blame together, they are found, in few tests: one by
// one, n deltas take n tests.
func TestMinimizeFindsAll(t *testing.T) {
	rnd := rand.New(rand.NewPCG(15, 15))
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		for _, culprits := range []int{1, 2, 3, 5} {
			if culprits > n {
				continue
			}
			total, most, runs := 0, 0, 6
			for range runs {
				want := rnd.Perm(n)[:culprits]
				slices.Sort(want)
				known, last := minimize(t, deltas(n), allOf(want))
				if !slices.Equal(last.Minimal, want) || last.Unsure != nil {
					t.Fatalf("%+v, want %v", last, want)
				}
				total, most = total+len(known), max(most, len(known))
			}
			mean := float64(total) / float64(runs)
			t.Logf("%4d deltas, %d to blame: %.1f tests, %d at most", n, culprits, mean, most)
			if culprits == 1 && most > expect(n)+3 || n >= 100 && mean > float64(n)/2 {
				t.Errorf("%d deltas, %d to blame: %.1f tests, %d at most", n, culprits, mean, most)
			}
		}
	}
}

// Whatever the sets do, the answer is bad, and not known to be without any one
// delta and those that need it.
func FuzzMinimize(f *testing.F) {
	f.Add(uint8(5), []byte{1, 2, 3}, []byte{7, 8, 9, 10})
	f.Add(uint8(9), []byte("needs"), []byte("verdicts of sets"))
	f.Add(uint8(0), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, n uint8, needs, marks []byte) {
		d := deltas(int(n % 10))
		for i, b := range needs {
			if i < len(d) && int(b) < 2*len(d) {
				d[i].Needs = []int{int(b) % len(d)}
			}
		}
		judge := func(set []int) Mark {
			switch len(set) {
			case 0:
				return Good
			case len(d):
				return Bad
			}
			at := 0
			for _, i := range set {
				at |= 1 << i
			}
			if len(marks) == 0 {
				return Skip
			}
			return Mark(marks[at%len(marks)]%3) + 1
		}
		known, last := minimize(t, d, judge)
		if len(d) == 0 {
			if last.Conflict == nil {
				t.Fatalf("%+v", last)
			}
			return
		}
		if judge(last.Minimal) != Bad {
			t.Fatalf("%v is not bad", last.Minimal)
		}
		for _, gone := range last.Minimal {
			without := map[int]bool{gone: true}
			for range d { // all that need it
				for i := range d {
					for _, n := range d[i].Needs {
						without[i] = without[i] || without[n]
					}
				}
			}
			var rest []int
			for _, i := range last.Minimal {
				if !without[i] {
					rest = append(rest, i)
				}
			}
			if judge(rest) == Bad {
				t.Fatalf("%v is bad without %d too", last.Minimal, gone)
			}
			if slices.Contains(last.Unsure, gone) != (judge(rest) == Skip) {
				t.Fatalf("%v: %d is unsure or not", last, gone)
			}
			if len(rest) > 0 && !slices.ContainsFunc(known, func(k SetTest) bool { return slices.Equal(k.Set, rest) }) {
				t.Fatalf("%v was never tested without %d", last.Minimal, gone)
			}
		}
	})
}

func TestMinimize(t *testing.T) {
	needs := deltas(4)
	needs[3].Needs = []int{0}
	group := deltas(4)
	group[0].Needs, group[3].Needs = []int{3}, []int{0}
	ends := []SetTest{{nil, Good}, {[]int{0, 1, 2, 3}, Bad}}
	for _, test := range []struct {
		name  string
		d     []Delta
		known []SetTest
		want  SetStep
	}{
		{"the good end", deltas(4), nil, SetStep{Test: []int{}, Left: 4, Steps: 3, Why: "checks what is good, with none of the differences"}},
		{"the bad end", deltas(4), ends[:1], SetStep{Test: []int{0, 1, 2, 3}, Left: 4, Steps: 3, Why: "checks what is bad, with all of the differences"}},
		{"the good end is bad", deltas(4), []SetTest{{nil, Bad}}, SetStep{Conflict: []int{}, Left: 4, Why: "what is good, with none of the differences, is not good but bad"}},
		{"the bad end cannot be judged", deltas(1), []SetTest{{nil, Good}, {[]int{0}, Skip}}, SetStep{Conflict: []int{0}, Left: 1, Why: "what is bad, with all of the differences, is not bad but skip"}},
		{"the first half", deltas(4), ends, SetStep{Test: []int{0, 1}, Left: 4, Steps: 3, Why: "tries 2 of 4 differences left"}},
		{"the first half is good", deltas(4), append([]SetTest{{[]int{0, 1}, Good}}, ends...), SetStep{Test: []int{2, 3}, Left: 4, Steps: 3, Why: "tries 2 of 4 differences left"}},
		{"both halves are good", deltas(4), append([]SetTest{{[]int{0, 1}, Good}, {[]int{2, 3}, Good}}, ends...),
			SetStep{Test: []int{1, 2, 3}, Left: 4, Steps: 3, Why: "does without d0, one of 4 differences left"}},
		{"a half cannot be judged", deltas(4), append([]SetTest{{[]int{0, 1}, Skip}, {[]int{2, 3}, Good}}, ends...),
			SetStep{Test: []int{0}, Left: 4, Steps: 7, Why: "tries 1 of 4 differences left: neither half alone was bad"}},
		{"what a half needs", needs, append([]SetTest{{[]int{0, 1}, Good}}, ends...), SetStep{Test: []int{0, 2, 3}, Left: 4, Steps: 3, Why: "tries 3 of 4 differences left"}},
		{"a group", group, ends, SetStep{Test: []int{0, 1, 3}, Left: 4, Steps: 3, Why: "tries 3 of 4 differences left"}},
		{"found", deltas(4), append([]SetTest{{[]int{0, 1}, Bad}, {[]int{0}, Good}, {[]int{1}, Bad}}, ends...), SetStep{Minimal: []int{1}, Left: 1, Why: "bad with 1 difference, and with none of them less"}},
		{"unsure", deltas(2), []SetTest{{nil, Good}, {[]int{0, 1}, Bad}, {[]int{0}, Skip}, {[]int{1}, Good}}, SetStep{Minimal: []int{0, 1}, Unsure: []int{1}, Left: 2, Why: "bad with 2 differences; without 1 of them it cannot be judged"}},
		{"the later counts", deltas(1), []SetTest{{nil, Bad}, {nil, Good}, {[]int{0}, Bad}, {[]int{7}, Bad}}, SetStep{Minimal: []int{0}, Left: 1, Why: "bad with 1 difference, and with none of them less"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Minimize(test.d, test.known); !reflect.DeepEqual(got, test.want) {
				t.Errorf("\ngot  %+v\nwant %+v", got, test.want)
			}
		})
	}
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "delta 0 needs 9, which is none") {
			t.Errorf("%v", r)
		}
	}()
	Minimize([]Delta{{Needs: []int{9}}}, nil)
}
