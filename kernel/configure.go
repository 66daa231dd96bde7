package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"lab/kernel/kconfig"
)

// A Resolution is what Kconfig makes of a request at a commit.
type Resolution struct {
	Commit string               `json:"commit"`
	Config []byte               `json:"-"`    // a .config, as Kconfig wrote it
	Lost   []kconfig.Difference `json:"lost"` // what was asked for and did not survive, with the reason
	OnTop  []Addition           `json:"on_top,omitempty"`
}

// Configure resolves fragments at a commit as Build does, and compiles nothing
// but Kconfig itself. A commit whose Kconfig fails gives a Failure. Errors are
// those of Build.
func (t *Tree) Configure(ctx context.Context, commit string, o BuildOptions) (Resolution, *Failure, error) {
	c, err := t.Resolve(ctx, commit)
	if err != nil {
		return Resolution{}, nil, err
	}
	r, f, err := t.configure(ctx, c.Hash, o)
	if err != nil {
		return Resolution{}, nil, fmt.Errorf("configure commit %.12s: %w", c.Hash, err)
	}
	r.Commit = c.Hash
	return r, f, nil
}

func (t *Tree) configure(ctx context.Context, hash string, o BuildOptions) (Resolution, *Failure, error) {
	r, err := newRequest(o.Fragments)
	if err != nil {
		return Resolution{}, nil, err
	}
	var is Resolution
	f, err := t.visit(ctx, hash, o, func(w *workTree, top Top) (*Failure, error) {
		data, f, err := w.onlyResolve(ctx, r)
		if err != nil || f != nil {
			return f, err
		}
		resolved, err := kconfig.Parse(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("read the resolved configuration: %w", err)
		}
		is = Resolution{Config: data, Lost: w.lost(r, resolved), OnTop: top.Additions}
		return nil, nil
	})
	if f != nil {
		f.Hint = t.advise(ctx, explain(f))
	}
	return is, f, err
}

// Kconfig reads the Kconfig files of a commit, with what the options put on top of
// it.
func (t *Tree) Kconfig(ctx context.Context, commit string, o BuildOptions) (*kconfig.Tree, error) {
	c, err := t.Resolve(ctx, commit)
	if err != nil {
		return nil, err
	}
	var tree *kconfig.Tree
	f, err := t.visit(ctx, c.Hash, o, func(w *workTree, _ Top) (_ *Failure, err error) {
		tree, err = kconfig.ReadTree(os.DirFS(w.src()), "x86")
		return nil, err
	})
	if f != nil {
		err = errors.New(f.Line)
	}
	if err != nil {
		return nil, fmt.Errorf("read the Kconfig files of %.12s: %w", c.Hash, err)
	}
	return tree, nil
}

// visit has a commit in the work tree and compiles nothing.
func (t *Tree) visit(ctx context.Context, hash string, o BuildOptions, use func(*workTree, Top) (*Failure, error)) (*Failure, error) {
	tools, err := t.toolchain(ctx, hash, o)
	if err != nil {
		return nil, err
	}
	top, f, err := t.OnTop(ctx, hash, o)
	if err != nil || f != nil {
		return f, err
	}
	t.guess.settle("", o)
	lock, err := lockFile(ctx, filepath.Join(t.base, "lock"), holder(), o.waiting)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	w := &workTree{Tree: t, lock: lock, tools: tools, options: o}
	if err := w.prepare(ctx, top.Commit); err != nil {
		return nil, err
	}
	f, err = use(w, top)
	if errors.Is(err, ErrInterrupted) {
		return nil, err // the marker tells the next one
	}
	return f, errors.Join(err, os.Remove(w.marker()))
}

// onlyResolve resolves without a build to follow. The log of a failure stays in
// out until something else is done in the work tree.
func (w *workTree) onlyResolve(ctx context.Context, r request) ([]byte, *Failure, error) {
	log, file, err := w.begin()
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	data, err := w.resolve(ctx, r, log)
	if f, _ := log.failure("config", err); f != nil {
		return nil, f, nil
	}
	return data, nil, err
}

// lost compares the request with what Kconfig made of it, and has the tree's
// Kconfig files explain. Where these do not read, nothing is explained.
func (w *workTree) lost(r request, resolved kconfig.Config) []kconfig.Difference {
	lost := kconfig.Compare(r.config, resolved)
	if len(lost) == 0 {
		return nil
	}
	tree, err := kconfig.ReadTree(os.DirFS(w.src()), "x86")
	if err != nil {
		return lost
	}
	for i, d := range lost {
		lost[i].Why = tree.Explain(d, resolved)
	}
	return lost
}
