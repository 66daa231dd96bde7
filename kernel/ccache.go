package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// objectCacheSize is how much ccache keeps below the cache. An object of a kernel
// takes some 15 kB there.
const objectCacheSize = "2G"

// objectCache is the folder of ccache's objects and of the names under which it
// is called.
func objectCache(cache string) string { return filepath.Join(cache, "ccache") }

// withCcache gives the environment in which the compiler is ccache, where that is
// installed: it then compiles once what is the same in two work trees, or was the
// same before. Nil where it is not, and for a toolchain that is in an image.
//
// It is found on the PATH under the compiler's own name (ccache(1), "Run modes"), so
// that the commands that a build writes down, and goes by, are those of a build
// without it. What it knows of the compiler is the toolchain's identity. Its direct
// mode is off: a header that is added may be found before another of the same name,
// and there it would not be seen. The preprocessor sees it.
func (t *Tree) withCcache(tools Toolchain) ([]string, error) {
	program, _ := lookIn("/", os.Getenv("PATH"), "ccache")
	if program == "" || tools.room != nil {
		return nil, nil
	}
	dir := objectCache(filepath.Dir(t.trees))
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return nil, fmt.Errorf("use ccache: %w", err)
	}
	link := filepath.Join(bin, "gcc")
	if to, err := os.Readlink(link); err != nil || to != program {
		if err := relink(program, link); err != nil {
			return nil, fmt.Errorf("use ccache: %w", err)
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(tools.Identity(), "\n")))
	objects := filepath.Join(dir, "objects")
	return []string{
		"PATH=" + bin + string(filepath.ListSeparator) + tools.path,
		"CCACHE_CONFIGPATH=" + os.DevNull,
		"CCACHE_DIR=" + objects, "CCACHE_TEMPDIR=" + filepath.Join(objects, "tmp"),
		"CCACHE_MAXSIZE=" + objectCacheSize,
		"CCACHE_COMPILERCHECK=string:" + hex.EncodeToString(sum[:]),
		"CCACHE_NODIRECT=1",
	}, nil
}

// ObjectsSize is how many bytes ccache keeps below a cache.
func ObjectsSize(cache string) (int64, error) {
	size, err := sizeOf(filepath.Join(objectCache(cache), "objects"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("measure what ccache keeps: %w", err)
	}
	return size, nil
}

// freeObjects frees what ccache keeps. A build that goes on meanwhile compiles.
func (freed *Freed) freeObjects(cache string, dry bool) error {
	dir := filepath.Join(objectCache(cache), "objects")
	size, err := sizeOf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("free objects of ccache: %w", err)
	}
	freed.Objects = dir
	freed.Size += size
	if dry {
		return nil
	}
	if err := removeAtOnce(dir); err != nil {
		return fmt.Errorf("free objects of ccache: %w", err)
	}
	return nil
}

// relink makes a symbolic link, or another of the one that is there, at once.
func relink(to, link string) error {
	next := fmt.Sprintf("%s.%d", link, os.Getpid())
	if err := os.Symlink(to, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}
