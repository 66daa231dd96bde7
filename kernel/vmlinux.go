package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Vmlinux builds a commit's kernel in the work tree, whatever the cache has, and
// copies its vmlinux, which has the symbols and is not kept, to a new file. The
// bzImage must be that of the given digest: then the file is the same code.
func (t *Tree) Vmlinux(ctx context.Context, commit string, o BuildOptions, digest, file string) error {
	err := t.vmlinux(ctx, commit, o, nil, file, func(k Kernel, _ string) error {
		if k.Digest != digest {
			return fmt.Errorf("it builds to another kernel now: %s, not %s", k.Digest, digest)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("get vmlinux of commit %.12s: %w", commit, err)
	}
	return nil
}

// debugSuffix is at the end of the folder of a Tree that OpenDebugTree opened.
const debugSuffix = "-debug"

// OpenDebugTree is OpenTree for [Tree.DebugInfo], in a work tree of its own: an object
// with debug information is another object.
func OpenDebugTree(ctx context.Context, cache, repo string) (*Tree, error) {
	t, err := openTree(ctx, cache, repo, debugSuffix)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", repo, err)
	}
	return t, nil
}

// DebugInfo builds a commit's kernel with debug information (-g of gcc(1), which changes
// no code), and copies its vmlinux to a new file. It must be SameCode as a bzImage that
// was built without. The sources that it names stay in the work tree until another
// kernel is built there.
func (t *Tree) DebugInfo(ctx context.Context, commit string, o BuildOptions, image, file string) error {
	// KCFLAGS: Documentation/kbuild/kbuild.rst.
	err := t.vmlinux(ctx, commit, o, []string{"KCFLAGS=-g"}, file, func(_ Kernel, vmlinux string) error { return SameCode(image, vmlinux) })
	if err != nil {
		return fmt.Errorf("build commit %.12s with debug information: %w", commit, err)
	}
	return nil
}

func (t *Tree) vmlinux(ctx context.Context, hash string, o BuildOptions, env []string, file string, check func(k Kernel, vmlinux string) error) error {
	r, err := newRequest(o.Fragments)
	if err != nil {
		return err
	}
	tools, err := t.toolchain(ctx, hash, o)
	if err != nil {
		return err
	}
	top, f, err := t.OnTop(ctx, hash, o)
	if err == nil && f != nil {
		err = errors.New(f.Line)
	}
	if err != nil {
		return err
	}
	lock, err := lockFile(ctx, filepath.Join(t.base, "lock"), holder(), o.waiting)
	if err != nil {
		return err
	}
	defer lock.Close()
	w := workTree{Tree: t, lock: lock, tools: tools, options: o, env: env}
	k, f, err := w.make(ctx, top.Commit, r)
	if err == nil && f != nil {
		err = errors.New(f.Line)
	}
	if err != nil {
		return err
	}
	vmlinux := filepath.Join(w.src(), "vmlinux")
	if err := check(k, vmlinux); err != nil {
		return err
	}
	from, err := os.Open(vmlinux)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
