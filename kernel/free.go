package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FreeOptions say what to free of the cache. An entry goes when either of Older
// and Keep says so, the longest unused first.
type FreeOptions struct {
	Older  time.Duration // kernels and unpacked toolchains that were not used for so long; 0 for none of them
	Keep   int64         // bytes of them to keep, when Limit is set
	Limit  bool
	Trees  bool // work trees and ccache's objects too: the next build starts from nothing
	Clones bool // the clones of repositories given by URL too: to be got again
	DryRun bool // only say it
}

// Freed is what Free freed, or would.
type Freed struct {
	Kernels []Cached `json:"kernels"`
	Trees   []string `json:"trees,omitempty"`   // directories of work trees
	Objects string   `json:"objects,omitempty"` // directory of ccache's objects
	Clones  []string `json:"clones,omitempty"`  // directories of clones
	InUse   []string `json:"in_use,omitempty"`  // what would have been freed, were it not in use
	Size    int64    `json:"size"`              // bytes
	Kept    int64    `json:"kept"`              // bytes of kernels and toolchains that are left
}

// Free frees cached kernels, none of which is in use by any lab at the time, and
// work trees, in none of which a build is running, and clones that nobody has open.
func Free(ctx context.Context, cache string, o FreeOptions) (Freed, error) {
	list, err := List(ctx, cache)
	if err != nil {
		return Freed{}, err
	}
	freed := Freed{Kernels: []Cached{}}
	for _, c := range list {
		freed.Kept += c.Size
	}
	for i := len(list) - 1; i >= 0; i-- {
		c := list[i]
		old := o.Older > 0 && time.Since(c.Used) > o.Older
		if !old && (!o.Limit || freed.Kept <= o.Keep) {
			continue
		}
		ok, err := freeEntry(c.Dir, o.DryRun)
		if err != nil {
			return freed, fmt.Errorf("free kernel %s: %w", c.Dir, err)
		}
		if !ok {
			freed.InUse = append(freed.InUse, c.Dir)
			continue
		}
		freed.Kernels = append(freed.Kernels, c)
		freed.Size += c.Size
		freed.Kept -= c.Size
	}
	if o.Trees {
		err = errors.Join(freed.freeTrees(cache, o.DryRun), freed.freeObjects(cache, o.DryRun))
	}
	if err == nil && o.Clones {
		err = freed.freeClones(cache, o.DryRun)
	}
	return freed, err
}

// freeEntry takes an entry out of the cache at once, and then removes it. It is
// false for one in use.
func freeEntry(dir string, dry bool) (bool, error) {
	f, free, err := tryLock(filepath.Join(dir, usedFile))
	if err != nil || !free {
		return false, err
	}
	defer f.Close()
	if dry {
		return true, nil
	}
	return true, removeAtOnce(dir)
}

// removeAtOnce has a directory not be there, and then removes it.
func removeAtOnce(dir string) error {
	gone := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".gone")
	if err := os.RemoveAll(gone); err != nil {
		return err
	}
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// tryLock takes a file's lock if nobody has it, as is also so when there is no
// file.
func tryLock(path string) (f *os.File, free bool, err error) {
	f, err = os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		return nil, false, err
	}
	return f, true, nil
}

// freeTrees empties the work trees. The lock and lab's own repository, which is
// small, stay where others may be waiting for them.
func (freed *Freed) freeTrees(cache string, dry bool) error {
	dirs, err := filepath.Glob(filepath.Join(cache, "trees", "*", "src"))
	if err != nil {
		return fmt.Errorf("free work trees: %w", err)
	}
	for _, src := range dirs {
		base := filepath.Dir(src)
		if strings.HasPrefix(filepath.Base(base), ".") {
			continue
		}
		if err := freed.freeTree(base, dry); err != nil {
			return fmt.Errorf("free work tree %s: %w", base, err)
		}
	}
	return nil
}

func (freed *Freed) freeTree(base string, dry bool) error {
	f, free, err := tryLock(filepath.Join(base, "lock"))
	if err != nil {
		return err
	}
	if !free {
		freed.InUse = append(freed.InUse, base)
		return nil
	}
	defer f.Close()
	for _, name := range []string{"src", "out"} {
		size, err := sizeOf(filepath.Join(base, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		freed.Size += size
	}
	freed.Trees = append(freed.Trees, base)
	if dry {
		return nil
	}
	// The index first: without it, a work tree is checked out from nothing.
	return errors.Join(
		removeIfThere(filepath.Join(base, "git/index")), removeIfThere(filepath.Join(base, "state.json")), removeIfThere(filepath.Join(base, "building")),
		os.RemoveAll(filepath.Join(base, "src")), os.RemoveAll(filepath.Join(base, "out")))
}

// freeClones removes the clones that no Tree is open on.
func (freed *Freed) freeClones(cache string, dry bool) error {
	trees, err := filepath.Abs(filepath.Join(cache, "trees"))
	if err != nil {
		return fmt.Errorf("free clones: %w", err)
	}
	dirs, err := filepath.Glob(filepath.Join(trees, "clone-*.git"))
	if err != nil {
		return fmt.Errorf("free clones: %w", err)
	}
	users, err := usersOf(trees)
	if err != nil {
		return fmt.Errorf("free clones: %w", err)
	}
	for _, dir := range dirs {
		if err := freed.freeClone(dir, users, dry); err != nil {
			return fmt.Errorf("free clone %s: %w", dir, err)
		}
	}
	return nil
}

// usersOf lists the locks of those who have a tree open, by its repository.
func usersOf(trees string) (map[string][]string, error) {
	names, err := filepath.Glob(filepath.Join(trees, "*", "repository"))
	users := map[string][]string{}
	for _, name := range names {
		repository, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		at := strings.TrimSuffix(string(repository), "\n")
		users[at] = append(users[at], filepath.Join(filepath.Dir(name), heldFile))
	}
	return users, err
}

func (freed *Freed) freeClone(dir string, users map[string][]string, dry bool) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for _, lock := range append(users[real], dir+".lock") {
		f, free, err := tryLock(lock)
		if err != nil {
			return err
		}
		if !free {
			freed.InUse = append(freed.InUse, dir)
			return nil
		}
		defer f.Close()
	}
	size, err := sizeOf(dir)
	if err != nil {
		return err
	}
	freed.Size += size
	freed.Clones = append(freed.Clones, dir)
	if dry {
		return nil
	}
	return removeAtOnce(dir)
}
