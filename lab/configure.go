package lab

import (
	"context"
	"strings"

	"lab/kernel"
	"lab/kernel/kconfig"
)

// fragments reads the kernel's config fragments: "host", the running kernel's
// configuration, or "host:FILE", that in a package; the name of a built-in one;
// or a file. Without any it is "container".
func (l *Lab) fragments(ctx context.Context, k KernelSpec) ([]kconfig.Fragment, error) {
	names := k.Config
	if len(names) == 0 {
		names = []string{"container"}
	}
	var fs []kconfig.Fragment
	for _, n := range names {
		f, err := l.fragment(ctx, n)
		if err != nil {
			return nil, err
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func (l *Lab) fragment(ctx context.Context, name string) (kconfig.Fragment, error) {
	if path, ok := strings.CutPrefix(name, "host:"); ok || name == "host" {
		return kernel.HostConfig(ctx, l.Cache, path)
	}
	return kconfig.Load(name)
}

// Configure resolves the kernel's config fragments at its commit, as a build
// would, and compiles nothing.
func (l *Lab) Configure(ctx context.Context, k KernelSpec) (kernel.Resolution, *kernel.Failure, error) {
	tree, o, err := l.openTree(ctx, Spec{Kernel: k})
	if err != nil {
		return kernel.Resolution{}, nil, err
	}
	defer tree.Close()
	defer l.Progress.Show("")
	l.Progress.Show("configuring %s", k.Commit)
	o.Progress = func(line string, _, _ int) {
		if strings.HasPrefix(line, "waiting") {
			l.Progress.Show("%s", line)
		}
	}
	r, f, err := tree.Configure(ctx, k.Commit, o)
	l.sayOnTop(kernel.Commit{Hash: r.Commit}, r.OnTop)
	return r, f, err
}
