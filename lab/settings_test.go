package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lab/probe"
)

// fakeSettings bisects two settings, by themselves command lines, whose trials are made up: verdict says
// whether a set, by the names of its differences, makes the test fail.
type fakeSettings struct {
	t        *testing.T
	good     string
	bad      string
	needs    map[int][]int // of a difference, by number
	verdict  func(names []string, run int) Mark
	dir      string
	runs     []string // the sets that were tried
	killedAt int      // the run before which it is killed; 0 for none
}

// asWritten are settings that need not be resolved.
func asWritten(t *testing.T, of Settings) *settings {
	t.Helper()
	knobs, err := of.knobs()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSettings(Spec{}, knobs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var errKill = errors.New("killed")

// bisect begins, or goes on.
func (f *fakeSettings) bisect() (Bisection, error) {
	f.t.Helper()
	if f.dir == "" {
		f.dir = f.t.TempDir()
	}
	o := BisectOptions{Settings: &Settings{Cmdline: &SettingEnds{f.good, f.bad}}, Spec: Spec{Symptom: Symptom{Kind: SymptomTest}}}
	s := asWritten(f.t, *o.Settings)
	for i, n := range f.needs {
		s.deltas[i].Needs = n
	}
	b := newBisection(testLab(f.t), o)
	b.axis, b.settings = s, s
	var err error
	if b.commits, err = s.ends(f.t.Context(), o, &b.result); err != nil {
		f.t.Fatal(err)
	}
	runs := map[string]int{}
	s.try = func(_ context.Context, set []int) (Trial, error) {
		ids := s.ids(set)
		name := strings.Join(ids, " ")
		if f.killedAt > 0 && len(f.runs)+1 == f.killedAt {
			return Trial{}, errKill
		}
		for _, r := range f.runs {
			if r == name {
				runs[name]++
			}
		}
		f.runs = append(f.runs, name)
		switch f.verdict(ids, runs[name]) {
		case Skip:
			return Trial{End: EndBoot, Detail: "it hangs"}, nil
		case Bad:
			return Trial{End: EndTest, Result: probe.Result{Exit: 1}}, nil
		}
		return Trial{End: EndTest}, nil
	}
	if b.journal, err = openJournal(f.t.Context(), f.dir); err != nil {
		f.t.Fatal(err)
	}
	defer b.journal.Close()
	if len(b.journal.events) == 0 {
		begun, err := b.begun(o)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := keepRange(f.dir, b.commits); err != nil {
			f.t.Fatal(err)
		}
		if err := b.journal.add(record{Event: eventStart, Format: journalFormat, Key: "x", Begun: begun}); err != nil {
			f.t.Fatal(err)
		}
	}
	err = b.hunt(f.t.Context(), b.commits)
	return b.result, err
}

// failsWith makes up a test that fails with all of some options.
func failsWith(names ...string) func([]string, int) Mark {
	return func(set []string, _ int) Mark {
		for _, n := range names {
			if !slices.Contains(set, n) {
				return Good
			}
		}
		return Bad
	}
}

func minimal(b Bisection) string {
	var list []string
	for _, d := range b.Flip.Minimal {
		list = append(list, d.String())
	}
	return strings.Join(list, " ")
}

func TestSettingsFindTheSet(t *testing.T) {
	for _, want := range []string{"+a", "-y", "x=1->x=2 +d", "-y +b +e"} {
		f := fakeSettings{t: t, good: "x=1 y z", bad: "x=2 z a b c d e", verdict: failsWith(strings.Fields(want)...)}
		b, err := f.bisect()
		if err != nil {
			t.Fatal(err)
		}
		if minimal(b) != want || b.Culprit == nil || b.Culprit.Title != "cmdline "+want || b.Unclear != "" {
			t.Errorf("want %s, found %s, %s", want, minimal(b), b.Unclear)
		}
		if b.Flip.With.Mark != Bad || b.Flip.Without.Mark != Good {
			t.Errorf("%s: with it %+v, without %+v", want, b.Flip.With, b.Flip.Without)
		}
		for i, r := range f.runs {
			if slices.Contains(f.runs[:i], r) && r != want {
				t.Errorf("%s: %q was tried twice: %q", want, r, f.runs)
			}
		}
		st, err := savedStatus(f.dir)
		if err != nil || st.Culprit == nil || st.Culprit.Title != "cmdline "+want || !st.Ended {
			t.Errorf("%s: the status is %+v, %v", want, st.Culprit, err)
		}
	}
}

func savedStatus(dir string) (Status, error) {
	s, err := OpenSaved(dir)
	if err != nil {
		return Status{}, err
	}
	defer s.Close()
	return s.Status()
}

// Killed before each of its tests in turn, the bisect goes on and tries all that
// one that ran through does, and nothing twice.
func TestSettingsGoOn(t *testing.T) {
	whole := fakeSettings{t: t, good: "x=1 y", bad: "x=2 a b c d", verdict: failsWith("+a", "+d")}
	want, err := whole.bisect()
	if err != nil {
		t.Fatal(err)
	}
	f := fakeSettings{t: t, good: whole.good, bad: whole.bad, verdict: whole.verdict}
	for f.killedAt = 1; f.killedAt <= len(whole.runs); f.killedAt++ {
		if _, err := f.bisect(); !errors.Is(err, errKill) {
			t.Fatalf("run %d: %v", f.killedAt, err)
		}
	}
	for range 2 { // the second time all is on record
		got, err := f.bisect()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(f.runs, whole.runs) || minimal(got) != minimal(want) || got.Culprit == nil {
			t.Errorf("%q, want %q; found %s", f.runs, whole.runs, minimal(got))
		}
	}
}

func TestSettingsUnclear(t *testing.T) {
	either := func(set []string, _ int) Mark {
		if slices.Contains(set, "+a") || slices.Contains(set, "+c") {
			return Bad
		}
		return Good
	}
	flaky := func(set []string, run int) Mark {
		if run > 0 {
			return Good
		}
		return failsWith("+b")(set, run)
	}
	always := func(mark Mark) func([]string, int) Mark { return func([]string, int) Mark { return mark } }
	for _, c := range []struct {
		verdict func([]string, int) Mark
		want    string
		minimal bool
	}{
		{either, "the bad setting without it is not good but bad (exit status 1): other differences break it too", true},
		{flaky, "was bad and is good when tested again (exit status 0): the test is flaky", true},
		{always(Good), "the bad setting is not bad but good: exit status 0", false},
		{always(Bad), "the good setting is not good but bad: exit status 1", false},
		{always(Skip), "the good setting is not good but skip: does not boot: it hangs", false},
	} {
		f := fakeSettings{t: t, bad: "a b c d", verdict: c.verdict}
		for range 2 { // the same is said from the journal
			b, err := f.bisect()
			if err != nil {
				t.Fatal(err)
			}
			if b.Culprit != nil || !strings.Contains(b.Unclear, c.want) || c.minimal != (len(b.Flip.Minimal) > 0) {
				t.Errorf("want %q, got %q, %s", c.want, b.Unclear, minimal(b))
			}
		}
	}
}

// A set that cannot be judged is stepped around, and what is in the answer only
// for that reason is told.
func TestSettingsUnsure(t *testing.T) {
	f := fakeSettings{t: t, bad: "a b c d", verdict: func(set []string, run int) Mark {
		if slices.Contains(set, "+a") && !slices.Contains(set, "+c") {
			return Skip
		}
		return failsWith("+a")(set, run)
	}}
	b, err := f.bisect()
	if err != nil {
		t.Fatal(err)
	}
	if minimal(b) != "+a +c" || fmt.Sprint(b.Flip.Unsure) != "[+c]" || b.Culprit == nil {
		t.Errorf("%s, unsure %v, %s", minimal(b), b.Flip.Unsure, b.Unclear)
	}
}

// What is in the answer because another difference cannot be made without it is told.
func TestSettingsNeeded(t *testing.T) {
	f := fakeSettings{t: t, bad: "a b c", needs: map[int][]int{1: {0}}, verdict: failsWith("+b")}
	b, err := f.bisect()
	if err != nil {
		t.Fatal(err)
	}
	if minimal(b) != "+a +b" || fmt.Sprint(b.Flip.Needed) != "[+a]" || b.Culprit == nil || b.Culprit.Title != "cmdline +a +b" {
		t.Errorf("%s, needed %v, %s", minimal(b), b.Flip.Needed, b.Unclear)
	}
}

// A verdict given by hand from another terminal counts in the place of the test.
func TestSettingsByHand(t *testing.T) {
	f := fakeSettings{t: t, bad: "a b", verdict: failsWith("+a")}
	if _, err := f.bisect(); err != nil {
		t.Fatal(err)
	}
	s, err := EditSaved(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	found, err := testLab(t).Find(t.Context(), s, "cmdline +a")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if _, err := s.Mark([]Tested{{Commit: found[0], Verdict: Verdict{Mark: Good}}}, ""); err != nil {
		t.Fatal(err)
	}
	s.Close()
	b, err := f.bisect()
	if err != nil {
		t.Fatal(err)
	}
	if minimal(b) != "+a +b" {
		t.Errorf("where +a alone is good by hand: %s, %s", minimal(b), b.Unclear)
	}
}
