package kernel

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Package says what a package is, as far as that is known without unpacking
// it.
type Package struct {
	Name    string // as its distribution calls it; of a folder its own name
	Version string // of the package; empty when it has none
	Release string // of the kernel, as uname -r says; empty when only the kernel itself tells
	Digest  string // sha256:… of the package, of a folder's paths and contents
	Debian  bool   // it is a .deb, whose versions are ordered by dpkg's rules
}

// Describe reads what a package says of itself and of its kernel: little of it,
// as a rule. A package without a kernel is an error.
func Describe(ctx context.Context, path string) (Package, error) {
	p, err := openPackage(ctx, path)
	if err != nil {
		return Package{}, fmt.Errorf("read package %s: %w", path, err)
	}
	defer p.Close()
	d := Package{Name: p.name, Version: p.version, Digest: p.digest, Debian: p.debian}
	found := false
	for _, name := range p.paths {
		release, ok := isImage(name)
		if found = found || ok; release != "" {
			d.Release = release
		}
	}
	if p.paths == nil {
		stop := errors.New("found")
		err := p.walk(ctx, func(name string, _ io.Reader) error {
			release, ok := isImage(name)
			if found = found || ok; release == "" {
				return nil
			}
			d.Release = release
			return stop
		})
		if err != nil && !errors.Is(err, stop) {
			return Package{}, fmt.Errorf("read package %s: %w", path, err)
		}
	}
	if !found {
		return Package{}, fmt.Errorf("read package %s: %w", path, p.noKernel())
	}
	d.Release = printable([]byte(d.Release))
	return d, nil
}

// IsPackage tells a package, and a folder with the content of one, from a
// kernel by the first bytes; what can't be read is left for others to explain.
func IsPackage(path string) bool {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return isKernelDir(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, len(arMagic))
	n, _ := io.ReadFull(f, magic)
	return string(magic[:n]) == arMagic || strings.HasPrefix(string(magic[:n]), rpmMagic)
}

// IsImage tells a kernel itself, a bzImage or an ELF vmlinux, by its first
// bytes. Whether it can be booted FromFile says.
func IsImage(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, headerSize)
	n, _ := io.ReadFull(f, head)
	return strings.HasPrefix(string(head[:n]), elf.ELFMAG) || n == headerSize && string(head[offMagic:offMagic+4]) == "HdrS"
}

// openedPackage is a package that can be read until it is closed.
type openedPackage struct {
	contents
	digest string
	debian bool
	file   io.Closer
}

func (p openedPackage) Close() error { return p.file.Close() }

func openPackage(ctx context.Context, path string) (openedPackage, error) {
	info, err := os.Stat(path)
	if err != nil {
		return openedPackage{}, err
	}
	if info.IsDir() {
		return openDir(ctx, path)
	}
	if !info.Mode().IsRegular() {
		return openedPackage{}, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return openedPackage{}, err
	}
	p, err := openFile(f)
	if err != nil {
		f.Close()
		return openedPackage{}, err
	}
	return p, nil
}

func openFile(f *os.File) (openedPackage, error) {
	info, err := f.Stat()
	if err != nil {
		return openedPackage{}, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return openedPackage{}, err
	}
	p := openedPackage{digest: "sha256:" + hex.EncodeToString(h.Sum(nil)), file: f}
	magic := make([]byte, len(rpmMagic))
	if _, err := f.ReadAt(magic, 0); err == nil && string(magic) == rpmMagic {
		r, err := openRPM(f, info.Size())
		p.contents = r.contents()
		return p, err
	}
	d, err := openDeb(f, info.Size())
	p.contents, p.debian = d.contents(), true
	return p, err
}

// kernelDirs are where a folder with the content of a package has its files.
var kernelDirs = []string{"boot", "lib/modules", "usr/lib/modules"}

// isKernelDir says whether a folder has the content of a kernel's package.
func isKernelDir(dir string) bool {
	for _, name := range kernelDirs {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}

// openDir reads a folder as a package. Links that lead out of it are not
// followed; a build folder beside the modules, being a link, is not looked at.
func openDir(ctx context.Context, dir string) (openedPackage, error) {
	if !isKernelDir(dir) {
		return openedPackage{}, fmt.Errorf("a folder with none of %s in it: give the folder of one unpacked package", strings.Join(kernelDirs, ", "))
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return openedPackage{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return openedPackage{}, err
	}
	p := openedPackage{file: root}
	p.kind, p.name = "package", filepath.Base(absolute)
	h := sha256.New()
	if p.paths, err = listDir(root); err == nil {
		p.walk = func(ctx context.Context, visit func(string, io.Reader) error) error {
			return walkDir(ctx, root, p.paths, visit)
		}
		err = p.walk(ctx, func(name string, r io.Reader) error {
			content := sha256.New()
			_, err := io.Copy(content, io.LimitReader(r, maxData))
			fmt.Fprintf(h, "%x %q\n", content.Sum(nil), name)
			return err
		})
	}
	if err != nil {
		root.Close()
		return openedPackage{}, err
	}
	p.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return p, nil
}

// listDir lists the regular files that matter, in a fixed order.
func listDir(root *os.Root) ([]string, error) {
	paths := []string{}
	for i, top := range kernelDirs {
		info, err := root.Stat(top)
		if err != nil || !info.IsDir() {
			continue
		}
		// With a merged /usr, lib leads to usr/lib.
		if last := kernelDirs[len(kernelDirs)-1]; i < len(kernelDirs)-1 {
			if other, err := root.Stat(last); err == nil && os.SameFile(info, other) {
				continue
			}
		}
		err = fs.WalkDir(root.FS(), top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				paths = append(paths, name)
			}
			if err == nil && len(paths) > maxEntries {
				err = fmt.Errorf("more than %d files", maxEntries)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return paths, nil
}

func walkDir(ctx context.Context, root *os.Root, paths []string, visit func(string, io.Reader) error) error {
	for _, name := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		err = visit(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
