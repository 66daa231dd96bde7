package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Distributions that keep a kernel's modules out of its package name theirs
// like this: linux-modules-RELEASE and linux-modules-extra-RELEASE for
// linux-image-RELEASE and linux-image-unsigned-RELEASE (Ubuntu), and
// kernel-modules-core, kernel-modules and kernel-modules-extra for kernel-core,
// with kernel-rt and the like in the place of kernel (Fedora, RHEL).

// companionNames are the packages that may have modules of a package's kernel.
func companionNames(name string) []string {
	if release, ok := strings.CutPrefix(name, "linux-image-"); ok {
		release = strings.TrimPrefix(release, "unsigned-")
		return []string{"linux-modules-" + release, "linux-modules-extra-" + release}
	}
	if flavour, ok := strings.CutSuffix(name, "-core"); ok {
		return []string{flavour + "-modules-core", flavour + "-modules", flavour + "-modules-extra"}
	}
	return nil
}

// withCompanions adds to a package those beside it, of the same version, that
// have modules of its kernel. What it gives is to be closed in its place; after an
// error there is nothing to close.
func withCompanions(ctx context.Context, path string, p openedPackage) (openedPackage, error) {
	absent := companionNames(p.name)
	if len(absent) == 0 || p.version == "" {
		return p, nil // a folder, or one that has its modules itself
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return openedPackage{}, errors.Join(err, p.Close())
	}
	all := []openedPackage{p}
	for _, e := range entries {
		begins := func(name string) bool {
			rest, ok := strings.CutPrefix(e.Name(), name)
			return ok && (strings.HasPrefix(rest, "_") || strings.HasPrefix(rest, "-"))
		}
		beside := filepath.Join(filepath.Dir(path), e.Name())
		if filepath.Ext(beside) != filepath.Ext(path) || !slices.ContainsFunc(absent, begins) {
			continue
		}
		q, err := openPackage(ctx, beside)
		if err != nil {
			return openedPackage{}, errors.Join(fmt.Errorf("read package %s beside it: %w", e.Name(), err), closeAll(all))
		}
		if i := slices.Index(absent, q.name); i >= 0 && q.version == p.version {
			absent = slices.Delete(absent, i, i+1)
			all = append(all, q)
			continue
		}
		q.Close()
	}
	return join(all, absent), nil
}

// join makes one package of several, the first of which has the kernel.
func join(all []openedPackage, absent []string) openedPackage {
	whole := all[0]
	whole.absent, whole.joined = absent, len(all) > 1
	whole.file = closers(all)
	for _, p := range all[1:] {
		whole.digest += " " + p.digest
	}
	whole.walk = func(ctx context.Context, visit func(string, io.Reader) error) error {
		for _, p := range all {
			if err := p.walk(ctx, visit); err != nil {
				return fmt.Errorf("%s: %w", p.label(), err)
			}
		}
		return nil
	}
	return whole
}

type closers []openedPackage

func (c closers) Close() error { return closeAll(c) }

func closeAll(packages []openedPackage) error {
	var err error
	for _, p := range packages {
		err = errors.Join(err, p.Close())
	}
	return err
}
