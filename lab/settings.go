package lab

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lab/kernel"
	"lab/lab/search"
)

// Settings are bisected where kernel, image and test stay: of each kind that is
// not nil a good and a bad one. What is looked for is the smallest set of the
// differences between the two that makes good bad.
type Settings struct {
	Cmdline *SettingEnds // of the kernel's command line what stands behind Spec.Machine.Cmdline
	// Caps are the container's capabilities, as parseCaps reads them, in the place
	// of those that Spec.Test names.
	Caps *SettingEnds
}

// SettingEnds are the good and the bad setting of one kind, as the user writes them.
type SettingEnds struct{ Good, Bad string }

// A Difference is one thing in which the bad setting is not as the good one.
type Difference struct {
	Kind string `json:"kind"` // cmdline or caps
	Name string `json:"name"`
	Good string `json:"good,omitempty"` // as the good setting has it; empty where it does not
	Bad  string `json:"bad,omitempty"`  // as the bad one has it
}

func (d Difference) String() string {
	switch {
	case d.Good == "":
		return "+" + d.Bad
	case d.Bad == "":
		return "-" + d.Good
	case d.Good == d.Bad:
		return "moved:" + d.Bad
	}
	return d.Good + "->" + d.Bad
}

// A Flip is what a bisect of settings found: Minimal is the smallest set of the
// differences that flips the verdict, where one was found.
type Flip struct {
	Differences []Difference `json:"differences"` // all there are
	Minimal     []Difference `json:"minimal,omitempty"`
	// Unsure are those of Minimal without which the others could not be judged, so
	// that they may be there for no other reason.
	Unsure []Difference `json:"unsure,omitempty"`
	// Needed are those of Minimal that others of it cannot be made without: they may
	// be there for that alone.
	Needed []Difference `json:"needed,omitempty"`
	// With is the test of the good setting with Minimal, made again at the end, and
	// Without that of the bad setting without it: of an answer bad and good.
	With    *Tested `json:"with,omitempty"`
	Without *Tested `json:"without,omitempty"`
}

// A knob is one kind of setting: how good and bad differ in it, and how a
// trial gets it with some of the differences.
type knob struct {
	kind  string
	list  []Difference
	needs map[int][]int // of a difference, by index: those without which it cannot be made
	apply func(s *Spec, has func(i int) bool)
}

// settings is the axis of sets of differences. The bisect knows each set as a
// commit: by a digest of what the trial is then given, and a title that names the
// differences.
type settings struct {
	row
	spec        Spec
	kernel      constant
	knobs       []knob
	differences []Difference // of all knobs, one behind the other
	deltas      []search.Delta
	all         []int
	// try does a trial with a set of differences.
	try func(ctx context.Context, set []int) (Trial, error)
}

// Validate names the first thing that cannot be.
func (s Settings) Validate() error {
	_, err := newSettings(BisectOptions{Settings: &s})
	return err
}

// openSettings finds how the settings differ, and the kernel.
func (l *Lab) openSettings(ctx context.Context, o BisectOptions) (*settings, error) {
	if !o.Spec.needsGuest() {
		return nil, errors.New("settings are bisected by a test in a guest")
	}
	s, err := newSettings(o)
	if err != nil {
		return nil, err
	}
	s.kernel.source, err = l.source(ctx, o.Spec)
	return s, err
}

func newSettings(o BisectOptions) (*settings, error) {
	s := &settings{row: row{what: "setting"}, spec: o.Spec}
	for _, kind := range []struct {
		ends *SettingEnds
		knob func(SettingEnds) (knob, error)
	}{{o.Settings.Cmdline, cmdlineKnob}, {o.Settings.Caps, capsKnob}} {
		if kind.ends == nil {
			continue
		}
		k, err := kind.knob(*kind.ends)
		if err != nil {
			return nil, err
		}
		s.knobs = append(s.knobs, k)
	}
	for _, k := range s.knobs {
		first := len(s.differences)
		s.differences = append(s.differences, k.list...)
		for i, d := range k.list {
			delta := search.Delta{ID: d.String()}
			for n := 2; slices.ContainsFunc(s.deltas, func(o search.Delta) bool { return o.ID == delta.ID }); n++ {
				delta.ID = fmt.Sprintf("%s#%d", d, n)
			}
			for _, n := range k.needs[i] {
				delta.Needs = append(delta.Needs, first+n)
			}
			s.deltas = append(s.deltas, delta)
			s.all = append(s.all, first+i)
		}
	}
	if len(s.deltas) == 0 {
		return nil, errors.New("the good and the bad setting are the same: there is nothing to bisect")
	}
	for _, set := range [][]int{nil, s.all} {
		c := s.commit(set)
		s.add(c.Hash, c.Title)
	}
	s.commits[0].Title, s.commits[1].Title = "the good setting", "the bad setting"
	return s, nil
}

// with gives the spec of a trial with a set of differences.
func (s *settings) with(set []int) Spec {
	spec, first := s.spec, 0
	for _, k := range s.knobs {
		from := first
		k.apply(&spec, func(i int) bool { return slices.Contains(set, from+i) })
		first += len(k.list)
	}
	return spec
}

// commit is how the bisect knows a set.
func (s *settings) commit(set []int) kernel.Commit {
	spec := s.with(set)
	data, err := json.Marshal([]any{spec.Machine.Cmdline, spec.Test.CapAdd, spec.Test.CapDrop, spec.Test.Privileged})
	if err != nil {
		panic(err) // strings can be encoded
	}
	c := kernel.Commit{Hash: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Title: s.title(set)}
	for _, end := range s.commits {
		if end.Hash == c.Hash {
			return end
		}
	}
	return c
}

// title names a set: cmdline -quiet +security=selinux.
func (s *settings) title(set []int) string {
	var words []string
	for _, kind := range s.kinds() {
		ids := s.ids(slices.DeleteFunc(slices.Clone(set), func(i int) bool { return s.differences[i].Kind != kind }))
		if len(ids) == 0 {
			continue
		}
		const most = 8
		if n := len(ids); n > most {
			ids = append(ids[:most:most], fmt.Sprintf("and %d more", n-most))
		}
		words = append(words, kind+" "+strings.Join(ids, " "))
	}
	return oneLine(strings.Join(words, ", "))
}

func (s *settings) kinds() []string {
	var kinds []string
	for _, k := range s.knobs {
		kinds = append(kinds, k.kind)
	}
	return kinds
}

func (s *settings) ids(set []int) []string {
	var ids []string
	for _, i := range set {
		ids = append(ids, s.deltas[i].ID)
	}
	return ids
}

func (s *settings) pick(set []int) []Difference {
	var list []Difference
	for _, i := range set {
		list = append(list, s.differences[i])
	}
	return list
}

// known gives all tests that count, but for those of the answer: what contradicts
// it must not begin another search. A verdict by hand has the set of the test that
// it stands for.
func (s *settings) known(j *journal) []search.SetTest {
	at := make(map[string]int, len(s.deltas))
	for i, d := range s.deltas {
		at[d.ID] = i
	}
	sets := map[string][]int{s.commits[0].Hash: {}, s.commits[1].Hash: s.all}
	for _, e := range j.events {
		if t := e.Tested; t != nil && len(t.Set) > 0 {
			set := make([]int, 0, len(t.Set))
			for _, id := range t.Set {
				if i, ok := at[id]; ok {
					set = append(set, i)
				}
			}
			slices.Sort(set)
			sets[t.Commit.Hash] = set
		}
	}
	var list []search.SetTest
	for _, r := range j.records {
		t := r.Tested
		if t == nil || t.Role == RoleConfirm && !t.ByHand {
			continue
		}
		if set, ok := sets[t.Commit.Hash]; ok {
			list = append(list, search.SetTest{Set: set, Mark: searchMark(t.Mark)})
		}
	}
	return list
}

// sets are those that a bisect of settings has tested, beside its ends: all that
// there could be are in no range.
func (s *Saved) sets() []kernel.Commit {
	var list []kernel.Commit
	for _, e := range s.journal.events {
		if t := e.Tested; t != nil && len(t.Set) > 0 && t.Commit.Hash != s.Bad.Hash &&
			!slices.ContainsFunc(list, func(c kernel.Commit) bool { return c.Hash == t.Commit.Hash }) {
			list = append(list, t.Commit)
		}
	}
	return list
}

// without is the bad setting's set without another one, and without what needs
// any of that.
func (s *settings) without(set []int) []int {
	gone := make([]bool, len(s.deltas))
	for _, i := range set {
		gone[i] = true
	}
	for more := true; more; {
		more = false
		for i, d := range s.deltas {
			if !gone[i] && slices.ContainsFunc(d.Needs, func(n int) bool { return gone[n] }) {
				gone[i], more = true, true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(s.all), func(i int) bool { return gone[i] })
}

func (s *settings) ends(_ context.Context, _ BisectOptions, r *Bisection) ([]kernel.Commit, error) {
	r.Good, r.Bad, r.Range = s.commits[:1], s.commits[1], len(s.deltas)
	r.Flip = &Flip{Differences: s.differences}
	return s.commits[1:], nil
}

func (s *settings) identity() []string {
	return append([]string{"kernel " + s.kernel.name()}, s.ids(s.all)...)
}

// trial gets the one kernel.
func (s *settings) trial(ctx context.Context, _ kernel.Commit) (Trial, error) {
	return s.kernel.trial(ctx)
}

func (s *settings) Close() error {
	s.kernel.Close()
	return nil
}

// trySet does a trial on the guest that all have in common.
func (b *bisection) trySet(ctx context.Context, set []int) (Trial, error) {
	t, err := b.trial(ctx, kernel.Commit{})
	if err != nil || t.End != EndBuilt {
		return t, err
	}
	spec, g := b.settings.with(set), *b.guest
	g.test = spec.Test
	return t, b.try(ctx, spec, &g, &t)
}

// minimize finds the smallest set of differences that flips the verdict, and
// checks it both ways.
func (b *bisection) minimize(ctx context.Context) error {
	s, flip := b.settings, b.result.Flip
	*flip = Flip{Differences: s.differences}
	b.Progress.Say("%s between the good setting and the bad one; checking both first", plural(len(s.deltas), "difference"))
	for n := 0; b.result.Unclear == "" && b.result.Culprit == nil; {
		if err := b.journal.refresh(); err != nil {
			return err
		}
		if b.journal.foreign != b.foreign {
			return errOvertaken
		}
		step := search.Minimize(s.deltas, s.known(b.journal))
		var err error
		switch {
		case step.Test != nil:
			role, c := RoleStep, s.commit(step.Test)
			if slices.ContainsFunc(s.commits, func(end kernel.Commit) bool { return end.Hash == c.Hash }) {
				role = RoleEnd
				b.Progress.Say("%s", c.Title)
			} else {
				n++
				b.Progress.Say("step %d: %s\n  %s; about %s to go", n, c.Title, step.Why, plural(step.Steps+2, "test"))
			}
			_, err = b.testSet(ctx, step.Test, role, step.Left)
		case step.Conflict != nil:
			b.notAnEnd(step)
		default:
			err = b.bothWays(ctx, step)
		}
		if err != nil {
			return err
		}
	}
	return b.end()
}

// testSet gives a set's verdict, from the journal or by a trial.
func (b *bisection) testSet(ctx context.Context, set []int, role string, left int) (Tested, error) {
	s := b.settings
	c := s.commit(set)
	if t := b.journal.tested(c.Hash, role); t != nil {
		b.Progress.Say("  %s, as %s before: %s", t.Mark, told(*t), t.Reason)
		return *t, nil
	}
	if err := b.journal.hold(c.Hash); err != nil {
		return Tested{}, err
	}
	t, err := s.try(ctx, set)
	if err != nil {
		return Tested{}, err
	}
	r := Tested{
		Commit: c, Role: role, Set: s.ids(set), Verdict: Judge(t, b.spec.Symptom), End: t.End, Exit: exitOf(t), Left: left,
		Kernel: t.Kernel.Digest, OnTop: t.Kernel.OnTop, Cached: t.Cached, Build: t.Build, Boot: t.Boot, Test: t.Test,
	}
	if r.Dir, err = b.save(t, c); err != nil {
		return Tested{}, err
	}
	if again, err := b.asked(ctx, t, &r); err != nil {
		return Tested{}, err
	} else if again {
		return b.testSet(ctx, set, role, left)
	}
	return b.record(&r, nil)
}

// notAnEnd says that there is nothing to search, and what was seen.
func (b *bisection) notAnEnd(step search.SetStep) {
	want, end := Good, b.result.Good[0]
	if len(step.Conflict) > 0 {
		want, end = Bad, b.result.Bad
	}
	b.result.Unclear = step.Why
	if t := b.journal.tested(end.Hash, RoleEnd); t != nil {
		b.result.Unclear = fmt.Sprintf("%s is not %s but %s: %s", end.Title, want, t.Mark, t.Reason)
	}
}

// bothWays looks at the answer from both ends: the good setting with the minimal
// set must be bad, again, and the bad one without it good.
func (b *bisection) bothWays(ctx context.Context, step search.SetStep) error {
	s, flip := b.settings, b.result.Flip
	flip.Minimal, flip.Unsure = s.pick(step.Minimal), s.pick(step.Unsure)
	flip.Needed = s.pick(slices.DeleteFunc(slices.Clone(step.Minimal), func(i int) bool {
		return !slices.ContainsFunc(step.Minimal, func(j int) bool { return slices.Contains(s.deltas[j].Needs, i) })
	}))
	title := s.title(step.Minimal)
	b.Progress.Say("the verdict would flip with %s; testing the good setting with it again", title)
	t, err := b.testSet(ctx, step.Minimal, RoleConfirm, len(step.Minimal))
	if err != nil {
		return err
	}
	flip.With = &t
	if t.Mark != Bad {
		b.result.Unclear = fmt.Sprintf("the good setting with %s was bad and is %s when tested again (%s): the test is flaky", title, t.Mark, t.Reason)
		return nil
	}
	rest := s.without(step.Minimal)
	b.Progress.Say("the bad setting without it")
	w := b.journal.tested(s.commit(rest).Hash, RoleStep)
	if w == nil {
		t, err := b.testSet(ctx, rest, RoleConfirm, len(step.Minimal))
		if err != nil {
			return err
		}
		w = &t
	}
	if flip.Without = w; w.Mark != Good {
		b.result.Unclear = fmt.Sprintf("the good setting with %s is bad, but the bad setting without it is not good but %s (%s)", title, w.Mark, w.Reason)
		if w.Mark == Bad {
			b.result.Unclear += ": other differences break it too, or the test is flaky; to find the others, give as the bad setting the one without these"
		}
		return nil
	}
	c := s.commit(step.Minimal)
	c.Title = title
	b.result.Culprit = &c
	return nil
}

// A constant is the one kernel of a bisect over something else, built once.
type constant struct {
	source
	built *Trial
}

// name is that of the kernel, for the bisect's key.
func (k *constant) name() string {
	if k.ready.Digest != "" {
		return k.ready.Digest
	}
	return k.commit.Hash
}

func (k *constant) trial(ctx context.Context) (Trial, error) {
	if k.built == nil {
		t, err := k.source.trial(ctx)
		if err != nil {
			return Trial{}, err
		}
		k.built = &t
	}
	t := *k.built
	k.built.Cached, k.built.Build = true, 0
	return t, nil
}
