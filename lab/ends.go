package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lab/kernel"
)

// ofCommits tells whether the candidates are commits of a repository.
func (o BisectOptions) ofCommits() bool {
	return len(o.Kernels) == 0 && len(o.Images) == 0 && o.Layers == "" && o.Settings == nil
}

func (h *history) ends(ctx context.Context, o BisectOptions, r *Bisection) ([]kernel.Commit, error) {
	if err := h.badEnd(ctx, o, r); err != nil {
		return nil, err
	}
	if err := h.goodEnds(ctx, o, r); err != nil {
		return nil, err
	}
	span := kernel.Span{Bad: r.Bad.Hash, FirstParent: o.FirstParent}
	for _, c := range r.Good {
		span.Good = append(span.Good, c.Hash)
	}
	commits, err := h.tree.Span(ctx, span)
	if err != nil {
		return nil, err
	}
	r.Range = len(commits)
	if o.FirstParent {
		h.asked = append(h.asked, "first-parent")
	}
	if len(o.Paths) == 0 {
		return commits, nil
	}
	h.asked = append(append(h.asked, "paths"), o.Paths...)
	touching, err := h.tree.Touching(ctx, span, o.Paths)
	if err != nil {
		return nil, err
	}
	if len(touching) == 0 {
		return nil, fmt.Errorf("no commit between the ends touches %s: paths are named from the root of the repository", strings.Join(o.Paths, ", "))
	}
	h.aside = map[string]bool{}
	for _, c := range commits {
		if !touching[c.Hash] {
			h.aside[c.Hash] = true
		}
	}
	h.Progress.Say("%d of %s touch %s; the others are tested only to be sure", len(touching), plural(len(commits), "commit"), strings.Join(o.Paths, ", "))
	return commits, nil
}

// badEnd finds the bad end: what several bad commits have in common.
func (h *history) badEnd(ctx context.Context, o BisectOptions, r *Bisection) error {
	var err error
	if r.Bad, err = h.tree.Resolve(ctx, o.Bad); err != nil || len(o.AlsoBad) == 0 {
		return err
	}
	given := []kernel.Commit{r.Bad}
	hashes := []string{r.Bad.Hash}
	for _, rev := range o.AlsoBad {
		c, err := h.tree.Resolve(ctx, rev)
		if err != nil {
			return err
		}
		given, hashes = append(given, c), append(hashes, c.Hash)
	}
	common, err := h.tree.MergeBases(ctx, hashes...)
	if err != nil {
		return err
	}
	if len(common) == 0 {
		return fmt.Errorf("the %s commits have no ancestor in common: bisect one at a time", h.terms.Word(Bad))
	}
	if r.Bad, err = h.tree.Resolve(ctx, common[0]); err != nil {
		return err
	}
	r.AlsoBad = given
	h.Progress.Say("what %d %s commits have in common ends with %s: if one change made them all so, it is there or before", len(given), h.terms.Word(Bad), name(r.Bad))
	return nil
}

// goodEnds finds the good ends. Where one is on another branch than the bad end,
// the commit in which the two part is a good end too: if it is not good, what is
// between it and the bad end is not what broke it.
func (h *history) goodEnds(ctx context.Context, o BisectOptions, r *Bisection) error {
	var bases []string
	for _, rev := range o.Good {
		c, err := h.tree.Resolve(ctx, rev)
		if err != nil {
			return err
		}
		r.Good = append(r.Good, c)
		older, err := h.older(ctx, rev, c, o.Bad, r.Bad)
		if err != nil {
			return err
		}
		if older {
			continue
		}
		part, err := h.tree.MergeBases(ctx, c.Hash, r.Bad.Hash)
		if err != nil {
			return err
		}
		if len(part) == 0 {
			return fmt.Errorf("%s %s and %s %s have no history in common", h.terms.Word(Good), rev, h.terms.Word(Bad), name(r.Bad))
		}
		bases = append(bases, part...)
	}
	for _, hash := range bases {
		if slices.ContainsFunc(r.Good, func(c kernel.Commit) bool { return c.Hash == hash }) {
			continue
		}
		c, err := h.tree.Resolve(ctx, hash)
		if err != nil {
			return err
		}
		r.Good, r.Bases = append(r.Good, c), append(r.Bases, c)
		h.Progress.Say("%s and %s are on different branches, which part at %s: if that is %s, the change came after", h.terms.Word(Good), h.terms.Word(Bad), name(c), h.terms.Word(Good))
	}
	return nil
}

// older tells whether a good end is behind the bad one. What has nothing to find
// between the two is refused.
func (h *history) older(ctx context.Context, rev string, good kernel.Commit, badRev string, bad kernel.Commit) (bool, error) {
	if good.Hash == bad.Hash {
		return false, fmt.Errorf("%s %s and %s %s are the same commit %s", h.terms.Word(Good), rev, h.terms.Word(Bad), badRev, short(bad.Hash))
	}
	older, err := h.tree.IsAncestor(ctx, good.Hash, bad.Hash)
	if err != nil || older {
		return older, err
	}
	newer, err := h.tree.IsAncestor(ctx, bad.Hash, good.Hash)
	if err == nil && newer {
		err = fmt.Errorf("%s %s comes after %s %s: are the two swapped?%s", h.terms.Word(Good), rev, h.terms.Word(Bad), badRev, h.otherWay())
	}
	return false, err
}

// explain says what it means that an end is not as it should be, and where to go
// from there.
func (b *bisection) explain(c kernel.Commit, is Mark) string {
	r := &b.result
	isBase := slices.ContainsFunc(r.Bases, func(x kernel.Commit) bool { return x.Hash == c.Hash })
	switch {
	case isBase && is == Bad && r.Terms != nil && r.Terms.Fix:
		return fmt.Sprintf("; there the two part, so it came in on the other branch. What broke it: lab bisect --good %s --bad %s", short(c.Hash), short(r.Good[0].Hash))
	case isBase && is == Bad:
		return fmt.Sprintf("; there good and bad part, so it was broken before, and the good branch has repaired it. What repaired it: lab bisect --fix --bad %s --good %s", short(c.Hash), short(r.Good[0].Hash))
	case len(r.AlsoBad) > 0 && c.Hash == r.Bad.Hash && is == Good:
		return fmt.Sprintf("; it is what the %d %s commits have in common, so they do not have one cause there: bisect one at a time", len(r.AlsoBad), b.called(Bad))
	}
	if r.Terms != nil {
		return fmt.Sprintf("; are %s and %s swapped?", b.called(Good), b.called(Bad))
	}
	return "; are good and bad swapped?"
}

// otherWay is the way out where the ends are the other way round.
func (h *history) otherWay() string {
	switch {
	case h.terms == nil:
		return " To find what repaired it: --fix"
	case h.terms.Fix:
		return " To find what broke it: without --fix"
	}
	return ""
}

// setTerms has the bisect, and its axis, speak as the options say.
func (b *bisection) setTerms(o BisectOptions) (err error) {
	if b.result.Terms, err = o.Terms.AsGiven(); err != nil || b.result.Terms == nil || !o.ofCommits() {
		return err
	}
	h := b.commitAxis()
	h.terms = b.result.Terms
	h.asked = append(h.asked, fmt.Sprintf("terms %+v", *h.terms))
	return nil
}

// afterwards adds to an answer what its axis knows of it.
func (b *bisection) afterwards(ctx context.Context, o BisectOptions) error {
	c := b.result.Culprit
	if c == nil || !o.ofCommits() {
		return nil
	}
	if o.FirstParent {
		whole, err := b.resolve(ctx, c.Hash)
		if err != nil {
			return err
		}
		b.result.Merged = whole.Parents[min(1, len(whole.Parents)):]
	}
	if n := len(c.Parents); n > 1 && len(b.result.Parents) == n {
		if err := b.findPair(ctx, o); err != nil {
			return err
		}
	}
	if o.Hunks {
		return b.splitCulprit(ctx, o)
	}
	return nil
}
