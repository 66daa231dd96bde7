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
	tools, err := t.toolchain(ctx, hash, o)
	if err != nil {
		return Resolution{}, nil, err
	}
	top, f, err := t.OnTop(ctx, hash, o)
	if err != nil || f != nil {
		return Resolution{}, f, err
	}
	t.guess.settle("", o)
	lock, err := lockFile(ctx, filepath.Join(t.base, "lock"), holder(), o.waiting)
	if err != nil {
		return Resolution{}, nil, err
	}
	defer lock.Close()
	w := workTree{Tree: t, lock: lock, tools: tools, options: o}
	if err := w.prepare(ctx, top.Commit); err != nil {
		return Resolution{}, nil, err
	}
	data, f, err := w.onlyResolve(ctx, r)
	if errors.Is(err, ErrInterrupted) {
		return Resolution{}, nil, err
	}
	if err := errors.Join(err, os.Remove(w.marker())); err != nil {
		return Resolution{}, nil, err
	}
	if f != nil {
		f.Hint = t.advise(ctx, explain(f))
		return Resolution{}, f, nil
	}
	resolved, err := kconfig.Parse(bytes.NewReader(data))
	if err != nil {
		return Resolution{}, nil, fmt.Errorf("read the resolved configuration: %w", err)
	}
	return Resolution{Config: data, Lost: w.lost(r, resolved), OnTop: top.Additions}, nil, nil
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
