package kernel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// A Span says which commits lie between two ends; revisions are full hashes.
type Span struct {
	Good []string
	Bad  string
	// FirstParent follows of each merge only the first parent: the branch that
	// was merged into. The commits then say that they have no other.
	FirstParent bool
}

// Span lists bad and its ancestors that are not ancestors of, or themselves, one
// of the good commits: parents before children, the oldest first.
func (t *Tree) Span(ctx context.Context, s Span) ([]Commit, error) {
	args := []string{"--topo-order", "--reverse"}
	if s.FirstParent {
		args = append(args, "--first-parent")
	}
	args = append(append(args, s.Bad, "--not"), s.Good...)
	commits, err := t.log(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("list commits up to %.12s: %w", s.Bad, err)
	}
	// Where a shallow clone is cut off, git sees a root, and every commit on
	// the far side of it is missing from the range.
	ends := t.shallowEnds()
	for i, c := range commits {
		if slices.Contains(ends, c.Hash) {
			return nil, fmt.Errorf("list commits up to %.12s: %s is a shallow clone whose history ends at %.12s, inside the range: git fetch --unshallow gets the rest", s.Bad, t.repo, c.Hash)
		}
		if s.FirstParent {
			commits[i].Parents = c.Parents[:min(1, len(c.Parents))]
		}
	}
	return commits, nil
}

// Touching tells which commits of a span change one of the paths, which are
// relative to the tree's root and may have git's wildcards (gitglossary(7),
// pathspec). A merge does when it differs from one of its parents there.
func (t *Tree) Touching(ctx context.Context, s Span, paths []string) (map[string]bool, error) {
	args := []string{"rev-list", "--full-history"}
	if s.FirstParent {
		args = append(args, "--first-parent")
	}
	args = append(append(append(args, s.Bad, "--not"), s.Good...), "--")
	out, err := t.lines(ctx, append(args, paths...)...)
	if err != nil {
		return nil, fmt.Errorf("list the commits that touch %s: %w", strings.Join(paths, ", "), err)
	}
	touching := make(map[string]bool, len(out))
	for _, hash := range out {
		touching[hash] = true
	}
	return touching, nil
}

// MergeBases are the youngest commits that are ancestors of all of these, or
// themselves one; see git-merge-base(1). There are none where nothing is common.
func (t *Tree) MergeBases(ctx context.Context, hashes ...string) ([]string, error) {
	args := append([]string{"merge-base", "--all", "--octopus"}, hashes...)
	if len(hashes) == 2 {
		args = append([]string{"merge-base", "--all"}, hashes...)
	}
	bases, err := t.lines(ctx, args...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the merge base of %.12s and others: %w", hashes[0], err)
	}
	return bases, nil
}

// FirstParents lists a commit's ancestors by first parents, the youngest first,
// without itself.
func (t *Tree) FirstParents(ctx context.Context, hash string) ([]string, error) {
	list, err := t.lines(ctx, "rev-list", "--first-parent", fmt.Sprintf("--max-count=%d", maxCommits), hash, "--")
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[1:], nil
}

// lines gives what git prints of lab's own repository, line by line.
func (t *Tree) lines(ctx context.Context, args ...string) ([]string, error) {
	var out strings.Builder
	if err := t.git(ctx, &out, nil, args...); err != nil {
		return nil, err
	}
	return strings.Fields(out.String()), nil
}

// A Release is a tag of a commit.
type Release struct{ Tag, Commit string }

// What tags of releases look like: v6.1, 1.2.3, release-1_2, go1.21; and what
// those before one do: v6.1-rc3, 2.0.0-beta.1.
var (
	releaseTag    = regexp.MustCompile(`^([^0-9]*)[0-9]+(?:[._-][0-9]+)*$`)
	prereleaseTag = regexp.MustCompile(`(?i)^([^0-9]*)[0-9]+(?:[._-][0-9]+)*[._-]?(?:rc|alpha|beta|pre|dev|a|b)[._-]?[0-9]*(?:[._-][0-9]+)*$`)
)

// Releases are the releases behind a commit, the newest version first: the tags
// of ancestors of it that are named as releases are. Of tags that begin
// differently, those are taken that most have in common. Only where there is none
// do those count that come before a release.
func (t *Tree) Releases(ctx context.Context, hash string) ([]Release, error) {
	out, err := t.userGit(ctx, "-c", "versionsort.suffix=-rc", "for-each-ref", "--merged="+hash, "--sort=-version:refname",
		"--format=%(refname:lstrip=2) %(objecttype) %(objectname) %(*objecttype) %(*objectname)", "refs/tags")
	if err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}
	var all []Release
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 5 {
			f = []string{f[0], f[3], f[4]} // an annotated one
		}
		if len(f) == 3 && f[1] == "commit" && isHash(f[2]) && f[2] != hash {
			all = append(all, Release{f[0], f[2]})
		}
	}
	for _, like := range []*regexp.Regexp{releaseTag, prereleaseTag} {
		if some := alike(all, like); len(some) > 0 {
			return some, nil
		}
	}
	return nil, nil
}

// alike picks the tags that match and begin as most of those do.
func alike(all []Release, like *regexp.Regexp) []Release {
	families := map[string][]Release{}
	most := ""
	for _, r := range all {
		m := like.FindStringSubmatch(r.Tag)
		if m == nil {
			continue
		}
		families[m[1]] = append(families[m[1]], r)
		if n, of := len(families[m[1]]), len(families[most]); n > of || n == of && m[1] < most {
			most = m[1]
		}
	}
	return families[most]
}
