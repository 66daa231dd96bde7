package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"lab/kernel"
)

// A stop is a commit to look at on the way back to a good one.
type stop struct{ name, hash string }

// findGood looks for a good end where none was given, and puts it into the
// options: it goes back over the releases behind the bad end, or over its first
// parents where there are none, in strides that grow. What it tests is on record in
// a journal of its own, and counts in the bisect. Unclear says that all are bad.
func (l *Lab) findGood(ctx context.Context, o *BisectOptions) (Bisection, error) {
	b := newBisection(l, *o)
	defer b.Close()
	if err := b.open(ctx, *o); err != nil {
		return Bisection{}, err
	}
	h := b.commitAxis()
	if err := h.badEnd(ctx, *o, &b.result); err != nil {
		return Bisection{}, err
	}
	stops, err := h.stops(ctx, b.result.Bad.Hash)
	if err != nil {
		return Bisection{}, err
	}
	own := *o
	if o.Dir != "" {
		own.Dir = filepath.Join(o.Dir, "ends")
	}
	if err := b.enter(ctx, own, []kernel.Commit{b.result.Bad}); err != nil {
		return Bisection{}, err
	}
	if err := b.walk(ctx, h, stops, o); err != nil {
		return Bisection{}, err
	}
	none := b.result.Unclear
	if none == "" {
		b.result.Unclear = fmt.Sprintf("%.12s is %s: the bisect itself begins with it, in a folder of its own", o.Good[0], b.called(Good))
	}
	if err := b.end(ctx); err != nil {
		return Bisection{}, err
	}
	b.result.Unclear = none
	b.finish()
	o.compiler = b.options.Toolchain.Identity()
	for _, t := range b.result.Tested {
		if t.Dir != "" {
			t.Dir = filepath.Join(b.result.Dir, t.Dir)
		}
		o.walked = append(o.walked, t)
	}
	return b.result, nil
}

// commitAxis is the axis, where that is one of commits.
func (b *bisection) commitAxis() *history {
	if b.commands != nil {
		return &b.commands.history
	}
	return b.axis.(*history)
}

// everyNth is how many commits lie between two stops where there are no releases.
const everyNth = 8

// stops are the commits to go back over, the youngest first.
func (h *history) stops(ctx context.Context, bad string) ([]stop, error) {
	releases, err := h.tree.Releases(ctx, bad)
	if err != nil {
		return nil, err
	}
	var stops []stop
	for _, r := range releases {
		stops = append(stops, stop{r.Tag, r.Commit})
	}
	if len(stops) > 0 {
		h.Progress.Say("no %s commit was given: going back over %s, %s the newest of them", h.terms.Word(Good), plural(len(stops), "release"), stops[0].name)
		return stops, nil
	}
	list, err := h.tree.FirstParents(ctx, bad)
	if err != nil {
		return nil, err
	}
	for i, hash := range list {
		if (i+1)%everyNth == 0 || i == len(list)-1 {
			stops = append(stops, stop{fmt.Sprintf("the commit %d before it", i+1), hash})
		}
	}
	h.Progress.Say("no %s commit was given, and there are no tags of releases: going back over %s by first parents", h.terms.Word(Good), plural(len(list), "commit"))
	return stops, nil
}

// walk tests the bad end and then stops until one is good. Steps over what cannot
// be tested grow as well: that comes in stretches.
func (b *bisection) walk(ctx context.Context, h *history, stops []stop, o *BisectOptions) error {
	if ok, err := b.verifyBad(ctx); !ok {
		return err
	}
	var tried []string
	oldest := b.result.Bad
	stride, over := 1, 1
	for at := 0; at < len(stops); {
		c, err := h.resolve(ctx, stops[at].hash)
		if err != nil {
			return err
		}
		b.Progress.Say("is %s %s? %s", stops[at].name, b.called(Good), name(c))
		t, err := b.test(ctx, c, RoleEnd, 0)
		if err != nil {
			return err
		}
		last := at
		switch t.Mark {
		case Good:
			return b.between(ctx, h, c, oldest, o)
		case Bad:
			oldest = c
			at, stride, over = at+stride, 2*stride, 1
		default:
			at, over = at+over, 2*over
		}
		tried = append(tried, fmt.Sprintf("%s is %s (%s)", stops[last].name, b.called(t.Mark), t.Reason))
		if at >= len(stops) && last < len(stops)-1 {
			at = len(stops) - 1 // the oldest one, before giving up
		}
	}
	b.result.Unclear = fmt.Sprintf("no %s commit was found to begin with: ", b.called(Good))
	switch {
	case len(tried) == 0:
		b.result.Unclear += "there is nothing behind the other end"
	case len(tried) > 6:
		b.result.Unclear += strings.Join(append(tried[:3:3], fmt.Sprintf("%d more", len(tried)-5)), "; ") + "; " + strings.Join(tried[len(tried)-2:], "; ")
	default:
		b.result.Unclear += strings.Join(tried, "; ")
	}
	b.result.Unclear += "; name one, if it ever was"
	return nil
}

// between has the bisect begin with the good commit that was found and the oldest
// bad one, where the one is behind the other.
func (b *bisection) between(ctx context.Context, h *history, good, oldest kernel.Commit, o *BisectOptions) error {
	behind, err := h.tree.IsAncestor(ctx, good.Hash, oldest.Hash)
	if err != nil {
		return err
	}
	o.Good = []string{good.Hash}
	if behind {
		o.Bad, o.AlsoBad = oldest.Hash, nil
	}
	return nil
}

// takeOver has what findGood has tested of the ends on record, so that it is not
// tested again, unless another compiler is used now that the good end is known.
func (b *bisection) takeOver() error {
	if !slices.Equal(b.compiler, b.options.Toolchain.Identity()) {
		return nil
	}
	ends := map[string]bool{b.result.Bad.Hash: true}
	for _, c := range b.result.Good {
		ends[c.Hash] = true
	}
	for _, t := range b.result.Walked {
		if !ends[t.Commit.Hash] {
			continue
		}
		var err error
		if t.Dir != "" {
			if t.Dir, err = filepath.Rel(b.journal.dir, t.Dir); err != nil {
				return fmt.Errorf("take over the test of %s: %w", short(t.Commit.Hash), err)
			}
		}
		if err := b.journal.add(record{Event: eventVerdict, Tested: &t}); err != nil {
			return err
		}
	}
	return nil
}
