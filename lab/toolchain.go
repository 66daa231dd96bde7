package lab

import (
	"context"
	"fmt"

	"lab/kernel"
	"lab/lab/bundle"
	"lab/oci"
)

// toolchain is what a spec's kernels are built with: a compiler of this host, by
// name, path or folder, or that of an image. It is the zero Toolchain, which has
// each commit choose by its age, where the spec names none.
func (l *Lab) toolchain(ctx context.Context, s Spec) (kernel.Toolchain, error) {
	ref := s.Kernel.Toolchain
	switch {
	case ref == "":
		return kernel.Toolchain{}, nil
	case !oci.HasTransport(ref):
		return kernel.FindToolchain(ctx, l.Cache, ref)
	}
	store, err := l.store()
	if err != nil {
		return kernel.Toolchain{}, err
	}
	s.Platform = "linux/amd64" // of this host, whatever the guest's images are for
	img, err := l.image(ctx, store, s, Load{Reference: ref}, "")
	if err != nil {
		return kernel.Toolchain{}, fmt.Errorf("toolchain: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return kernel.Toolchain{}, fmt.Errorf("toolchain %s: read its configuration: %w", ref, err)
	}
	l.Progress.Show("unpacking the toolchain of %s", ref)
	defer l.Progress.Show("")
	t, err := kernel.OpenToolchain(ctx, l.Cache, kernel.ToolchainImage{
		Reference: publicReference(img.Pin.Reference), Digest: img.Pin.Digest, Env: config.Config.Env, Open: flatten(img, s.Limits),
	})
	if err == nil {
		l.Progress.Say("compiler: %s, of %s", t.Compiler(), t.Image)
	}
	return t, err
}

// chooseToolchain has all commits of a bisect built with one toolchain, that
// which suits both ends: else a change of compilers in between could be taken for
// the kernel's. Ready-made kernels have none.
func (b *bisection) chooseToolchain(ctx context.Context, good []kernel.Commit, bad kernel.Commit) error {
	if b.tree == nil {
		return nil
	}
	if b.options.Toolchain.Tools == nil {
		commits := []string{bad.Hash}
		for _, g := range good {
			commits = append([]string{g.Hash}, commits...)
		}
		var err error
		if b.options.Toolchain, err = b.tree.ChooseToolchain(ctx, b.options.Notice, commits...); err != nil {
			return err
		}
	}
	public := b.options.Toolchain.Public()
	b.result.Toolchain = &public
	return nil
}

// bundledToolchain is the record of a toolchain for a bundle.
func bundledToolchain(t *kernel.Toolchain) *bundle.Toolchain {
	if t == nil {
		return nil
	}
	r := &bundle.Toolchain{Image: t.Image, Digest: t.Digest}
	for _, tool := range t.Tools {
		r.Tools = append(r.Tools, bundle.Tool{Name: tool.Name, Version: tool.Version, Digest: tool.Digest})
	}
	return r
}
