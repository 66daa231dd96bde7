package lab

import (
	"context"
	"fmt"

	"lab/kernel"
	"lab/lab/search"
)

// vain knows which commits of a range would be built in vain: what each of them
// changes, and what the builds so far read of the tree.
type vain struct {
	changes map[string][][]kernel.Change // by commit, for each parent
	prints  map[string]*kernel.Footprint // by commit that was built; nil where there is none
	by      [2]*kernel.Footprint         // the footprints that the commits were last weighed by
}

// read asks git what the commits change, once. Of ready-made kernels, which have
// no tree, nothing is known.
func (v *vain) read(ctx context.Context, tree *kernel.Tree, commits []kernel.Commit) (err error) {
	if tree == nil || v.changes != nil {
		return nil
	}
	v.prints = map[string]*kernel.Footprint{}
	v.changes, err = tree.Changes(ctx, commits)
	return err
}

// footprint is that of a commit's kernel; nil where it is not known.
func (b *bisection) footprint(ctx context.Context, hash string) (*kernel.Footprint, error) {
	f, known := b.vain.prints[hash]
	if known {
		return f, nil
	}
	f, err := b.tree.Footprint(ctx, hash, b.options)
	if err != nil {
		return nil, err
	}
	b.vain.prints[hash] = f
	return f, nil
}

// witnesses are the tests whose kernels were built, the latest first, each
// kernel once.
func (b *bisection) witnesses() []*Tested {
	var list []*Tested
	seen := map[string]bool{}
	for i := len(b.journal.records) - 1; i >= 0; i-- {
		t := b.journal.records[i].Tested
		if t != nil && own(t.Role) == "" && t.Kernel != "" && !t.Unbuilt && !seen[t.Kernel] {
			seen[t.Kernel] = true
			list = append(list, t)
		}
	}
	return list
}

// infer gives a commit the verdict of a tested one, where nothing that differs
// between the two can make another kernel; nil where there is no such one. Where
// all that could are Kconfig files, the configuration is made again. It
// compares the two trees, whatever commits lie between them, by what the tested
// one's build read. So one inference never rests on another. The trees are those
// that are built: with the picks and patches on top.
func (b *bisection) infer(ctx context.Context, c kernel.Commit, left int) (*Tested, error) {
	same, touched, err := b.twin(ctx, c, b.witnesses())
	if err != nil || same == nil {
		return nil, err
	}
	if touched {
		b.Progress.Show("configuring %s", short(c.Hash))
		equal, err := b.tree.SameConfig(ctx, same.Commit.Hash, c.Hash, b.options)
		b.Progress.Show("")
		if err != nil || !equal {
			return nil, err // to be built, in the work tree as it is now
		}
	}
	to, _, err := b.tree.OnTop(ctx, c.Hash, b.options)
	return &Tested{
		Commit: c, Role: RoleStep, Verdict: same.Verdict, End: same.End, Exit: same.Exit,
		Inferred: same.Commit.Hash, Unbuilt: true, Kernel: same.Kernel, Drift: same.Drift, OnTop: to.Additions, Left: left,
	}, err
}

// twin finds the tested commit that another one is the same kernel as; touched
// says that it is so only if the configuration comes out the same.
func (b *bisection) twin(ctx context.Context, c kernel.Commit, witnesses []*Tested) (same *Tested, touched bool, err error) {
	to, failure, err := b.tree.OnTop(ctx, c.Hash, b.options)
	if err != nil || failure != nil {
		return nil, false, err // one that does not apply is seen by the build
	}
	for _, same := range witnesses {
		print, err := b.footprint(ctx, same.Commit.Hash)
		if err != nil {
			return nil, false, err
		}
		if print == nil {
			continue
		}
		from, failure, err := b.tree.OnTop(ctx, same.Commit.Hash, b.options)
		if err != nil {
			return nil, false, err
		}
		if failure != nil {
			continue
		}
		changes, err := b.tree.Diff(ctx, from.Commit, to.Commit)
		if err != nil {
			return nil, false, err
		}
		rest, touched := kernel.WithoutKconfig(changes)
		if _, _, matters := print.Matters(rest); !matters {
			return same, touched, nil
		}
	}
	return nil, false, nil
}

// weigh finds out which candidates are inert, by what the last good build and
// the last bad one read: the range narrows around these. A merge is inert when
// it is the same as one of its parents; what it brings together of two that
// matter may matter itself. Nothing is inferred from it: it only says where
// tests tell most.
func (b *bisection) weigh(ctx context.Context, candidates []search.Candidate) error {
	for i := range candidates {
		candidates[i].Inert = candidates[i].Inert || b.isAside(candidates[i].ID)
	}
	if b.tree == nil {
		return nil
	}
	by, err := b.lastPrints(ctx, b.witnesses())
	if err != nil || by == b.vain.by {
		return err
	}
	b.vain.by = by
	before := b.result.Inert
	b.result.Inert = 0
	for i := range candidates {
		c := &candidates[i]
		if c.Inert = b.vain.inert(c.ID, by); c.Inert {
			b.result.Inert++
		}
		c.Inert = c.Inert || b.isAside(c.ID)
	}
	if b.result.Inert != before {
		b.Progress.Say("%d of %d commits change nothing that is compiled", b.result.Inert, len(candidates))
	}
	return nil
}

// lastPrints are the footprints of the last kernel that was good, and of the last
// that was bad.
func (b *bisection) lastPrints(ctx context.Context, witnesses []*Tested) (by [2]*kernel.Footprint, err error) {
	for _, t := range witnesses {
		i := 0
		switch t.Mark {
		case Bad:
			i = 1
		case Skip:
			continue
		}
		if by[i] != nil {
			continue
		}
		if by[i], err = b.footprint(ctx, t.Commit.Hash); err != nil {
			return by, err
		}
	}
	return by, nil
}

// inert tells whether a commit changes nothing that was read by either build.
func (v *vain) inert(hash string, by [2]*kernel.Footprint) bool {
	for _, changes := range v.changes[hash] {
		same, known := true, false
		for _, print := range by {
			if print == nil {
				continue
			}
			_, _, matters := print.Matters(changes)
			same, known = same && !matters, true
		}
		if same && known {
			return true
		}
	}
	return false
}

// audit builds and boots some of the commits whose kernels were said to be
// those of others, and compares: the bytes, and what the test says. Those whose
// verdicts the search rests on come first, then others of the range, both spread
// over it. One that is not as was said takes the answer back.
func (b *bisection) audit(ctx context.Context, commits []kernel.Commit) error {
	if b.tree == nil {
		return nil
	}
	if b.audits > 0 {
		defer func() { b.queue = nil }()
		picked, err := b.auditees(ctx, commits)
		if err != nil {
			return err
		}
		if len(picked) == 0 {
			b.Progress.Say("audit: no verdict was inferred, and none could have been")
		}
		for i, said := range picked {
			b.queue = nil
			for _, next := range picked[i+1:] {
				b.queue = append(b.queue, next.Commit)
			}
			b.Progress.Say("audit: %s, said to be the same binary as %s", name(said.Commit), short(said.Inferred))
			if _, err := b.test(ctx, said.Commit, RoleAudit, 0); err != nil {
				return err
			}
		}
	}
	return b.compareAll(ctx)
}

// compareAll compares what was inferred of a commit with what was seen of it
// later: by the confirmations, which are always built and booted, and by audits,
// those of an earlier run included.
func (b *bisection) compareAll(ctx context.Context) error {
	for _, r := range b.journal.records {
		if r.Tested == nil || own(r.Tested.Role) == "" {
			continue
		}
		said := b.journal.tested(r.Tested.Commit.Hash, RoleStep)
		if said != nil && !said.Unbuilt {
			continue
		}
		if said == nil && r.Tested.Role == RoleAudit {
			var err error
			if said, err = b.infer(ctx, r.Tested.Commit, 0); err != nil {
				return err
			}
		}
		if said != nil {
			b.compare(*said, *r.Tested)
		}
	}
	return nil
}

// compare takes the answer back where a commit is not as was inferred. Of a test
// that fails at times, the same bytes with another verdict are but one more run,
// which is weighed with the others: see evidence.
func (b *bisection) compare(said, seen Tested) {
	what := ""
	switch {
	case seen.Kernel == "":
		what = "it does not build: " + seen.Reason
	case seen.Kernel != said.Kernel:
		what = fmt.Sprintf("it builds to another kernel (%.19s, not %.19s) and is %s", seen.Kernel, said.Kernel, seen.Mark)
	case seen.Mark != said.Mark && b.steady:
		what = fmt.Sprintf("the same kernel is %s there and %s here (%s): the test is flaky", said.Mark, seen.Mark, seen.Reason)
	default:
		return
	}
	b.result.Unclear = fmt.Sprintf("%s was taken for the same binary as %s, and is not as was inferred: %s", name(said.Commit), short(said.Inferred), what)
	b.result.Culprit, b.result.Parents = nil, nil
	b.Progress.Say("CONTRADICTION: %s", b.result.Unclear)
}

// auditees chooses what the audit looks at.
func (b *bisection) auditees(ctx context.Context, commits []kernel.Commit) ([]Tested, error) {
	var inferred []Tested
	known := map[string]bool{}
	for _, r := range b.journal.records {
		if t := r.Tested; t != nil && t.Role != RoleAudit {
			known[t.Commit.Hash] = true
			if t.Unbuilt && b.journal.tested(t.Commit.Hash, RoleConfirm) == nil {
				inferred = append(inferred, *t)
			}
		}
	}
	picked := spread(inferred, b.audits)
	var others []kernel.Commit
	for _, c := range commits {
		if !known[c.Hash] && b.vain.inert(c.Hash, b.vain.by) {
			others = append(others, c)
		}
	}
	// Some of them are the same as no commit that was built.
	for _, c := range spread(others, len(others)) {
		if len(picked) >= b.audits {
			break
		}
		t, err := b.infer(ctx, c, 0)
		if err != nil {
			return nil, err
		}
		if t != nil {
			picked = append(picked, *t)
		}
	}
	return picked, nil
}

// spread gives n of a list, or all of it, those first that lie far apart: the
// middle, the quarters, the eighths.
func spread[T any](list []T, n int) []T {
	var picked []T
	taken := make([]bool, len(list))
	for parts := 2; len(picked) < min(n, len(list)); parts *= 2 {
		for i := 1; i < parts && len(picked) < n; i++ {
			if at := i * len(list) / parts; !taken[at] {
				taken[at] = true
				picked = append(picked, list[at])
			}
		}
		if parts > 2*len(list) {
			for at := range list {
				if !taken[at] && len(picked) < n {
					taken[at] = true
					picked = append(picked, list[at])
				}
			}
		}
	}
	return picked
}
