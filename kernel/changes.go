package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lab/kernel/kconfig"
)

// maxChanges bounds the paths that are kept of the commits of a range.
const maxChanges = 20_000_000

// Diff lists the paths that differ between two commits, in git's order. It
// compares the two trees; what lies between them does not matter.
func (t *Tree) Diff(ctx context.Context, from, to string) ([]Change, error) {
	var changes []Change
	err := t.diff(ctx, nil, func(hash string, c Change) error {
		if len(changes) == maxChanges {
			return fmt.Errorf("more than %d paths", maxChanges)
		}
		changes = append(changes, c)
		return nil
	}, from+"^{tree}", to+"^{tree}")
	if err != nil {
		return nil, fmt.Errorf("compare %.12s and %.12s: %w", from, to, err)
	}
	return changes, nil
}

// Changes gives for every commit, by its hash, what it changes of each of its
// parents: one list for an ordinary commit, one for each parent of a merge. git
// is asked once. Of a list with a change that matters whatever the footprint,
// only that one is kept: the lists are there to put to [Footprint.Matters].
func (t *Tree) Changes(ctx context.Context, commits []Commit) (map[string][][]Change, error) {
	var hashes strings.Builder
	for _, c := range commits {
		hashes.WriteString(c.Hash + "\n")
	}
	lists := make(map[string][][]Change, len(commits))
	paths := map[string]string{} // each path is kept once
	kept := 0
	err := t.diff(ctx, strings.NewReader(hashes.String()), func(hash string, c Change) error {
		if c.Status == 0 {
			lists[hash] = append(lists[hash], nil)
			return nil
		}
		all := lists[hash]
		last := &all[len(all)-1]
		switch {
		case len(*last) == 1 && alwaysMatters((*last)[0]) != "":
			return nil
		case alwaysMatters(c) != "":
			*last = []Change{c}
			return nil
		}
		if kept++; kept > maxChanges {
			return fmt.Errorf("more than %d paths", maxChanges)
		}
		p, known := paths[c.Path]
		if !known {
			p = c.Path
			paths[p] = p
		}
		*last = append(*last, Change{c.Status, p})
		return nil
	}, "--stdin", "-m", "--root", "--always")
	if err != nil {
		return nil, fmt.Errorf("list what %d commits change: %w", len(commits), err)
	}
	return lists, nil
}

// diff runs git diff-tree and calls each with what it prints: a Change without
// status where a commit's list begins, and then its changes. Renames are not
// looked for: both names are to be seen.
func (t *Tree) diff(ctx context.Context, commits io.Reader, each func(hash string, c Change) error, args ...string) error {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := parseDiff(r, each)
		r.CloseWithError(err)
		done <- err
	}()
	c := child{dir: t.base, stdin: commits, stdout: w, env: append(t.gitEnv(), "GIT_DIR="+filepath.Join(t.base, "git"))}
	args = append([]string{"diff-tree", "-r", "-z", "--name-status", "--no-renames", "--ignore-submodules=none"}, args...)
	err := c.run(ctx, "git", args...)
	w.CloseWithError(err)
	if parseErr := <-done; err == nil || parseErr != nil && !errors.Is(parseErr, err) {
		err = parseErr
	}
	return err
}

// statuses are the letters that git has for what differs between two trees,
// when it looks for no renames and no copies.
var statuses = []byte("MADT")

// parseDiff reads fields that each end with NUL: a commit's hash, where git was
// asked for commits, and then a letter and a path for each change.
func parseDiff(r io.Reader, each func(hash string, c Change) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	hash := ""
	for {
		field, err := readField(b)
		if errors.Is(err, io.EOF) && field == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read git diff-tree: %w", unexpected(err))
		}
		c := Change{}
		switch {
		case isHash(field):
			hash = field
		case len(field) == 1 && slices.Contains(statuses, field[0]):
			c.Status = field[0]
			if c.Path, err = readField(b); err != nil {
				return fmt.Errorf("read git diff-tree: %w", unexpected(err))
			}
		default:
			return fmt.Errorf("read git diff-tree: %.80q is not a change", field)
		}
		if err := each(hash, c); err != nil {
			return err
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Footprint gives the footprint of a commit's kernel, as Build has left it in
// the cache for these options and the same toolchain. It is nil where
// there is none: not built, not built like that, or not to be told.
func (t *Tree) Footprint(ctx context.Context, commit string, o BuildOptions) (*Footprint, error) {
	k, err := t.cached(ctx, commit, o)
	if err != nil || k.Footprint == "" {
		return nil, wrapFootprint(commit, err)
	}
	data, err := os.ReadFile(k.Footprint)
	if err != nil {
		return nil, wrapFootprint(commit, err)
	}
	f, err := parseFootprint(data)
	return f, wrapFootprint(commit, err)
}

func wrapFootprint(commit string, err error) error {
	if err != nil {
		err = fmt.Errorf("read footprint of %.12s: %w", commit, err)
	}
	return err
}

// SameConfig tells whether Kconfig makes of the request at a commit what it made
// of it for the kernel in the cache that was built of another. It is what remains
// to be seen where Kconfig files are all that matters; see [WithoutKconfig].
func (t *Tree) SameConfig(ctx context.Context, built, commit string, o BuildOptions) (bool, error) {
	k, err := t.cached(ctx, built, o)
	if err != nil || k.Config == "" {
		return false, err
	}
	then, err := os.ReadFile(k.Config)
	if err != nil {
		return false, fmt.Errorf("compare configurations: %w", err)
	}
	now, f, err := t.Configure(ctx, commit, o)
	if err != nil || f != nil {
		return false, err
	}
	a, err := kconfig.Parse(bytes.NewReader(then))
	if err != nil {
		return false, fmt.Errorf("compare configurations: %w", err)
	}
	b, err := kconfig.Parse(bytes.NewReader(now.Config))
	if err != nil {
		return false, fmt.Errorf("compare configurations: %w", err)
	}
	// With IKCONFIG the kernel has the file itself in it, comments and all.
	return maps.Equal(a, b) && (a["IKCONFIG"] == "" || a["IKCONFIG"] == "n" || bytes.Equal(then, now.Config)), nil
}

// cached is a commit's kernel as Build has left it in the cache; the zero Kernel
// where it has not.
func (t *Tree) cached(ctx context.Context, commit string, o BuildOptions) (Kernel, error) {
	r, err := newRequest(o.Fragments)
	if err != nil {
		return Kernel{}, err
	}
	tools, err := t.toolchain(ctx, commit, o)
	if err != nil {
		return Kernel{}, err
	}
	top, f, err := t.OnTop(ctx, commit, o)
	if err != nil || f != nil {
		return Kernel{}, err
	}
	_, dir, err := t.entryOf(ctx, top.Commit, r, tools)
	if err != nil {
		return Kernel{}, err
	}
	k, _, _ := loadEntry(dir)
	return k, nil
}
