package lab

import (
	"context"
	"regexp"

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
	// isAside tells of a candidate that is not looked at first.
	isAside(hash string) bool
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
	if o.Settings != nil {
		if b.settings, err = b.openSettings(ctx, o); err != nil {
			return err
		}
		b.axis, b.options = b.settings, b.settings.kernel.options
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
	b.axis = &history{Lab: b.Lab, tree: b.tree, options: &b.options}
	return nil
}

// A history is the axis of a tree's commits.
type history struct {
	*Lab
	tree    *kernel.Tree
	options *kernel.BuildOptions // the bisect's own
	aside   map[string]bool      // commits that touch none of the paths that were asked for
	terms   *Terms
	asked   []string // what beside the ends says which commits are looked at
}

func (h *history) identity() []string { return h.asked }

func (h *history) resolve(ctx context.Context, hash string) (kernel.Commit, error) {
	return h.tree.Resolve(ctx, hash)
}

func (h *history) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	return h.tryBuild(ctx, h.tree, c, *h.options)
}

func (h *history) isAside(hash string) bool { return h.aside[hash] }

// words has a text speak of good and bad as the bisect's terms do.
func (h *history) words(text string) string {
	if h.terms == nil {
		return text
	}
	return goodOrBad.ReplaceAllStringFunc(text, func(word string) string {
		return h.terms.Word(map[string]Mark{"good": Good, "bad": Bad}[word])
	})
}

var goodOrBad = regexp.MustCompile(`\b(good|bad)\b`)

func (h *history) Close() error { return h.tree.Close() }
