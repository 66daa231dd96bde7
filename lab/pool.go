package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"lab/kernel"
	"lab/oci"
)

// A Package is a ready-made kernel among those of a bisect.
type Package struct {
	// Reference is a path, or the reference of an image, as it was given or as
	// it was found in a folder or a list.
	Reference string `json:"reference"`
	Name      string `json:"name"`              // the package's, or the file's
	Version   string `json:"version,omitempty"` // the package's
	Release   string `json:"release"`           // the kernel's
	Digest    string `json:"digest"`            // sha256:… of the package
	debian    bool
}

// String is how a package is spoken of.
func (p Package) String() string {
	if p.Version != "" {
		return p.Name + " " + p.Version
	}
	return p.Name + " (" + p.Release + ")"
}

// Limits on what may be a bisect's candidates.
const (
	maxPool = 10_000
	maxList = 4 << 20 // bytes of a list file
)

// Packages finds the kernels that the references name, each a .deb, an .rpm, a
// bzImage, a folder with the content of a package, an image, a folder or a
// pattern (path/filepath.Match) of any of these, or a list file with one
// reference a line, and puts them in order: by the kernel's release and then by
// the package's version. A list keeps its own order. Packages without a kernel
// that a folder or a pattern brings along are left out.
func (l *Lab) Packages(ctx context.Context, s Spec, references []string) ([]Package, error) {
	found, listed, err := expand(references)
	if err != nil {
		return nil, err
	}
	var packages []Package
	var without []string
	for i, ref := range found {
		l.Progress.Show("reading package %d of %d: %s", i+1, len(found), filepath.Base(ref))
		p, err := l.describe(ctx, s, ref)
		if errors.As(err, new(*kernel.NoKernelError)) && !listed && !slices.Contains(references, ref) {
			without = append(without, filepath.Base(ref)) // modules, headers and whatever else lies in a pool
			continue
		}
		if err != nil {
			l.Progress.Show("")
			return nil, err
		}
		packages = append(packages, p)
	}
	l.Progress.Show("")
	if len(without) > 0 {
		l.Progress.Say("left out, for there is no kernel in them: %s", some(without, 4))
	}
	if !listed {
		if err := order(packages); err != nil {
			return nil, err
		}
	}
	seen := make(map[string]Package)
	for _, p := range packages {
		if q, twice := seen[p.Digest]; twice {
			return nil, fmt.Errorf("%s and %s are the same package, byte for byte: leave one out", q.Reference, p.Reference)
		}
		seen[p.Digest] = p
	}
	if len(packages) < 2 {
		return nil, fmt.Errorf("%s in %s: a bisect needs two at least, a good one and a bad one", plural(len(packages), "kernel"), some(references, 3))
	}
	return packages, nil
}

// describe says what a reference is.
func (l *Lab) describe(ctx context.Context, s Spec, ref string) (Package, error) {
	p := Package{Reference: ref}
	s.Kernel = KernelSpec{File: ref}
	switch {
	case oci.HasTransport(ref):
		k, pin, err := l.imageKernel(ctx, s, "", kernel.Modules{})
		if err != nil {
			return p, err
		}
		p.Name, p.Release, p.Digest = publicReference(pin.Reference), k.Release, pin.Digest
	case kernel.IsPackage(ref):
		d, err := kernel.Describe(ctx, ref)
		if err != nil {
			return p, err
		}
		p.Name, p.Version, p.Release, p.Digest, p.debian = d.Name, d.Version, d.Release, d.Digest, d.Debian
		if p.Release == "" { // only the kernel itself says
			k, err := l.readyMade(ctx, s, "")
			if err != nil {
				return p, err
			}
			p.Release = k.Release
		}
	default:
		k, err := kernel.FromFile(ref)
		if err != nil {
			return p, err
		}
		p.Name, p.Release, p.Digest = filepath.Base(ref), k.Release, k.Digest
	}
	return p, nil
}

// order sorts packages by dpkg's rules when all are Debian's, or else by rpm's.
// Two of which neither is the older one are an error: any order of them would
// be a guess, and the answer too.
func order(packages []Package) error {
	debian := !slices.ContainsFunc(packages, func(p Package) bool { return !p.debian })
	version := kernel.CompareRPM
	if debian {
		version = kernel.CompareDebian
	}
	compare := func(a, b Package) int {
		return cmp.Or(kernel.CompareReleases(a.Release, b.Release, debian), version(a.Version, b.Version))
	}
	slices.SortStableFunc(packages, compare)
	for i := range packages[:max(0, len(packages)-1)] {
		if a, b := packages[i], packages[i+1]; compare(a, b) == 0 {
			return fmt.Errorf("which comes first, %s or %s? Both are %s: give a list file, one kernel a line from the oldest to the newest", a.Reference, b.Reference, strings.TrimSpace(a.Release+" "+a.Version))
		}
	}
	return nil
}

// expand turns references into those of single kernels, and says whether they
// come from lists.
func expand(references []string) (found []string, listed bool, err error) {
	for i, ref := range references {
		more, list, err := expandOne(ref)
		if err != nil {
			return nil, false, err
		}
		if i > 0 && list != listed {
			return nil, false, fmt.Errorf("only one of %s and %s is a list, which has an order of its own: put all kernels into one list", references[i-1], ref)
		}
		listed = list
		if found = append(found, more...); len(found) > maxPool {
			return nil, false, fmt.Errorf("more than %d kernels", maxPool)
		}
	}
	return found, listed, nil
}

func expandOne(ref string) (found []string, list bool, err error) {
	if oci.HasTransport(ref) {
		return []string{ref}, false, nil
	}
	info, err := os.Stat(ref)
	switch {
	case err != nil && strings.ContainsAny(ref, "*?["):
		found, err = filepath.Glob(ref)
		if err != nil {
			return nil, false, fmt.Errorf("find kernels %s: %w", ref, err)
		}
		if len(found) == 0 {
			return nil, false, fmt.Errorf("find kernels: nothing matches %s", ref)
		}
		return found, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("find kernels: %w", err)
	case kernel.IsPackage(ref), info.Mode().IsRegular() && kernel.IsImage(ref):
		return []string{ref}, false, nil
	case info.IsDir():
		found, err = kernelsIn(ref)
		return found, false, err
	}
	f, err := os.Open(ref)
	if err != nil {
		return nil, false, fmt.Errorf("find kernels: %w", err)
	}
	defer f.Close()
	if found, err = readList(f, filepath.Dir(ref)); err != nil {
		return nil, false, fmt.Errorf("read list of kernels %s: %w", ref, err)
	}
	return found, true, nil
}

// kernelsIn lists the kernels in a folder: packages, folders with the content
// of one, and files that are a kernel. Whatever else is there is left alone.
func kernelsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("find kernels: %w", err)
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		if err != nil {
			continue // a link to nowhere
		}
		ending := filepath.Ext(path)
		if ending == ".deb" || ending == ".rpm" || info.IsDir() && kernel.IsPackage(path) || info.Mode().IsRegular() && kernel.IsImage(path) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find kernels: there is no .deb, .rpm or kernel in %s", dir)
	}
	return found, nil
}

// readList reads a list file: one reference a line, # begins a comment at the
// beginning of a line or behind a blank. Paths are relative to the list's own
// folder.
func readList(r io.Reader, dir string) ([]string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxList {
		return nil, fmt.Errorf("larger than %d MiB", maxList>>20)
	}
	if !utf8.Valid(data) || bytes.ContainsRune(data, 0) {
		return nil, fmt.Errorf("neither a package nor a kernel, and no text either")
	}
	var found []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxList+1)
	for n := 1; lines.Scan(); n++ {
		ref := lines.Text()
		if i := strings.Index(ref, " #"); i >= 0 {
			ref = ref[:i]
		}
		if ref = strings.TrimSpace(ref); ref == "" || ref[0] == '#' {
			continue
		}
		if len(found) == maxPool {
			return nil, fmt.Errorf("line %d: more than %d kernels", n, maxPool)
		}
		if len(ref) > 4096 {
			return nil, fmt.Errorf("line %d: %.40q… is too long for a path", n, ref)
		}
		if !filepath.IsAbs(ref) && !oci.HasTransport(ref) {
			ref = filepath.Join(dir, ref)
		}
		found = append(found, ref)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("there is no kernel in it")
	}
	return found, nil
}

// pick finds the package that the user means: by its reference, the name of its
// file, its release, its version, or name and version.
func pick(packages []Package, what string) (int, error) {
	found := -1
	for i, p := range packages {
		if what != p.Reference && filepath.Clean(what) != filepath.Clean(p.Reference) && what != filepath.Base(p.Reference) && what != p.Release && what != p.Version && what != p.String() {
			continue
		}
		if found >= 0 {
			return 0, fmt.Errorf("%s could be %s or %s: give its path", what, packages[found].Reference, p.Reference)
		}
		found = i
	}
	if found < 0 {
		names := make([]string, len(packages))
		for i, p := range packages {
			names[i] = p.String()
		}
		return 0, fmt.Errorf("%s is none of the kernels %s: give a path, a release or a version", what, some(names, 12))
	}
	return found, nil
}
