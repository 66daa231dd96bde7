package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"lab/kernel/kconfig"
)

// BuildOptions says how to build.
type BuildOptions struct {
	// Fragments are the configuration that is asked for, the later winning
	// over the earlier. What none of them names is off. When one of them is a
	// whole .config, what none names has the tree's default instead.
	Fragments []kconfig.Fragment
	Jobs      int // 0: one for each CPU
	// Merge is the full hash of a commit that the commit is merged with; empty for
	// none. Picks and Patches are put on top, in this order; see [Tree.OnTop].
	Merge   string
	Picks   []Pick
	Patches []Patch
	// Toolchain is what to build with; the zero one is chosen by the commit's
	// age, as Tree.ChooseToolchain does.
	Toolchain Toolchain
	// Notice, if set, is told what one should know about that choice.
	Notice func(text string)
	// Recompile has every object that is not in the work tree compiled, also where
	// ccache is installed and has it.
	Recompile bool
	// Refuse, if set, says why a kernel of a resolved configuration is not worth
	// compiling, and nil where it is. Such a Failure is the caller's own, and not
	// cached: somebody else may want that kernel.
	Refuse func(kconfig.Config) *Failure
	// Ahead is for a kernel that may be wanted next. The build gives way to
	// everything else on the host, and ends when another kernel is asked of the
	// same Tree; it then leaves the work tree as it found it. What only a build
	// from nothing could tell is an error. One at a time.
	Ahead bool
	// Progress, if set, is called for each line of the build's output, with
	// the objects compiled so far and the number to expect (0: unknown), and
	// with a line of ours while another lab uses the work tree.
	Progress func(line string, objects, total int)
}

// waiting tells who has the work tree.
func (o BuildOptions) waiting(holder string) {
	if o.Progress != nil {
		o.Progress("waiting for the work tree, in use by "+holder, 0, 0)
	}
}

// Build makes the kernel of a commit, or finds it in the cache: the same tree,
// the same request and the same toolchain give the same kernel, bit for bit,
// as long as the configuration asks for nothing random (module signing keys,
// structure layout randomisation) nor for debug information, which has paths
// in it.
//
// A commit that does not configure or compile gives a Failure, which is cached
// too. An error is about the host: MissingError, ErrInterrupted, ENOSPC, the
// context's cause, or a repository that does not have the commit. Builds in
// the same repository wait for each other.
func (t *Tree) Build(ctx context.Context, commit string, o BuildOptions) (k Kernel, f *Failure, cached bool, err error) {
	c, err := t.Resolve(ctx, commit)
	if err != nil {
		return Kernel{}, nil, false, err
	}
	k, f, cached, err = t.build(ctx, c.Hash, o)
	if err != nil {
		return Kernel{}, nil, false, fmt.Errorf("build commit %.12s: %w", c.Hash, err)
	}
	if f == nil {
		// The cached kernel may have been built for another commit of the same tree.
		k.Commit, k.Source = c.Hash, "commit "+c.Hash
	}
	return k, f, cached, nil
}

func (t *Tree) build(ctx context.Context, hash string, o BuildOptions) (k Kernel, f *Failure, cached bool, err error) {
	if runtime.GOARCH != "amd64" {
		return Kernel{}, nil, false, fmt.Errorf("building on %s is not supported: only on amd64", runtime.GOARCH)
	}
	r, err := newRequest(o.Fragments)
	if err != nil {
		return Kernel{}, nil, false, err
	}
	tools, err := t.toolchain(ctx, hash, o)
	if err != nil {
		return Kernel{}, nil, false, err
	}
	top, f, err := t.OnTop(ctx, hash, o)
	if err != nil || f != nil {
		return Kernel{}, f, false, err
	}
	defer func() {
		// What another commit of the same tree had on top is in the cache too.
		k.OnTop, k.Toolchain = top.Additions, tools.recordOf(k)
		if err == nil {
			k, f, err = t.tell(ctx, top.Commit, tools, k, f)
		}
	}()
	made, dir, err := t.entryOf(ctx, top.Commit, r, tools)
	if err != nil {
		return Kernel{}, nil, false, err
	}
	if k, f, ok := loadEntry(dir); ok {
		return k, f, true, nil
	}
	waiting, cut := o.waiting, ctx // of a guess, the context can be cut short
	if o.Ahead {
		cut, o = t.guess.begin(ctx, dir, o)
		defer t.guess.end()
	} else if t.guess.settle(dir, o) {
		waiting = nil
	}
	lock, err := lockFile(cut, filepath.Join(t.base, "lock"), holder(), waiting)
	if err != nil {
		return Kernel{}, nil, false, err
	}
	defer lock.Close()
	if k, f, ok := loadEntry(dir); ok {
		return k, f, true, nil // the other lab has built it
	}
	w := workTree{Tree: t, lock: lock, tools: tools, options: o}
	k, f, err = w.make(cut, top.Commit, r)
	var refused refusal
	if errors.As(err, &refused) {
		return Kernel{}, refused.Failure, false, nil
	}
	if err != nil {
		return Kernel{}, nil, false, err
	}
	if f != nil {
		_, f, err = publishEntry(w.out(), dir, made, nil, f)
		return Kernel{}, f, false, err
	}
	k.Commit, k.Source, k.OnTop = hash, "commit "+hash, top.Additions
	k, _, err = publishEntry(w.out(), dir, made, &k, nil)
	return k, nil, false, err
}

// tell adds what is known of a kernel or a failure beyond what was seen.
func (t *Tree) tell(ctx context.Context, commit string, tools Toolchain, k Kernel, f *Failure) (Kernel, *Failure, error) {
	var err error
	if k.Known, err = t.known(ctx, commit, tools, k); err != nil {
		return Kernel{}, nil, err
	}
	for i := range k.Known {
		k.Known[i] = *t.advise(ctx, &k.Known[i])
	}
	if f != nil {
		f.Hint = t.advise(ctx, explain(f))
	}
	return k, f, nil
}

// entryOf says what a commit's kernel is made from, and where the cache has it.
func (t *Tree) entryOf(ctx context.Context, hash string, r request, tools Toolchain) (made []string, dir string, err error) {
	tree, err := t.TreeHash(ctx, hash)
	if err != nil {
		return nil, "", err
	}
	made = append([]string{"build", "tree " + tree, r.identity()}, tools.Identity()...)
	return made, filepath.Join(t.kernels, cacheKey(made)), nil
}

// request is the configuration that is asked for.
type request struct {
	config kconfig.Config // without what is only to start from
	text   []byte         // fragment after fragment, for Kconfig's own reader, in which the last one wins too
	full   bool           // one of them is a whole .config
}

func newRequest(fragments []kconfig.Fragment) (request, error) {
	if len(fragments) == 0 {
		return request{}, errors.New("no configuration was given")
	}
	var r request
	var asked []kconfig.Fragment
	for _, f := range fragments {
		if !f.Base {
			asked = append(asked, f)
		}
		// One by one, because among the options of a choice the last one set
		// wins: the order between fragments has to stay.
		c, err := kconfig.Merge(f)
		if err != nil {
			return request{}, err
		}
		r.text = append(r.text, c.Bytes()...)
		r.full = r.full || f.Full()
	}
	var err error
	r.config, err = kconfig.Merge(asked...)
	return r, err
}

// identity says what is asked for; comments and order within a fragment do not
// matter.
func (r request) identity() string {
	sum := sha256.Sum256(r.text)
	mode := "fragments"
	if r.full {
		mode = "full"
	}
	return mode + " " + hex.EncodeToString(sum[:])
}
