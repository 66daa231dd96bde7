package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lab/kernel"
)

// told says how a verdict was found.
func told(t Tested) string {
	if t.ByHand {
		return "said by hand"
	}
	return "tested"
}

// Evidence are the verdicts that the answer rests on: those of its confirmation,
// or what was said by hand of the culprit and its parents.
func (b *Bisection) Evidence() []Tested {
	var list []Tested
	for _, t := range b.Tested {
		isIt := b.Culprit != nil && (t.Commit.Hash == b.Culprit.Hash || slices.Contains(b.Culprit.Parents, t.Commit.Hash))
		if t.Role == RoleConfirm || t.ByHand && isIt {
			list = append(list, t)
		}
	}
	// Of tests at the same time, that of the culprit may be the last.
	slices.SortStableFunc(list, func(x, y Tested) int {
		return cmp.Compare(len(x.Confirms), len(y.Confirms))
	})
	return list
}

// A Change is what a verdict by hand, or one taken back, does to a bisect.
type Change struct {
	Given   []Tested `json:"given,omitempty"` // the verdicts by hand
	Back    []Tested `json:"back,omitempty"`  // the verdicts taken back
	Aside   []Tested `json:"aside,omitempty"` // tests and other verdicts that no longer count because of it
	Again   []Tested `json:"again,omitempty"` // those that count again
	Was     int      `json:"was"`             // candidates that could be the first bad one before,
	Left    int      `json:"left"`            // and that can be now
	Running bool     `json:"running"`         // a lab is at work, and sees this before its next step
}

// Mark gives commits a verdict by hand, in one event. It overrules what was
// tested of them, and what cannot be because of it. It is refused where it
// contradicts the ends, or what was given by hand before. Of two verdicts for one
// commit the last counts. replay is the digest of the log that they are from.
func (s *Saved) Mark(marks []Tested, replay string) (Change, error) {
	last := map[string]int{}
	for i, t := range marks {
		last[t.Commit.Hash] = i
	}
	kept := marks[:0:0]
	for i, t := range marks {
		if last[t.Commit.Hash] == i {
			kept = append(kept, t)
		}
	}
	marks = kept
	for i := range marks {
		marks[i].Role, marks[i].ByHand = RoleHand, true
		if marks[i].Reason == "" {
			marks[i].Reason = "by hand"
		}
		if err := s.possible(marks[i]); err != nil {
			return Change{}, err
		}
	}
	return s.change(func() (record, error) {
		r := record{Event: eventHand, Hand: marks, Replay: replay}
		return r, s.agree(r)
	})
}

// change adds an event, and says what it did.
func (s *Saved) change(event func() (record, error)) (c Change, err error) {
	var before []record
	err = s.journal.update(func() (record, error) {
		before = s.journal.records
		return event()
	})
	if err != nil {
		return c, err
	}
	added, after := s.journal.events[len(s.journal.events)-1], s.journal.records
	c.Given = added.Hand
	for _, r := range before {
		switch {
		case r.Tested == nil || holds(after, r):
		case slices.Contains(added.Undo, r.line):
			c.Back = append(c.Back, *r.Tested)
		default:
			c.Aside = append(c.Aside, *r.Tested)
		}
	}
	for _, r := range after {
		if r.Tested != nil && r.line != added.line && !holds(before, r) {
			c.Again = append(c.Again, *r.Tested)
		}
	}
	c.Was, c.Left = s.left(before), s.left(after)
	holder, err := running(s.journal.dir)
	c.Running = holder != nil
	return c, err
}

func holds(records []record, want record) bool {
	return slices.ContainsFunc(records, func(r record) bool {
		return r.line == want.line && r.Tested != nil && r.Tested.Commit.Hash == want.Tested.Commit.Hash
	})
}

func (s *Saved) left(records []record) int {
	var tests []Tested
	for _, r := range records {
		if r.Tested != nil {
			tests = append(tests, *r.Tested)
		}
	}
	return count(s.journal.lineage.suspects(tests))
}

func count(set []bool) int {
	n := 0
	for _, in := range set {
		if in {
			n++
		}
	}
	return n
}

// possible refuses a verdict that the bisect's ends leave no room for.
func (s *Saved) possible(t Tested) error {
	isGood := slices.ContainsFunc(s.Good, func(c kernel.Commit) bool { return c.Hash == t.Commit.Hash })
	isBad := t.Commit.Hash == s.Bad.Hash
	switch {
	case isGood && t.Mark != Good:
		return fmt.Errorf("%s is the good end of this bisect, and cannot be %s: begin another one with other ends", name(t.Commit), t.Mark)
	case isBad && t.Mark != Bad:
		return fmt.Errorf("%s is the bad end of this bisect, and cannot be %s: begin another one with other ends", name(t.Commit), t.Mark)
	case isGood || isBad:
		return nil
	}
	if _, ok := s.journal.lineage.at[t.Commit.Hash]; !ok && !slices.ContainsFunc(s.sets(), func(c kernel.Commit) bool { return c.Hash == t.Commit.Hash }) {
		return fmt.Errorf("%s is none of the %d %ss between the ends of this bisect: nothing would follow from it", name(t.Commit), s.Range, s.Axis)
	}
	return nil
}

// agree refuses verdicts by hand that contradict others given by hand. The
// journal is locked.
func (s *Saved) agree(r record) error {
	l := s.journal.lineage
	r.line = len(s.journal.events) + 1
	after := settle(append(slices.Clip(s.journal.events), r), l)
	var hand, all []Tested
	for _, e := range after {
		if e.Tested == nil {
			continue
		}
		all = append(all, *e.Tested)
		if e.Tested.Role == RoleHand {
			hand = append(hand, *e.Tested)
		}
	}
	for _, g := range hand {
		if g.Mark != Good {
			continue
		}
		below := l.set(g.Commit.Hash)
		l.ancestors(below)
		for _, b := range hand {
			if i, ok := l.at[b.Commit.Hash]; ok && b.Mark == Bad && below[i] {
				return fmt.Errorf("%s cannot be good while %s, which it is built upon, is bad: both are said by hand. Take one back with lab bisect undo, or say of one what it is", name(g.Commit), name(b.Commit))
			}
		}
	}
	if count(l.suspects(all)) == 0 {
		var bads []string
		for _, t := range all {
			if t.Mark == Bad && t.Commit.Hash != s.Bad.Hash {
				bads = append(bads, short(t.Commit.Hash))
			}
		}
		return fmt.Errorf("with that, no %s is left that could be the first bad one: nothing that is not good is in all of the bad ones (%s). See lab bisect status, and take back with lab bisect undo what is not so", s.Axis, strings.Join(slices.Compact(bads), ", "))
	}
	return nil
}

// Undo takes back the last n verdicts, tested or given by hand, and with them
// the answer. What was given by hand in one go, and what was replayed, goes in
// one. Nothing is removed: what is taken back no longer counts.
func (s *Saved) Undo(n int) (Change, error) {
	return s.change(func() (record, error) { return undo(s.journal.records, n) })
}

// undo makes the event that takes back the last n verdicts.
func undo(records []record, n int) (record, error) {
	r := record{Event: eventUndo}
	if n < 1 {
		return r, fmt.Errorf("take back %d verdicts: at least one is wanted", n)
	}
	for i := len(records) - 1; i >= 0 && len(r.Undo) < n; i-- {
		if records[i].Tested != nil && !slices.Contains(r.Undo, records[i].line) {
			r.Undo = append(r.Undo, records[i].line)
		}
	}
	if len(r.Undo) < n {
		return r, fmt.Errorf("take back %s: there are only %d to take back", plural(n, "verdict"), len(r.Undo))
	}
	slices.Sort(r.Undo)
	return r, nil
}

// Find finds the candidates that a revision names: one, or, of A..B, all that B
// is built upon and A is not. Of commits, git is asked in the repository as it
// is now; without it a hash, or the beginning of one, is enough.
func (l *Lab) Find(ctx context.Context, s *Saved, rev string) ([]kernel.Commit, error) {
	from, to, isRange := strings.Cut(rev, "..")
	if !isRange || len(s.Packages) > 0 { // whose names may be paths like ../x.deb
		c, err := findCandidate(ctx, l, s, rev)
		return []kernel.Commit{c}, err
	}
	a, err := findCandidate(ctx, l, s, from)
	if err != nil {
		return nil, err
	}
	b, err := findCandidate(ctx, l, s, to)
	if err != nil {
		return nil, err
	}
	g := s.journal.lineage
	in, out := g.set(b.Hash), g.set(a.Hash)
	g.ancestors(in)
	g.ancestors(out)
	var list []kernel.Commit
	for i, c := range g.commits {
		if in[i] && !out[i] {
			list = append(list, c)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("there is none of this bisect's %ss in %s", s.Axis, rev)
	}
	return list, nil
}

func findCandidate(ctx context.Context, l *Lab, s *Saved, rev string) (kernel.Commit, error) {
	if len(s.Packages) > 0 {
		if i, err := pick(s.Packages, rev); err == nil {
			return s.byHash(s.Packages[i].Digest)
		} else if c, e := s.byHash(rev); e != nil {
			return c, err
		}
	}
	c, err := s.byHash(rev)
	if err == nil || s.Repo == "" {
		return c, err
	}
	dir, e := l.repository(ctx, s.Repo)
	if e != nil {
		return c, fmt.Errorf("%w; and its repository cannot be asked: %w", err, e)
	}
	tree, e := kernel.OpenCheckout(ctx, l.Cache, dir, 0)
	if e != nil {
		return c, fmt.Errorf("%w; and its repository cannot be asked: %w", err, e)
	}
	defer tree.Close()
	return tree.Resolve(ctx, rev)
}

// byHash finds a candidate or an end by its hash, or the beginning of one; one
// that is no commit by what it is called, too.
func (s *Saved) byHash(start string) (kernel.Commit, error) {
	var found []kernel.Commit
	for _, c := range slices.Concat(s.Good, s.journal.lineage.commits, s.sets()) {
		if isPackageHash(c.Hash) && c.Title == start {
			return c, nil
		}
		if len(start) >= 7 && strings.HasPrefix(strings.TrimPrefix(c.Hash, "sha256:"), strings.TrimPrefix(start, "sha256:")) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return kernel.Commit{}, fmt.Errorf("no %s of this bisect begins with %s", s.Axis, start)
	}
	return kernel.Commit{}, errors.New(start + " could be " + name(found[0]) + " or " + name(found[1]) + ": give more of it")
}
