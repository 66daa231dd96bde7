package lab

import (
	"context"
	"fmt"

	"lab/kernel"
)

// An axis is what a bisect moves along: the commits of a tree of Linux, ready-made
// kernels, images, or the commits of any repository with a command for a test. The
// bisect knows each candidate as a commit, by a hash that is its own, a title and
// its parents.
type axis interface {
	// ends resolves the ends that the user gave into the result, and lists the
	// candidates behind the good ones, up to the bad one, parents first.
	ends(ctx context.Context, o BisectOptions, r *Bisection) ([]kernel.Commit, error)
	// resolve finds a candidate, or a parent of one, by its hash.
	resolve(ctx context.Context, hash string) (kernel.Commit, error)
	// identity names the candidates and their order, where the ends do not.
	identity() []string
	// trial gets a candidate's kernel: what can be known of it without a boot.
	trial(ctx context.Context, c kernel.Commit) (Trial, error)
	// words puts a text that speaks of commits into the axis's own words.
	words(text string) string
	Close() error
}

// openAxis finds the axis that the options name.
func (b *bisection) openAxis(ctx context.Context, o BisectOptions) (err error) {
	if len(o.Kernels) > 0 {
		b.pool, err = b.openPool(ctx, o)
		b.axis = b.pool
		return err
	}
	if len(o.Images) > 0 || o.Layers != "" {
		if b.gallery, err = b.openGallery(ctx, o); err != nil {
			return err
		}
		b.axis, b.spec, b.options = b.gallery, b.gallery.spec, b.gallery.source.options
		return nil
	}
	if o.Spec.Command != nil {
		b.commands, err = b.openCommands(ctx, o.Spec)
		b.axis = b.commands
		return err
	}
	if b.tree, b.options, err = b.openTree(ctx, o.Spec); err != nil {
		return err
	}
	b.axis = &history{b.Lab, b.tree, &b.options}
	return nil
}

// A history is the axis of a tree's commits.
type history struct {
	*Lab
	tree    *kernel.Tree
	options *kernel.BuildOptions // the bisect's own
}

func (h *history) ends(ctx context.Context, o BisectOptions, r *Bisection) ([]kernel.Commit, error) {
	var err error
	if r.Bad, err = h.tree.Resolve(ctx, o.Bad); err != nil {
		return nil, err
	}
	var goods []string
	for _, rev := range o.Good {
		c, err := h.tree.Resolve(ctx, rev)
		if err != nil {
			return nil, err
		}
		if err := h.checkOrder(ctx, rev, c.Hash, o.Bad, r.Bad.Hash); err != nil {
			return nil, err
		}
		r.Good = append(r.Good, c)
		goods = append(goods, c.Hash)
	}
	commits, err := h.tree.Range(ctx, goods, r.Bad.Hash)
	if err != nil {
		return nil, err
	}
	r.Range = len(commits)
	return commits, nil
}

// checkOrder refuses ends between which there is nothing to find.
func (h *history) checkOrder(ctx context.Context, rev, good, badRev, bad string) error {
	if good == bad {
		return fmt.Errorf("good %s and bad %s are the same commit %s", rev, badRev, short(bad))
	}
	older, err := h.tree.IsAncestor(ctx, good, bad)
	if err != nil || older {
		return err
	}
	newer, err := h.tree.IsAncestor(ctx, bad, good)
	if err != nil {
		return err
	}
	if newer {
		return fmt.Errorf("good %s comes after bad %s: are the two swapped?", rev, badRev)
	}
	return fmt.Errorf("good %s is not an ancestor of bad %s: they are on different branches; give --good a commit that both contain (git merge-base %s %s)", rev, badRev, rev, badRev)
}

func (h *history) identity() []string { return nil }

func (h *history) resolve(ctx context.Context, hash string) (kernel.Commit, error) {
	return h.tree.Resolve(ctx, hash)
}

func (h *history) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	return h.tryBuild(ctx, h.tree, c, *h.options)
}

func (h *history) words(text string) string { return text }

func (h *history) Close() error { return h.tree.Close() }
