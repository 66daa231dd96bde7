package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits on the files of a package that are kept.
const (
	maxImage     = 512 << 20
	maxConfig    = 8 << 20
	maxSystemMap = 128 << 20
	maxBuiltin   = 8 << 20
)

// contents are the files of a package, however it is packed.
type contents struct {
	kind          string // "package" or "image"
	name, version string
	// depends are the packages that may have the kernel where this one has not.
	depends []string
	// absent are packages that would have more modules of its kernel.
	absent []string
	joined bool // some of these are in here
	// paths are all files' paths where the package lists them up front.
	paths []string
	// walk calls visit for each regular file with its clean path,
	// "boot/vmlinuz-6.1", and its content. What visit returns ends the walk.
	walk func(ctx context.Context, visit func(name string, r io.Reader) error) error
}

// label is how the package is spoken of.
func (c contents) label() string { return strings.TrimSpace(c.name + " " + c.version) }

// Modules names modules beyond those without which lab's guest finds neither
// its disk nor its ports.
type Modules struct {
	// Offered come along where the package has them, as DiskDrivers do.
	Offered []string
	// Needed are in the kernel or come along; that one is missing is an error.
	Needed []string
}

// FromPackage returns the kernel in a Debian package (.deb), in an RPM package
// or in a folder with the content of either: its image, its configuration, and
// the modules that lab's guest needs to find its disk and its ports, and those
// that are named, in the order to load them. Those modules that a distribution
// has in packages of their own, linux-modules-RELEASE or kernel-modules, are
// taken from these, of the same version, where they lie beside the package. All
// is unpacked below cache/kernels, once for packages of the same bytes. Nothing of
// a package is run.
//
// A package without a kernel in it, such as the metapackage
// linux-image-cloud-amd64, gives an error that names the package it depends on.
func FromPackage(ctx context.Context, cache, path string, m Modules) (Kernel, error) {
	p, err := openPackage(ctx, path)
	if err != nil {
		return Kernel{}, fmt.Errorf("read package %s: %w", path, err)
	}
	if p, err = withCompanions(ctx, path, p); err != nil {
		return Kernel{}, fmt.Errorf("read package %s: %w", path, err)
	}
	defer p.Close()
	k, err := unpackOnce(ctx, cache, p.digest, m, func() (contents, error) { return p.contents, nil })
	if err != nil {
		return Kernel{}, fmt.Errorf("read package %s: %w", path, err)
	}
	return k, nil
}

// FromTar returns the kernel in a tar, as of the root file system of an image,
// where it lies as in a package, or below data/kernels/RELEASE as in cilium's
// images. Name and digest say what the tar is; it is opened where no kernel of
// that digest is in the cache.
func FromTar(ctx context.Context, cache, name, digest string, m Modules, open func(context.Context) (io.ReadCloser, error)) (Kernel, error) {
	k, err := unpackOnce(ctx, cache, digest, m, func() (contents, error) {
		return contents{kind: "image", name: name, walk: func(ctx context.Context, visit func(string, io.Reader) error) error {
			r, err := open(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			return walkPlainTar(r, math.MaxInt64, regular(ctx, visit))
		}}, nil
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel of image %s: %w", name, err)
	}
	return k, nil
}

// unpackOnce unpacks a package unless the cache has what is in it.
func unpackOnce(ctx context.Context, cache, digest string, m Modules, open func() (contents, error)) (Kernel, error) {
	kernels, err := kernelsDir(cache)
	if err != nil {
		return Kernel{}, err
	}
	made := append([]string{"package, format 2", digest}, m.Offered...)
	for _, name := range m.Needed {
		made = append(made, "needed "+name)
	}
	key := cacheKey(made)
	dir := filepath.Join(kernels, key)
	if k, _, ok := loadEntry(dir); ok {
		return k, nil
	}
	lock, err := lockFile(ctx, filepath.Join(kernels, ".packages.lock"), holder(), nil)
	if err != nil {
		return Kernel{}, err
	}
	defer lock.Close()
	if k, _, ok := loadEntry(dir); ok {
		return k, nil
	}
	tmp := filepath.Join(kernels, "."+key+".tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	c, err := open()
	if err != nil {
		return Kernel{}, err
	}
	k, err := unpack(ctx, c, tmp, m)
	if err != nil {
		return Kernel{}, err
	}
	k, _, err = publishEntry(tmp, dir, made, &k, nil)
	return k, err
}

// kernelsDir is where the cache keeps kernels, as an absolute path.
func kernelsDir(cache string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cache, "kernels"))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// unpack unpacks what is needed of a package into the new directory dir: the
// kernel, and its modules.
func unpack(ctx context.Context, c contents, dir string, m Modules) (Kernel, error) {
	spool := filepath.Join(dir, "spool")
	modules := filepath.Join(dir, "modules")
	for _, dir := range []string{spool, modules} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Kernel{}, err
		}
	}
	u := unpacking{dir: dir, spool: spool, modules: moduleSet{owner: c.label(), absent: c.absent, files: map[string]string{}, builtin: map[string]bool{}}}
	err := c.walk(ctx, func(name string, r io.Reader) error {
		if err := u.take(name, r); err != nil {
			return fmt.Errorf("unpack %s: %w", printable([]byte(name)), err)
		}
		return nil
	})
	if err != nil {
		return Kernel{}, err
	}
	if u.image == "" {
		return Kernel{}, c.noKernel()
	}
	k, err := FromFile(u.image)
	if err != nil {
		return Kernel{}, err
	}
	k.Config, k.SystemMap = u.config, u.systemMap
	k.Source = c.kind + " " + c.label()
	if !c.joined && len(u.modules.files) > 0 {
		u.modules.absent = nil // this distribution has them all in one
	}
	if k.Modules, err = u.modules.extract(modules, slices.Concat(wanted, m.Offered), m.Needed); err != nil {
		return Kernel{}, err
	}
	return k, os.RemoveAll(spool)
}

// A NoKernelError is the error for a package without a kernel.
type NoKernelError struct {
	Name    string
	Depends []string // packages that may have it
}

func (e *NoKernelError) Error() string {
	if len(e.Depends) > 0 {
		return fmt.Sprintf("%s holds no kernel itself; it depends on %s", e.Name, strings.Join(e.Depends, ", "))
	}
	return e.Name + " holds no kernel: no boot/vmlinuz-… in it"
}

func (c contents) noKernel() error { return &NoKernelError{c.name, c.depends} }

// unpacking is what has been found in a package so far.
type unpacking struct {
	dir, spool               string
	image, config, systemMap string
	imageName                string // of the image in the package
	modules                  moduleSet
}

// located splits the path of a file of a kernel, and says whether it is below
// lib/modules (tree) or right in lib/modules/RELEASE (top). The root of it may
// be /usr and, in cilium's images of kernels, /data/kernels/RELEASE.
func located(name string) (dir, base string, tree, top bool) {
	if rest, ok := strings.CutPrefix(name, "data/kernels/"); ok {
		_, name, _ = strings.Cut(rest, "/")
	}
	name = strings.TrimPrefix(name, "usr/")
	dir, base = path.Split(name)
	tree = strings.HasPrefix(dir, "lib/modules/")
	return dir, base, tree, tree && strings.Count(dir, "/") == 3
}

// isImage says whether that is the path of a kernel, and of which release.
func isImage(name string) (release string, ok bool) {
	dir, base, _, top := located(name)
	switch {
	case dir == "boot/" && strings.HasPrefix(base, "vmlinuz-0-rescue-"):
		return "", false // a copy that installers make
	case dir == "boot/" && strings.HasPrefix(base, "vmlinuz-"):
		return base[len("vmlinuz-"):], true
	case dir == "boot/" && base == "vmlinuz":
		return "", true
	case top && base == "vmlinuz":
		return path.Base(dir), true
	}
	return "", false
}

// take keeps the file when it is one that is needed. Any module may turn out
// to be: they are put aside until all are there.
func (u *unpacking) take(name string, r io.Reader) error {
	dir, base, tree, top := located(name)
	if _, ok := isImage(name); ok {
		return u.takeImage(name, r)
	}
	switch {
	case (dir == "boot/" && strings.HasPrefix(base, "config-") || top && base == "config") && u.config == "":
		u.config = filepath.Join(u.dir, "config")
		return writeFile(u.config, r, maxConfig)
	case (dir == "boot/" && strings.HasPrefix(base, "System.map-") || top && base == "System.map") && u.systemMap == "":
		return u.takeSystemMap(r)
	case top && base == "modules.builtin":
		text, err := readAll(r, maxBuiltin)
		for line := range bytes.Lines(text) {
			u.modules.builtin[moduleName(string(bytes.TrimSpace(line)))] = true
		}
		return err
	case tree && isModuleFile(base):
		module := moduleName(base)
		if u.modules.files[module] != "" {
			return nil // one of that name is there already
		}
		file := filepath.Join(u.spool, base)
		u.modules.files[module] = file
		return writeFile(file, r, maxModule)
	}
	return nil
}

// takeImage takes the one kernel of a package, which some distributions have
// in boot and beside its modules too.
func (u *unpacking) takeImage(name string, r io.Reader) error {
	if u.image == "" {
		u.image, u.imageName = filepath.Join(u.dir, "bzImage"), name
		return writeFile(u.image, r, maxImage)
	}
	first, err := os.Open(u.image)
	if err != nil {
		return err
	}
	defer first.Close()
	same, err := sameBytes(first, io.LimitReader(r, maxImage+1))
	if err == nil && !same {
		err = fmt.Errorf("a second kernel in one package, besides %s: which one is meant?", printable([]byte(u.imageName)))
	}
	return err
}

// sameBytes compares two streams to the end of the shorter one.
func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return false, err
		}
		m, err := io.ReadFull(b, y)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:m]) || ended {
			return bytes.Equal(x[:n], y[:m]), nil
		}
	}
}

// takeSystemMap leaves out Debian's, which is one line that says where the
// real one is.
func (u *unpacking) takeSystemMap(r io.Reader) error {
	b := bufio.NewReader(r)
	if head, _ := b.Peek(1024); bytes.Contains(head, []byte("The real System.map is in")) {
		return nil
	}
	u.systemMap = filepath.Join(u.dir, "System.map")
	return writeFile(u.systemMap, b, maxSystemMap)
}

// isModuleFile accepts NAME.ko and NAME.ko.xz, .gz and .zst, where NAME is
// made of the characters that module names are made of.
func isModuleFile(base string) bool {
	name, ending, _ := strings.Cut(base, ".ko")
	switch ending {
	case "", ".xz", ".gz", ".zst":
	default:
		return false
	}
	if !strings.Contains(base, ".ko") || name == "" || len(base) > 200 {
		return false
	}
	for _, r := range name {
		if r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return true
}
