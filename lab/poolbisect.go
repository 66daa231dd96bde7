package lab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"lab/kernel"
	"lab/lab/bundle"
)

// A pool is the ready-made kernels that a bisect works on. The bisect knows
// each as a commit: its hash is the package's digest, its title is what it is
// called, its parent is the one before it.
type pool struct {
	*Lab
	row
	spec     Spec
	packages []Package // from the oldest to the newest
}

func (l *Lab) openPool(ctx context.Context, o BisectOptions) (*pool, error) {
	packages, err := l.Packages(ctx, o.Spec, o.Kernels)
	if err != nil {
		return nil, err
	}
	return newPool(l, o.Spec, packages), nil
}

func newPool(l *Lab, s Spec, packages []Package) *pool {
	p := &pool{Lab: l, spec: s, packages: packages, row: row{what: "kernel"}}
	for _, k := range packages {
		p.add(k.Digest, k.String())
	}
	return p
}

func (p *pool) ends(_ context.Context, o BisectOptions, result *Bisection) ([]kernel.Commit, error) {
	result.Kernels = p.packages
	return p.between(o, func(what string) (int, error) { return pick(p.packages, what) }, result)
}

func (p *pool) identity() (names []string) {
	for _, k := range p.packages {
		names = append(names, k.Digest)
	}
	return names
}

// trial unpacks a kernel of the pool.
func (p *pool) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	i, err := p.find(c.Hash)
	if err != nil {
		return Trial{}, err
	}
	s := p.spec
	s.Kernel.File = p.packages[i].Reference
	k, err := p.readyMade(ctx, s, c.Hash)
	return Trial{Kernel: k, End: EndBuilt, Cached: true}, err
}

// isPackageHash tells the hash of a package among commits from that of a commit.
func isPackageHash(hash string) bool { return strings.HasPrefix(hash, "sha256:") }

// digestModules names the modules that come along with a kernel, by content
// and order; empty where there are none.
func digestModules(files []string) (string, error) {
	if len(files) == 0 {
		return "", nil
	}
	h := sha256.New()
	for _, file := range files {
		digest, err := digestOf(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %s\n", digest, filepath.Base(file))
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), nil
}

// FirstBad is the culprit of a bisect over ready-made kernels, and nil for any
// other bisect.
func (b *Bisection) FirstBad() *Package {
	if b.Culprit == nil {
		return nil
	}
	return b.kernel(b.Culprit.Hash)
}

// inBundle is the package as a bundle has it.
func (p Package) inBundle() *bundle.Package {
	return &bundle.Package{Name: p.Name, Version: p.Version, Digest: p.Digest}
}

// LastGood is the kernel before the culprit.
func (b *Bisection) LastGood() *Package {
	if b.Culprit == nil || len(b.Culprit.Parents) == 0 {
		return nil
	}
	return b.kernel(b.Culprit.Parents[0])
}

func (b *Bisection) kernel(hash string) *Package {
	if i := slices.IndexFunc(b.Kernels, func(p Package) bool { return p.Digest == hash }); i >= 0 {
		return &b.Kernels[i]
	}
	return nil
}

// Next says what to do with the answer of a bisect over ready-made kernels:
// where what changed between the two is told, and where to bisect on.
func (b *Bisection) Next() []string {
	if b.Culprit != nil && b.Axis == "image" && len(b.Parents) > 0 {
		return []string{fmt.Sprintf("see what differs between the two: lab image build --load app=%s -o good.img && lab image build --load app=%s -o bad.img && lab image diff good.img:app bad.img:app",
			b.title(b.Parents[0]), b.Culprit.Title)}
	}
	bad, good := b.FirstBad(), b.LastGood()
	if bad == nil || good == nil {
		return nil
	}
	next := []string{fmt.Sprintf("read the changelog of %s from %s on: %s", bad.Name, cmp.Or(good.Version, good.Release), changelog(*bad))}
	from, to := upstream(*good), upstream(*bad)
	switch {
	case from == "" || to == "":
	case from == to:
		next = append(next, fmt.Sprintf("both kernels are based on Linux %s: what broke it is a patch or an option of the distribution", from))
	default:
		next = append(next, fmt.Sprintf("upstream, the change is among those of %s..%s, unless it is the distribution's: lab bisect --repo LINUX --good %s --bad %s --config FRAGMENT", from, to, from, to))
	}
	return next
}

// title is that of a candidate that was tested.
func (b *Bisection) title(hash string) string {
	i := slices.IndexFunc(b.Tested, func(t Tested) bool { return t.Commit.Hash == hash })
	if i < 0 {
		return short(hash)
	}
	return b.Tested[i].Commit.Title
}

// changelog says how to see a package's.
func changelog(p Package) string {
	switch filepath.Ext(p.Reference) {
	case ".deb":
		return "usr/share/doc/" + p.Name + "/changelog*.gz in the package"
	case ".rpm":
		return "rpm -qp --changelog " + filepath.Base(p.Reference)
	}
	return "see where the kernel comes from"
}

var upstreamVersion = regexp.MustCompile(`^(\d+\.\d+)(\.\d+)?(?:[~-](rc\d+))?`)

// upstream is the tag of the kernel that a distribution's is based on, as far
// as its version, or else its release, tells: v6.1.192 of 6.1.192-2.
func upstream(p Package) string {
	_, version, ok := strings.Cut(p.Version, ":")
	if !ok {
		version = p.Version
	}
	m := upstreamVersion.FindStringSubmatch(version)
	if m == nil {
		if m = upstreamVersion.FindStringSubmatch(p.Release); m == nil {
			return ""
		}
	}
	tag := "v" + m[1]
	if m[2] != ".0" {
		tag += m[2]
	}
	if m[3] != "" {
		tag += "-" + m[3]
	}
	return tag
}
