package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lab/kernel/kconfig"
)

// A Cached is what one directory of cache/kernels or cache/toolchains holds.
type Cached struct {
	Dir       string    `json:"dir"`
	Size      int64     `json:"size"` // bytes of all its files
	Release   string    `json:"release,omitempty"`
	Commit    string    `json:"commit,omitempty"`    // the first that it was built for
	OnTop     int       `json:"on_top,omitempty"`    // picks and patches that were applied there
	Source    string    `json:"source,omitempty"`    // as in Kernel
	Config    string    `json:"config,omitempty"`    // of a build: a built-in fragment, or the beginning of the request's digest
	Failure   string    `json:"failure,omitempty"`   // of a commit that does not build: why
	Toolchain string    `json:"toolchain,omitempty"` // of an unpacked image with a compiler: its reference
	Damaged   bool      `json:"damaged,omitempty"`   // its meta.json does not read
	Made      time.Time `json:"made"`
	Used      time.Time `json:"used"`
}

// usedFile lies in an entry of the cache. Its time is when the entry was last
// used, and whoever uses it holds it locked (flock(2), shared).
const usedFile = "used"

// holdEntry marks an entry as used and keeps it from being freed until the file
// is closed or, at the latest, the process ends. It is false when the entry is
// being freed. In a cache that cannot be written to nothing is freed either, and
// there is no file.
func holdEntry(dir string) (*os.File, bool) {
	f, err := os.OpenFile(filepath.Join(dir, usedFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, true // of one that is not there, the rest will tell
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		f.Close()
		return nil, false
	}
	now := time.Now()
	_ = os.Chtimes(f.Name(), now, now) // the time is for freeing the oldest first, and no more
	return f, true
}

// List tells what is in the cache, the last used first.
func List(ctx context.Context, cache string) ([]Cached, error) {
	dir, err := kernelsDir(cache)
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list kernels: %w", err)
	}
	names := requestNames()
	var list []Cached
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		c, err := describeEntry(filepath.Join(dir, e.Name()), names)
		if errors.Is(err, fs.ErrNotExist) {
			continue // freed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list kernels: %w", err)
		}
		list = append(list, c)
	}
	images, err := listToolchains(ctx, cache)
	if err != nil {
		return nil, fmt.Errorf("list toolchains: %w", err)
	}
	list = append(list, images...)
	slices.SortFunc(list, func(a, b Cached) int {
		if order := b.Used.Compare(a.Used); order != 0 {
			return order
		}
		return strings.Compare(a.Dir, b.Dir)
	})
	return list, nil
}

func describeEntry(dir string, names map[string]string) (Cached, error) {
	c := Cached{Dir: dir}
	var err error
	if c.Size, err = sizeOf(dir); err != nil {
		return Cached{}, err
	}
	if c.Made, c.Used, err = entryTimes(dir); err != nil {
		return Cached{}, err
	}
	var e entry
	f, err := os.Open(filepath.Join(dir, "meta.json"))
	if err == nil {
		err = json.NewDecoder(io.LimitReader(f, 16<<20)).Decode(&e)
		f.Close()
	}
	if err != nil || (e.Kernel == nil) == (e.Failure == nil) {
		c.Damaged = true
		return c, nil
	}
	if e.Kernel != nil {
		c.Release, c.Commit, c.Source = e.Kernel.Release, e.Kernel.Commit, e.Kernel.Source
		for _, a := range e.Kernel.OnTop {
			if a.State == Applied {
				c.OnTop++
			}
		}
	} else {
		c.Failure = e.Failure.Line
	}
	if len(e.Made) > 2 && e.Made[0] == "build" {
		if c.Config = names[e.Made[2]]; c.Config == "" {
			_, digest, _ := strings.Cut(e.Made[2], " ")
			c.Config = digest[:min(12, len(digest))]
		}
	}
	return c, nil
}

// entryTimes tells when an entry was made and last used.
func entryTimes(dir string) (made, used time.Time, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return made, used, err
	}
	made = info.ModTime()
	if info, err := os.Stat(filepath.Join(dir, "meta.json")); err == nil {
		made = info.ModTime()
	}
	used = made
	if info, err := os.Stat(filepath.Join(dir, usedFile)); err == nil {
		used = info.ModTime()
	}
	return made, used, nil
}

// requestNames names the requests that are made of built-in fragments alone.
func requestNames() map[string]string {
	names := map[string]string{}
	for _, first := range kconfig.Builtins() {
		for _, second := range append(kconfig.Builtins(), first) {
			f, _ := kconfig.Builtin(first)
			name, fragments := first, []kconfig.Fragment{f}
			if second != first {
				f, _ = kconfig.Builtin(second)
				name, fragments = first+"+"+second, append(fragments, f)
			}
			if r, err := newRequest(fragments); err == nil {
				names[r.identity()] = name
			}
		}
	}
	return names
}

// sizeOf adds up the files below a directory.
func sizeOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return err
	})
	return size, err
}
