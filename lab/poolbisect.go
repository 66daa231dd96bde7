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
	spec     Spec
	packages []Package // from the oldest to the newest
	commits  []kernel.Commit
}

func (l *Lab) openPool(ctx context.Context, o BisectOptions) (*pool, error) {
	packages, err := l.Packages(ctx, o.Spec, o.Kernels)
	if err != nil {
		return nil, err
	}
	return newPool(l, o.Spec, packages), nil
}

func newPool(l *Lab, s Spec, packages []Package) *pool {
	p := &pool{Lab: l, spec: s, packages: packages}
	for i, k := range packages {
		c := kernel.Commit{Hash: k.Digest, Title: k.String()}
		if i > 0 {
			c.Parents = []string{packages[i-1].Digest}
		}
		p.commits = append(p.commits, c)
	}
	return p
}

func (p *pool) find(hash string) int {
	return slices.IndexFunc(p.commits, func(c kernel.Commit) bool { return c.Hash == hash })
}

// ends finds the ends of the bisect, by default the first kernel and the last
// one, and gives the kernels from behind the newest good one to the bad one.
func (p *pool) ends(_ context.Context, o BisectOptions, result *Bisection) ([]kernel.Commit, error) {
	bad, last := len(p.packages)-1, 0
	var err error
	if o.Bad != "" {
		if bad, err = pick(p.packages, o.Bad); err != nil {
			return nil, fmt.Errorf("bad end: %w", err)
		}
	}
	goods := []int{0}
	if len(o.Good) > 0 {
		goods = nil
	}
	for _, what := range o.Good {
		i, err := pick(p.packages, what)
		if err != nil {
			return nil, fmt.Errorf("good end: %w", err)
		}
		goods = append(goods, i)
	}
	for _, i := range goods {
		if i >= bad {
			return nil, fmt.Errorf("the good kernel %s does not come before the bad one %s: are the two swapped?", p.packages[i], p.packages[bad])
		}
		result.Good = append(result.Good, p.commits[i])
		last = max(last, i)
	}
	result.Bad = p.commits[bad]
	result.Kernels = p.packages
	result.Range = bad - last
	return p.commits[last+1 : bad+1], nil
}

// digests name the kernels and their order.
func (p *pool) digests() []string {
	if p == nil {
		return nil
	}
	var d []string
	for _, k := range p.packages {
		d = append(d, k.Digest)
	}
	return d
}

// trial unpacks a kernel of the pool.
func (p *pool) trial(ctx context.Context, c kernel.Commit) (Trial, error) {
	i := p.find(c.Hash)
	if i < 0 {
		return Trial{}, fmt.Errorf("%s is none of the kernels of this bisect", c.Hash)
	}
	s := p.spec
	s.Kernel.File = p.packages[i].Reference
	k, err := p.readyMade(ctx, s, c.Hash)
	return Trial{Kernel: k, End: EndBuilt, Cached: true}, err
}

func (p *pool) resolve(_ context.Context, hash string) (kernel.Commit, error) {
	i := p.find(hash)
	if i < 0 {
		return kernel.Commit{}, fmt.Errorf("%s is none of the kernels of this bisect", hash)
	}
	return p.commits[i], nil
}

func (p *pool) words(text string) string {
	return strings.NewReplacer("commit", "kernel", "parent", "predecessor").Replace(text)
}

func (p *pool) Close() error { return nil }

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
