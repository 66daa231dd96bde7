package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/lab/search"
)

// minimize finds the smallest set of differences that flips the verdict, and
// checks it both ways.
func (b *bisection) minimize(ctx context.Context) error {
	s, flip := b.settings, b.result.Flip
	*flip = Flip{Differences: s.differences}
	good, bad := s.commits[0].Title, s.commits[1].Title
	b.Progress.Say("%s between %s and %s; checking both first", plural(len(s.deltas), s.unit()), good, bad)
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
	return b.end(ctx)
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
		Commit: c, Role: role, Set: s.ids(set), Left: left, Along: alongside(t.Drift),
		Kernel: t.Kernel.Digest, OnTop: t.Kernel.OnTop, Cached: t.Cached, Build: t.Build,
	}
	if same := b.sameSet(t, set, role); same != nil {
		r.Verdict, r.End, r.Exit, r.Inferred = same.Verdict, same.End, same.Exit, same.Commit.Hash
		return r, b.record(&r)
	}
	if t.End == EndBuilt && b.spec.needsGuest() {
		made, g := s.with(set), *b.guest
		g.test = made.Test
		if err := b.tryOn(ctx, made.Spec, &g, &t); err != nil {
			return Tested{}, err
		}
	}
	r.Verdict, r.End, r.Exit, r.Boot, r.Test = b.judge(t), t.End, exitOf(t), t.Boot, t.Test
	if r.Dir, err = b.save(t, c); err != nil {
		return Tested{}, err
	}
	if again, err := b.asked(ctx, t, &r); err != nil {
		return Tested{}, err
	} else if again {
		return b.testSet(ctx, set, role, left)
	}
	return r, b.record(&r)
}

// sameSet finds an earlier test of a kernel with the same bytes, and all else the
// same, of another set: one that Kconfig makes the same of, or that differs from it
// in nothing that is compiled.
func (b *bisection) sameSet(t Trial, set []int, role string) *Tested {
	s := b.settings
	if !s.builds() || own(role) != "" || t.End != EndBuilt {
		return nil
	}
	around := func(set []int) string {
		data, err := json.Marshal(s.with(set).around())
		if err != nil {
			panic(err) // strings can be encoded
		}
		return string(data)
	}
	for _, old := range b.journal.records {
		if o := old.Tested; o != nil && o.Kernel == t.Kernel.Digest && o.Inferred == "" && around(s.set(o.Set)) == around(set) {
			return o
		}
	}
	return nil
}

// alongside names what came along with a set, and how much more.
func alongside(along []kconfig.Change) []string {
	const most = 50
	var list []string
	for i, c := range along {
		if i == most {
			return append(list, fmt.Sprintf("%d more", len(along)-most))
		}
		list = append(list, c.String())
	}
	return list
}

// notAnEnd says that there is nothing to search, and what was seen.
func (b *bisection) notAnEnd(step search.SetStep) {
	want, end := Good, b.result.Good[0]
	if len(step.Conflict) > 0 {
		want, end = Bad, b.result.Bad
	}
	b.result.Unclear = step.Why
	if t := b.journal.tested(end.Hash, RoleEnd); t != nil {
		b.result.Unclear = fmt.Sprintf("%s is not %s but %s: %s", end.Title, b.called(want), b.called(t.Mark), t.Reason)
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
	b.Progress.Say("the verdict would flip with %s; testing %s with it again", title, s.commits[0].Title)
	t, err := b.testSet(ctx, step.Minimal, RoleConfirm, len(step.Minimal))
	if err != nil {
		return err
	}
	flip.With = &t
	if t.Mark != Bad {
		b.result.Unclear = fmt.Sprintf("%s with %s was %s and is %s when tested again (%s): the test is flaky", s.commits[0].Title, title, b.called(Bad), b.called(t.Mark), t.Reason)
		return nil
	}
	rest := s.without(step.Minimal)
	b.Progress.Say("%s without it", s.commits[1].Title)
	w := b.journal.tested(s.commit(rest).Hash, RoleStep)
	if w == nil {
		t, err := b.testSet(ctx, rest, RoleConfirm, len(step.Minimal))
		if err != nil {
			return err
		}
		w = &t
	}
	if flip.Without = w; w.Mark != Good {
		b.result.Unclear = fmt.Sprintf("%s with %s is %s, but %s without it is not %s but %s (%s)", s.commits[0].Title, title, b.called(Bad), s.commits[1].Title, b.called(Good), b.called(w.Mark), w.Reason)
		if w.Mark == Bad {
			b.result.Unclear += ": other differences break it too, or the test is flaky"
			if s.what == "setting" {
				b.result.Unclear += "; to find the others, give as the bad setting the one without these"
			}
		}
		return nil
	}
	c := s.commit(step.Minimal)
	c.Title = title
	b.result.Culprit = &c
	return nil
}
