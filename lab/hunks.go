package lab

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"

	"lab/kernel"
)

// splitCulprit bisects the hunks of the commit that was found: the smallest set of
// them that, on top of its parent, does what the commit does. It is a bisect of a
// set, in a folder of its own below the bisect's, which has the same test, guest and
// options.
func (b *bisection) splitCulprit(ctx context.Context, o BisectOptions) error {
	h := b.commitAxis()
	culprit, err := h.tree.Resolve(ctx, b.result.Culprit.Hash)
	if err != nil {
		return err
	}
	r := newBisection(b.Lab, BisectOptions{Spec: b.spec, Ask: o.Ask})
	r.options, r.commands = b.options, b.commands
	r.result.Terms, r.result.Images, r.result.Command = b.result.Terms, b.result.Images, b.result.Command
	r.result.Dir = filepath.Join(b.result.Dir, "hunks")
	b.result.Hunks = &r.result
	if n := len(culprit.Parents); n != 1 {
		r.result.Axis, r.result.Unclear = "hunk", fmt.Sprintf("the commit has %d parents: there is no one change to part", n)
		return nil
	}
	parent, err := h.tree.Resolve(ctx, culprit.Parents[0])
	if err != nil {
		return err
	}
	hunks, err := h.tree.Hunks(ctx, parent.Hash, culprit.Hash)
	if err != nil {
		return err
	}
	if len(hunks) < 2 {
		r.result.Axis, r.result.Unclear = "hunk", fmt.Sprintf("the commit changes %s", plural(len(hunks), "hunk"))
		return nil
	}
	s, err := newSettings(b.spec, []knob{hunkKnob(hunks)})
	if err != nil {
		return err
	}
	s.what = "hunk"
	s.commits[0].Title, s.commits[1].Title = "the parent "+name(parent), "the commit "+name(culprit)
	s.kernel.source = source{Lab: b.Lab, tree: h.tree, commit: parent, options: b.options}
	if b.commands != nil {
		s.try = func(ctx context.Context, set []int) (Trial, error) {
			return b.commands.onTop(ctx, parent, s.with(set).build)
		}
	}
	r.axis, r.settings, r.result.Axis = s, s, s.what
	o.Dir = r.result.Dir
	if err := r.bisectSet(ctx, o, b); err != nil {
		return err
	}
	if f := r.result.Flip; len(f.Minimal) > 0 {
		f.Patch = string(kernel.JoinHunks(hunks, func(i int) bool { return slices.Contains(f.Minimal, s.differences[i]) }))
	}
	return nil
}

// bisectSet goes through a bisect of the hunks of what another one found, whose
// tests of the commit and of its parent count.
func (b *bisection) bisectSet(ctx context.Context, o BisectOptions, of *bisection) error {
	commits, err := b.ends(ctx, o, &b.result)
	if err != nil {
		return err
	}
	for i, hash := range []string{b.settings.kernel.commit.Hash, of.result.Culprit.Hash} {
		// What was tested last, to see that the answer is right.
		t := of.journal.tested(hash, RoleConfirm)
		if t == nil || t.Mark != []Mark{Good, Bad}[i] {
			continue
		}
		end := *t
		end.Commit, end.Role, end.Inferred, end.Left = b.settings.commits[i], RoleEnd, "", len(b.settings.deltas)
		if end.Set = b.settings.ids([][]int{nil, b.settings.all}[i]); t.Dir != "" {
			end.Dir = filepath.Join(of.result.Dir, t.Dir)
		}
		b.result.Walked = append(b.result.Walked, end)
	}
	b.compiler = of.options.Toolchain.Identity()
	defer func() { b.result.Walked = nil }()
	if err := b.enter(ctx, o, commits); err != nil {
		return err
	}
	defer b.journal.Close()
	defer b.launcher.Close()
	return b.hunt(ctx, commits)
}

// hunkKnob makes a commit's hunks the differences between its parent and it.
func hunkKnob(hunks []kernel.Hunk) knob {
	k := knob{kind: "hunk", builds: true}
	for _, h := range hunks {
		k.list = append(k.list, Difference{Kind: k.kind, Name: h.File, Title: h.What, Bad: h.String()})
	}
	k.apply = func(s *setup, has func(int) bool) {
		data := kernel.JoinHunks(hunks, has)
		if len(data) == 0 {
			return
		}
		patch := kernel.Patch{Name: "the hunks", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)), Data: data}
		s.build.Patches = append(slices.Clone(s.build.Patches), patch)
	}
	return k
}

// onTop runs the command on a commit with patches on top of it.
func (a *commands) onTop(ctx context.Context, c kernel.Commit, o kernel.BuildOptions) (Trial, error) {
	top, f, err := a.tree.OnTop(ctx, c.Hash, o)
	if err != nil {
		return Trial{}, err
	}
	if f != nil {
		return Trial{End: EndBuild, Failure: f, Detail: oneLine(f.Line)}, nil
	}
	return a.trial(ctx, kernel.Commit{Hash: top.Commit, Title: c.Title + ", with hunks on top"})
}
