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
	if err := t.vmlinux(ctx, commit, o, digest, file); err != nil {
		return fmt.Errorf("get vmlinux of commit %.12s: %w", commit, err)
	}
	return nil
}

func (t *Tree) vmlinux(ctx context.Context, hash string, o BuildOptions, digest, file string) error {
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
	w := workTree{Tree: t, lock: lock, tools: tools, options: o}
	k, f, err := w.make(ctx, top.Commit, r)
	switch {
	case err != nil:
		return err
	case f != nil:
		return errors.New(f.Line)
	case k.Digest != digest:
		return fmt.Errorf("it builds to another kernel now: %s, not %s", k.Digest, digest)
	}
	from, err := os.Open(filepath.Join(w.src(), "vmlinux"))
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
