package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"lab/kernel"
)

// A Build is one kernel, built and not booted: a Kernel, or a Failure.
type Build struct {
	Commit  kernel.Commit        `json:"commit"`
	Kernel  kernel.Kernel        `json:"kernel"`
	Failure *kernel.Failure      `json:"failure,omitempty"`
	Cached  bool                 `json:"cached"`
	Build   time.Duration        `json:"build_ns"`
	Verify  *kernel.Verification `json:"verify,omitempty"`
}

// BuildKernel builds a commit's kernel, or finds it in the cache, and puts it
// with all that belongs to it into the folder dir, unless that is empty.
func (l *Lab) BuildKernel(ctx context.Context, k KernelSpec, dir string) (Build, error) {
	tree, o, err := l.openTree(ctx, Spec{Kernel: k})
	if err != nil {
		return Build{}, err
	}
	defer tree.Close()
	c, err := tree.Resolve(ctx, k.Commit)
	if err != nil {
		return Build{}, err
	}
	t, err := l.build(ctx, tree, c, o)
	if err != nil {
		return Build{}, err
	}
	b := Build{Commit: c, Kernel: t.Kernel, Failure: t.Failure, Cached: t.Cached, Build: t.Build}
	if dir == "" {
		return b, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Build{}, fmt.Errorf("write kernel: %w", err)
	}
	paths := []*string{&b.Kernel.Image, &b.Kernel.Config, &b.Kernel.SystemMap, &b.Kernel.Log}
	if b.Failure != nil {
		paths = []*string{&b.Failure.Log}
	}
	for _, path := range paths {
		if *path == "" {
			continue
		}
		to := filepath.Join(dir, filepath.Base(*path))
		if err := copyFile(*path, to); err != nil {
			return Build{}, fmt.Errorf("write kernel: %w", err)
		}
		*path = to
	}
	return b, nil
}

// VerifyKernel builds a commit's kernel twice, from nothing, and compares.
func (l *Lab) VerifyKernel(ctx context.Context, k KernelSpec, c kernel.Commit) (kernel.Verification, error) {
	tree, o, err := l.openTree(ctx, Spec{Kernel: k})
	if err != nil {
		return kernel.Verification{}, err
	}
	defer tree.Close()
	defer l.Progress.Show("")
	o.Progress = l.buildProgress(c.Hash)
	return kernel.Verify(ctx, l.Cache, tree.Repository(), c.Hash, o)
}

// copyFile writes a copy, which appears whole or not at all.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer out.Cleanup()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.CloseAtomicallyReplace()
}
