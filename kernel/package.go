package kernel

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// FromPackage returns the kernel in a Debian package (.deb): its image, its
// configuration, and the modules that lab's guest needs to find its disk and
// its ports, in the order to load them. They are unpacked below cache/kernels,
// once for each package of the same bytes. Nothing of the package is run.
//
// More modules may be named, as DiskDrivers does: those that the package has
// come after the others.
//
// A package without a kernel in it, such as the metapackage
// linux-image-cloud-amd64, gives an error that names the package it depends on.
func FromPackage(ctx context.Context, cache, path string, more ...string) (Kernel, error) {
	k, err := fromPackage(ctx, cache, path, more)
	if err != nil {
		return Kernel{}, fmt.Errorf("read package %s: %w", path, err)
	}
	return k, nil
}

func fromPackage(ctx context.Context, cache, file string, more []string) (Kernel, error) {
	f, err := os.Open(file)
	if err != nil {
		return Kernel{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Kernel{}, err
	}
	if !info.Mode().IsRegular() {
		return Kernel{}, errors.New("not a regular file")
	}
	digest, err := digestFile(file)
	if err != nil {
		return Kernel{}, err
	}
	kernels, err := kernelsDir(cache)
	if err != nil {
		return Kernel{}, err
	}
	made := append([]string{"package, format 2", digest}, more...)
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
	k, err := unpackDeb(ctx, f, info.Size(), tmp, slices.Concat(wanted, more))
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

// unpackDeb unpacks what is needed of a package into the new directory dir: the
// kernel, and the named modules.
func unpackDeb(ctx context.Context, r io.ReaderAt, size int64, dir string, names []string) (Kernel, error) {
	d, err := openDeb(r, size)
	if err != nil {
		return Kernel{}, err
	}
	spool := filepath.Join(dir, "spool")
	modules := filepath.Join(dir, "modules")
	for _, dir := range []string{spool, modules} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Kernel{}, err
		}
	}
	u := unpacking{dir: dir, spool: spool, modules: moduleSet{files: map[string]string{}, builtin: map[string]bool{}}}
	err = walkTar(d.data, maxData, func(name string, h *tar.Header, r io.Reader) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		if err := u.take(name, r); err != nil {
			return fmt.Errorf("unpack %s: %w", printable([]byte(name)), err)
		}
		return nil
	})
	if err != nil {
		return Kernel{}, fmt.Errorf("read %s: %w", d.data.name, err)
	}
	name := d.fields["Package"]
	if u.image == "" {
		if depends := d.kernelDepends(); len(depends) > 0 {
			return Kernel{}, fmt.Errorf("%s holds no kernel itself; it depends on %s", name, strings.Join(depends, ", "))
		}
		return Kernel{}, fmt.Errorf("%s holds no kernel: no boot/vmlinuz-… in it", name)
	}
	k, err := FromFile(u.image)
	if err != nil {
		return Kernel{}, err
	}
	k.Config, k.SystemMap = u.config, u.systemMap
	k.Source = strings.TrimSpace("package " + name + " " + d.fields["Version"])
	if k.Modules, err = u.modules.extract(modules, names); err != nil {
		return Kernel{}, err
	}
	return k, os.RemoveAll(spool)
}

// unpacking is what has been found in a package so far.
type unpacking struct {
	dir, spool               string
	image, config, systemMap string
	modules                  moduleSet
}

// take keeps the file when it is one that is needed. Any module may turn out
// to be: they are put aside until all are there.
func (u *unpacking) take(name string, r io.Reader) error {
	name = strings.TrimPrefix(name, "usr/")
	dir, base := path.Split(name)
	tree := strings.HasPrefix(dir, "lib/modules/")
	top := tree && strings.Count(dir, "/") == 3 // lib/modules/RELEASE/
	switch {
	case dir == "boot/" && (base == "vmlinuz" || strings.HasPrefix(base, "vmlinuz-")), top && base == "vmlinuz":
		if u.image != "" {
			return errors.New("a second kernel in one package")
		}
		u.image = filepath.Join(u.dir, "bzImage")
		return writeFile(u.image, r, maxImage)
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
