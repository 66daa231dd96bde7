package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const (
	maxField   = 1 << 20   // bytes of a commit's title or author
	maxCommits = 5_000_000 // in a range; Linux has about 1.4 million
	maxPatch   = 16 << 20  // bytes of a patch
)

// Commit is a commit of the tree.
type Commit struct {
	Hash    string    `json:"hash"`
	Parents []string  `json:"parents,omitempty"`
	Title   string    `json:"title"`
	Author  string    `json:"author"` // "Name <address>"
	Date    time.Time `json:"date"`   // when it was written, git's author date
}

// commitFormat separates fields, and commits, by NUL: nothing else is sure not
// to be in a title. parseCommits reads it.
const commitFormat = "--format=tformat:%H%x00%P%x00%an <%ae>%x00%at%x00%s"

// Resolve finds the commit that a revision names in the user's repository as
// it is now: a hash or the beginning of one, a branch, a tag, HEAD~3 and
// whatever else gitrevisions(7) knows.
func (t *Tree) Resolve(ctx context.Context, rev string) (Commit, error) {
	hash, err := t.resolve(ctx, rev)
	if err != nil {
		return Commit{}, err
	}
	if err := t.syncShallow(); err != nil {
		return Commit{}, fmt.Errorf("resolve %s: %w", rev, err)
	}
	commits, err := t.log(ctx, "--max-count=1", hash)
	if err != nil {
		return Commit{}, fmt.Errorf("resolve %s: %w", rev, err)
	}
	if len(commits) != 1 {
		return Commit{}, fmt.Errorf("resolve %s: git log knows %d commits of that name", rev, len(commits))
	}
	return commits[0], nil
}

func (t *Tree) resolve(ctx context.Context, rev string) (string, error) {
	if rev == "" || strings.HasPrefix(rev, "-") || strings.ContainsAny(rev, "\x00\n") {
		return "", fmt.Errorf("resolve %q: not a revision", rev)
	}
	// In two steps, because ":/words^{commit}" would look for all of these words.
	out, err := t.userGit(ctx, "rev-parse", "--verify", rev)
	if err == nil {
		out, err = t.userGit(ctx, "rev-parse", "--verify", strings.TrimSpace(string(out))+"^{commit}")
	}
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "", fmt.Errorf("resolve %s: %w", rev, err)
	}
	why := "no such commit in " + t.repo
	if strings.Contains(err.Error(), "ambiguous") {
		why = "more than one commit of " + t.repo + " begins like that"
	}
	if len(t.shallowEnds()) > 0 {
		why += ", which is a shallow clone: git fetch --unshallow gets the rest of its history"
	}
	return "", fmt.Errorf("resolve %s: %s", rev, why)
}

// Range returns bad and all of its ancestors that are not ancestors of, or
// themselves, one of the good commits: parents before children, the oldest
// first. It is empty when bad is an ancestor of a good commit.
func (t *Tree) Range(ctx context.Context, good []string, bad string) ([]Commit, error) {
	end, err := t.Resolve(ctx, bad)
	if err != nil {
		return nil, err
	}
	span := Span{Bad: end.Hash}
	for _, g := range good {
		hash, err := t.resolve(ctx, g)
		if err != nil {
			return nil, err
		}
		span.Good = append(span.Good, hash)
	}
	return t.Span(ctx, span)
}

// log runs git log and parses what it prints while it prints it.
func (t *Tree) log(ctx context.Context, args ...string) ([]Commit, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	var commits []Commit
	go func() {
		var err error
		commits, err = parseCommits(r)
		r.CloseWithError(err)
		done <- err
	}()
	args = append([]string{"log", "-z", commitFormat, "--encoding=UTF-8", "--no-show-signature", "--no-mailmap", "--no-notes", "--no-color"}, args...)
	err := t.git(ctx, w, nil, append(args, "--")...)
	w.CloseWithError(err)
	if parseErr := <-done; err == nil || parseErr != nil && !errors.Is(parseErr, err) {
		err = parseErr
	}
	if err != nil {
		return nil, err
	}
	return commits, nil
}

// parseCommits reads commitFormat: five fields to a commit, each ended by NUL.
func parseCommits(r io.Reader) ([]Commit, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	var commits []Commit
	for {
		var fields [5]string
		for i := range fields {
			field, err := readField(b)
			if errors.Is(err, io.EOF) && i == 0 && field == "" {
				return commits, nil
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, fmt.Errorf("read commit %d of git log: %w", len(commits)+1, err)
			}
			fields[i] = field
		}
		if len(commits) == maxCommits {
			return nil, fmt.Errorf("more than %d commits", maxCommits)
		}
		seconds, err := strconv.ParseInt(fields[3], 10, 64)
		if err != nil || !isHash(fields[0]) {
			return nil, fmt.Errorf("read commit %d of git log: %.80q is not a commit", len(commits)+1, fields[0])
		}
		c := Commit{Hash: fields[0], Author: fields[2], Title: fields[4], Date: time.Unix(seconds, 0).UTC()}
		c.Parents = strings.Fields(fields[1])
		for _, p := range c.Parents {
			if !isHash(p) {
				return nil, fmt.Errorf("read commit %s of git log: %.80q is not a parent", c.Hash, p)
			}
		}
		commits = append(commits, c)
	}
}

// readField returns the text up to the next NUL as valid UTF-8 in one line.
func readField(b *bufio.Reader) (string, error) {
	var field []byte
	for {
		part, err := b.ReadSlice(0)
		if len(field)+len(part) > maxField {
			return "", fmt.Errorf("a field of more than %d bytes", maxField)
		}
		field = append(field, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return string(field), err
		}
		return printable(bytes.TrimSuffix(field, []byte{0})), nil
	}
}

func isHash(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// IsAncestor reports whether commit a is commit b or an ancestor of it.
func (t *Tree) IsAncestor(ctx context.Context, a, b string) (bool, error) {
	older, err := t.resolve(ctx, a)
	if err != nil {
		return false, err
	}
	newer, err := t.resolve(ctx, b)
	if err != nil {
		return false, err
	}
	if err := t.syncShallow(); err != nil {
		return false, fmt.Errorf("compare %s and %s: %w", a, b, err)
	}
	is, err := t.isAncestor(ctx, older, newer)
	if err != nil {
		return false, fmt.Errorf("compare %s and %s: %w", a, b, err)
	}
	return is, nil
}

// isAncestor is IsAncestor of full hashes, of commits of lab's own too.
func (t *Tree) isAncestor(ctx context.Context, a, b string) (bool, error) {
	_, _, err := t.own(ctx, ownGit{}, "merge-base", "--is-ancestor", a, b)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return false, nil
	}
	return err == nil, err
}

// Bundle writes the commits that a bad one has and good ones have not to a new
// file, from which git fetches them into a repository that has the good ones:
// git-bundle(1). The bad one is refs/lab/HASH in it.
func (t *Tree) Bundle(ctx context.Context, good []string, bad, file string) error {
	ref := "refs/lab/" + bad // git puts only what a ref names into a bundle
	_, _, err := t.own(ctx, ownGit{}, "update-ref", ref, bad)
	if err == nil {
		defer func() { _, _, _ = t.own(context.WithoutCancel(ctx), ownGit{}, "update-ref", "-d", ref) }()
		args := []string{"bundle", "create", "--quiet", file, ref}
		for _, g := range good {
			args = append(args, "^"+g)
		}
		_, _, err = t.own(ctx, ownGit{}, args...)
	}
	if err != nil {
		return fmt.Errorf("bundle the commits behind %.12s: %w", bad, err)
	}
	return nil
}

// Show returns a commit as a patch in the form of a mail, which git am
// applies. Of one of more than 16 MiB only the summary is returned.
func (t *Tree) Show(ctx context.Context, commit string) (patch []byte, err error) {
	hash, err := t.resolve(ctx, commit)
	if err != nil {
		return nil, err
	}
	args := []string{"show", "--format=email", "--no-color", "--no-ext-diff", "--no-textconv", "--no-notes", "--encoding=UTF-8", "--stat"}
	out := &cappedBuffer{limit: maxPatch}
	if err := t.git(ctx, out, nil, append(args, "--patch", "--binary", hash, "--")...); err != nil {
		return nil, fmt.Errorf("show %s: %w", commit, err)
	}
	if !out.over {
		return out.kept.Bytes(), nil
	}
	out = &cappedBuffer{limit: maxPatch}
	if err := t.git(ctx, out, nil, append(args, hash, "--")...); err != nil {
		return nil, fmt.Errorf("show %s: %w", commit, err)
	}
	return out.kept.Bytes(), nil
}
