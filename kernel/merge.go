package kernel

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// merge gives the commit that two make together. Where git cannot merge them by
// itself, conflict says why.
func (t *Tree) merge(ctx context.Context, ours, theirs string) (merged, conflict string, err error) {
	for _, of := range [][2]string{{ours, theirs}, {theirs, ours}} {
		if older, err := t.isAncestor(ctx, of[0], of[1]); err != nil || older {
			return of[1], "", err
		}
	}
	// A file that one side adds to a folder which the other has moved goes along.
	tree, conflict, err := t.mergeTrees(ctx, ours, theirs, "true")
	if err != nil || conflict != "" {
		return "", conflict, err
	}
	merged, _, err = t.own(ctx, ownGit{}, "commit-tree", tree, "-p", ours, "-p", theirs, "-m", "lab: merged")
	return merged, "", err
}

// mergeTrees merges two commits as git merge does, and gives the tree. directories
// says whether what is added to a folder follows where the other side has moved it:
// merge.directoryRenames in git-config(1).
func (t *Tree) mergeTrees(ctx context.Context, ours, theirs, directories string) (tree, conflict string, err error) {
	out, said, err := t.own(ctx, ownGit{}, "-c", "merge.directoryRenames="+directories, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
	tree, files, _ := strings.Cut(out, "\x00")
	var exit *exec.ExitError
	switch {
	case err == nil:
		return tree, "", nil
	case errors.As(err, &exit) && exit.ExitCode() == 1 && isHash(tree):
		file, _, _ := strings.Cut(files, "\x00")
		return "", "conflict in " + file, nil
	case strings.Contains(said, "unrelated histories"):
		return "", "they have no history in common", nil
	case strings.Contains(said, "usage: git merge-tree"):
		return "", "", errors.New("picks and merges need git 2.38 or newer; in the place of a pick a patch of the commit (git format-patch -1) can be given")
	}
	return "", "", err
}

// MergeDiff is a diff from what two commits make together, when git merges them by
// itself, to a third commit, their merge as a rule: what that has changed on its
// own. Of one that is longer than limit bytes the rest is left out.
func (t *Tree) MergeDiff(ctx context.Context, ours, theirs, merge string, limit int) ([]byte, error) {
	made, conflict, err := t.merge(ctx, ours, theirs)
	if err == nil && conflict != "" {
		err = errors.New(conflict)
	}
	out := &cappedBuffer{limit: limit}
	if err == nil {
		err = t.git(ctx, out, nil, "diff-tree", "-p", "--no-color", "--no-ext-diff", "--no-textconv", made, merge)
	}
	if err != nil {
		return nil, fmt.Errorf("compare the merge %.12s with git's own: %w", merge, err)
	}
	if out.over {
		return append(out.kept.Bytes(), "\n[lab: the rest is left out here]\n"...), nil
	}
	return out.kept.Bytes(), nil
}
