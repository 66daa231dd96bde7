package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// entryFormat goes into every key and entry of the cache: raise it when what
// an entry holds, or how it is made, changes.
const entryFormat = 3

// entry is meta.json of a directory cache/kernels/KEY, which holds what one
// build or one package came to: a kernel or a failure, and the digest of every
// file. Paths in it are relative to the directory.
type entry struct {
	Format  int               `json:"format"`
	Made    []string          `json:"made"` // what the key is the digest of
	Kernel  *Kernel           `json:"kernel,omitempty"`
	Failure *Failure          `json:"failure,omitempty"`
	Files   map[string]string `json:"files"` // sha256:… by name
	Sum     string            `json:"sum"`   // digest of all the rest
}

// sum is the digest of what an entry says.
func (e entry) sum() (string, error) {
	e.Sum = ""
	data, err := json.Marshal(e)
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), err
}

// cacheKey is the digest of a list of facts.
func cacheKey(made []string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%s", entryFormat, strings.Join(made, "\x00")))
	return hex.EncodeToString(sum[:])
}

// loadEntry reads an entry back and checks every file of it. Whatever is wrong
// with it, from not being there to a flipped bit, makes it false: it is then
// made again.
//
// The kernel holds its entry for as long as it is reachable: see holdEntry.
func loadEntry(dir string) (Kernel, *Failure, bool) {
	held, ok := holdEntry(dir)
	if !ok {
		return Kernel{}, nil, false
	}
	data, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return Kernel{}, nil, false
	}
	var e entry
	if err := json.Unmarshal(data, &e); err != nil || e.Format != entryFormat || (e.Kernel == nil) == (e.Failure == nil) {
		return Kernel{}, nil, false
	}
	if sum, err := e.sum(); err != nil || sum != e.Sum {
		return Kernel{}, nil, false
	}
	for name, want := range e.Files {
		if !filepath.IsLocal(name) {
			return Kernel{}, nil, false
		}
		if got, err := digestFile(filepath.Join(dir, name)); err != nil || got != want {
			return Kernel{}, nil, false
		}
	}
	if e.Kernel != nil && e.Files[e.Kernel.Image] == "" {
		return Kernel{}, nil, false
	}
	absolute := func(name string) string { return filepath.Join(dir, name) }
	if e.Failure != nil {
		if e.Failure.Log != "" {
			e.Failure.Log = absolute(e.Failure.Log)
		}
		return Kernel{}, e.Failure, true
	}
	k := e.Kernel.mapPaths(absolute)
	k.held = held
	return k, nil, true
}

// publishEntry completes the entry in tmp, where the kernel's files or the
// failure's log are, and makes it appear as dir at once and whole. It returns
// the kernel or failure with its final paths. Somebody else's entry, published
// meanwhile, is used in its place.
func publishEntry(tmp, dir string, made []string, k *Kernel, f *Failure) (Kernel, *Failure, error) {
	e := entry{Format: entryFormat, Made: made, Failure: f, Files: map[string]string{}}
	if k != nil {
		relative := k.mapPaths(func(path string) string {
			return strings.TrimPrefix(path, tmp+string(filepath.Separator))
		})
		e.Kernel = &relative
	} else {
		e.Failure = &Failure{Step: f.Step, Line: f.Line, Log: strings.TrimPrefix(f.Log, tmp+string(filepath.Separator))}
	}
	err := filepath.WalkDir(tmp, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(tmp, path)
		if err == nil {
			e.Files[name], err = digestFile(path)
		}
		return err
	})
	if err != nil {
		return Kernel{}, nil, fmt.Errorf("publish kernel: %w", err)
	}
	if e.Sum, err = e.sum(); err != nil {
		return Kernel{}, nil, fmt.Errorf("publish kernel: %w", err)
	}
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return Kernel{}, nil, fmt.Errorf("publish kernel: %w", err)
	}
	if err := os.WriteFile(filepath.Join(tmp, "meta.json"), append(data, '\n'), 0o644); err != nil {
		return Kernel{}, nil, fmt.Errorf("publish kernel: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if k, f, ok := loadEntry(dir); ok {
			return k, f, os.RemoveAll(tmp)
		}
		// A damaged entry stands in the way.
		if err := os.RemoveAll(dir); err != nil {
			return Kernel{}, nil, fmt.Errorf("publish kernel: remove damaged entry: %w", err)
		}
		if err := os.Rename(tmp, dir); err != nil {
			return Kernel{}, nil, fmt.Errorf("publish kernel: %w", err)
		}
	}
	published, failure, ok := loadEntry(dir)
	if !ok {
		return Kernel{}, nil, fmt.Errorf("publish kernel: %s does not read back", dir)
	}
	return published, failure, nil
}

// mapPaths returns a copy of k with each of its paths put through f.
func (k Kernel) mapPaths(f func(string) string) Kernel {
	for _, path := range []*string{&k.Image, &k.Config, &k.SystemMap, &k.Log, &k.Footprint} {
		if *path != "" {
			*path = f(*path)
		}
	}
	modules := k.Modules
	k.Modules = nil
	for _, path := range modules {
		k.Modules = append(k.Modules, f(path))
	}
	return k
}

// lockFile takes an exclusive lock on a file (flock(2)) and returns it open;
// closing it gives the lock back, as does the death of the process. A child
// that inherits the file holds the lock as well, for as long as it lives.
// When somebody else has the lock, waiting is called once with what they wrote
// into the file, which is what holder describes.
func lockFile(ctx context.Context, path, holder string, waiting func(holder string)) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for waited := false; ; waited = true {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !waited && waiting != nil {
			waiting(readHolder(path))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for %s, held by %s: %w", path, readHolder(path), context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(holder+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

func readHolder(path string) string {
	data, err := os.ReadFile(path)
	text := strings.TrimSpace(printable(data[:min(len(data), 200)]))
	if err != nil || text == "" {
		return "another lab"
	}
	return text
}
