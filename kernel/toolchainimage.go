package kernel

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// A ToolchainImage is an image that has a compiler, as a tar of its root file
// system: what package oci flattens it to.
type ToolchainImage struct {
	Reference string
	Digest    string   // of the image, in which its configuration is too
	Env       []string // of the image's configuration; only PATH and LD_LIBRARY_PATH are taken
	Open      func(context.Context) (io.ReadCloser, error)
}

// A toolchainEntry is meta.json of a directory cache/toolchains/KEY; the image's
// root file system is in root beside it.
type toolchainEntry struct {
	Format    int    `json:"format"`
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"` // bytes of all files
}

const toolchainFormat = 1

// defaultPath is the PATH of an image that names none: Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// OpenToolchain gives the toolchain in an image, which is unpacked into the cache
// unless it is there. It stays there, and is not freed, for as long as the
// toolchain is reachable. Errors are a MissingError that names what the image
// lacks, a NoEntryError where this host lets nobody in, or about the tar.
func OpenToolchain(ctx context.Context, cache string, i ToolchainImage) (Toolchain, error) {
	t, err := openToolchain(ctx, cache, i)
	if err != nil {
		return Toolchain{}, fmt.Errorf("toolchain %s: %w", i.Reference, err)
	}
	return t, nil
}

func openToolchain(ctx context.Context, cache string, i ToolchainImage) (Toolchain, error) {
	base, err := toolchainsDir(cache)
	if err != nil {
		return Toolchain{}, err
	}
	dir := filepath.Join(base, cacheKey([]string{"toolchain", fmt.Sprint(toolchainFormat), i.Digest}))
	held, ok := loadToolchain(dir, i.Digest)
	if !ok {
		lock, err := lockFile(ctx, filepath.Join(base, ".lock"), holder(), nil)
		if err != nil {
			return Toolchain{}, err
		}
		defer lock.Close()
		if held, ok = loadToolchain(dir, i.Digest); !ok { // or another lab has unpacked it
			if err := unpackToolchain(ctx, dir, i); err != nil {
				return Toolchain{}, err
			}
			if held, ok = loadToolchain(dir, i.Digest); !ok {
				return Toolchain{}, fmt.Errorf("%s does not read back", dir)
			}
		}
	}
	t := Toolchain{
		Image: i.Reference, Digest: i.Digest, path: defaultPath,
		room: &room{root: filepath.Join(dir, "root"), mount: filepath.Join(dir, "room"), held: held},
	}
	for _, v := range i.Env {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == "PATH" && value != "":
			t.path = value
		case name == "LD_LIBRARY_PATH":
			t.room.env = append(t.room.env, v)
		}
	}
	for _, name := range []string{"make", "gcc", "as", "ld"} {
		if !t.has(name) {
			return Toolchain{}, t.missing(name)
		}
	}
	return t, t.examine(ctx, "/")
}

func toolchainsDir(cache string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(cache, "toolchains"))
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// loadToolchain holds an unpacked image that is whole. Its programs are digested
// whenever they are used, so that a damaged one gives other kernels another key.
func loadToolchain(dir, digest string) (*os.File, bool) {
	held, ok := holdEntry(dir)
	if !ok {
		return nil, false
	}
	if e, err := readToolchainEntry(dir); err == nil && e.Digest == digest {
		return held, true
	}
	held.Close()
	return nil, false
}

func readToolchainEntry(dir string) (toolchainEntry, error) {
	var e toolchainEntry
	data, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err == nil && e.Format != toolchainFormat {
		err = errors.New("of another format")
	}
	return e, err
}

// unpackToolchain makes dir, which appears whole or not at all. The cache's lock
// is held.
func unpackToolchain(ctx context.Context, dir string, i ToolchainImage) (err error) {
	tmp := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp")
	if err := os.RemoveAll(tmp); err != nil { // what a lab that was killed has left
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	for _, name := range []string{"root", "room"} {
		if err := os.MkdirAll(filepath.Join(tmp, name), 0o755); err != nil {
			return err
		}
	}
	stream, err := i.Open(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	size, err := unpackRoot(ctx, filepath.Join(tmp, "root"), stream, unpackLimits{maxToolchain, maxToolchainFiles})
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(toolchainEntry{toolchainFormat, i.Reference, i.Digest, size}, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(tmp, "meta.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if err := syncAll(tmp); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // a damaged one
		return err
	}
	return os.Rename(tmp, dir)
}

const (
	maxToolchain      = 32 << 30 // bytes of an image's files
	maxToolchainFiles = 1 << 20
)

type unpackLimits struct{ bytes, files int64 }

// unpackRoot unpacks a stranger's root file system into the folder dir, for
// programs of this user to run in: folders, files and links, all of them this
// user's. Devices, set-user-ID bits, owners and extended attributes are left out.
// No name and no link leads out of dir: os.Root sees to it. It gives the bytes of
// all files.
func unpackRoot(ctx context.Context, dir string, r io.Reader, limit unpackLimits) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	u := unpacker{root: root, left: limit}
	stream := tar.NewReader(r)
	for {
		h, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return limit.bytes - u.left.bytes, nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return 0, fmt.Errorf("unpack: %w", err)
		}
		if err := u.entry(h, stream); err != nil {
			return 0, fmt.Errorf("unpack %.200q: %w", h.Name, err)
		}
	}
}

type unpacker struct {
	root *os.Root
	left unpackLimits
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if u.left.files--; u.left.files < 0 {
		return errors.New("the image has too many files for a toolchain")
	}
	name := path.Clean(strings.TrimPrefix(h.Name, "/"))
	if !filepath.IsLocal(name) {
		return errors.New("its name leads out of the image")
	}
	if name == "." {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeLink, tar.TypeSymlink, tar.TypeDir:
	default:
		return nil
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target := path.Clean(strings.TrimPrefix(h.Linkname, "/"))
		if !filepath.IsLocal(target) {
			return errors.New("its target leads out of the image")
		}
		return u.root.Link(target, name)
	}
	return u.file(name, h, content)
}

func (u *unpacker) file(name string, h *tar.Header, content io.Reader) error {
	if u.left.bytes -= h.Size; h.Size < 0 || u.left.bytes < 0 {
		return errors.New("the image is too large for a toolchain")
	}
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// Makefiles go by the times of what they include from here too.
	when := h.ModTime
	if when.Before(time.Unix(0, 0)) || when.After(time.Now()) {
		when = time.Unix(0, 0)
	}
	return u.root.Chtimes(name, when, when)
}

// listToolchains tells which images the cache has unpacked.
func listToolchains(ctx context.Context, cache string) ([]Cached, error) {
	base, err := toolchainsDir(cache)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() || strings.HasPrefix(e.Name(), ".") })
	var list []Cached
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c := Cached{Dir: filepath.Join(base, e.Name())}
		if c.Made, c.Used, err = entryTimes(c.Dir); err != nil {
			return nil, err
		}
		if t, err := readToolchainEntry(c.Dir); err == nil {
			c.Toolchain, c.Source, c.Size = t.Reference, "toolchain "+t.Digest, t.Size
		} else {
			c.Damaged = true
			if c.Size, err = sizeOf(c.Dir); err != nil {
				return nil, err
			}
		}
		list = append(list, c)
	}
	return list, nil
}
