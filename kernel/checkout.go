package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// runSuffix is at the end of the folder of a Tree that is not for kernels, or
// before the number of its slot.
const runSuffix = "-run"

// OpenCheckout is OpenTree for a git repository of anything, whose commits are
// checked out for a command of the user's; see [Tree.Checkout]. Its work tree is
// another one than that in which kernels of the same repository are built.
//
// Each slot, from 0, has a work tree and a repository of lab's own, so that as
// many commits can be checked out at the same time.
//
// In the work tree there is a file .git, so that a command which asks git is
// told of the commit that is checked out: lab's own repository has the tags and
// branches that the user's has when it is opened. What the command does with git
// it does to lab's repository, not to the user's.
func OpenCheckout(ctx context.Context, cache, repo string, slot int) (*Tree, error) {
	suffix := runSuffix
	if slot > 0 {
		suffix += fmt.Sprintf("-%d", slot+1)
	}
	t, err := openTree(ctx, cache, repo, suffix)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", repo, err)
	}
	return t, nil
}

// setUpExclude says what beside the tree's own .gitignore stays in the work
// tree between commits, and gives a plain tree its tags and branches.
func (t *Tree) setUpExclude(ctx context.Context) error {
	git := filepath.Join(t.base, "git")
	if !t.plain {
		return writeIfChanged(filepath.Join(git, "info/exclude"), exclude)
	}
	if err := t.git(ctx, nil, nil, "config", "core.bare", "false"); err != nil {
		return err
	}
	refs, err := t.userGit(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/remotes", "refs/tags")
	if err != nil {
		return err
	}
	// In the order of names, as git wants it and for-each-ref gives it:
	// gitrepository-layout(5), packed-refs.
	return writeIfChanged(filepath.Join(git, "packed-refs"), "# pack-refs with: sorted \n"+string(refs))
}

// Checkout has a commit, given by its full hash, in the work tree and calls use
// with the work tree's folder. Tracked files are those of the commit, and those
// that do not differ from the last one's keep their times; ignored files stay
// from one commit to the next; all others are removed. While use runs, nobody
// else has the work tree. A process that inherits lock keeps it so, should lab be
// killed.
//
// An error of use's is returned. What it has written last is not believed then:
// it may have been killed over it.
func (t *Tree) Checkout(ctx context.Context, hash string, waiting func(holder string), use func(dir string, lock *os.File) error) (err error) {
	lock, err := lockFile(ctx, filepath.Join(t.base, "lock"), holder(), waiting)
	if err != nil {
		return err
	}
	defer func() {
		// A process that use has left running, and that inherited the lock, has
		// it no longer (flock(2)).
		err = errors.Join(err, unix.Flock(int(lock.Fd()), unix.LOCK_UN), lock.Close())
	}()
	w := workTree{Tree: t, lock: lock}
	err = w.enter(ctx, hash, func() error {
		// gitrepository-layout(5): a file in the place of .git.
		return writeIfChanged(filepath.Join(w.src(), ".git"), "gitdir: ../git\n")
	})
	if err != nil {
		return fmt.Errorf("check out %.12s: %w", hash, err)
	}
	if err := use(w.src(), lock); err != nil {
		return err
	}
	return os.Remove(w.marker())
}

// TreeHash is the hash of a commit's tree: two commits with the same one have
// the same files.
func (t *Tree) TreeHash(ctx context.Context, commit string) (string, error) {
	hash, _, err := t.own(ctx, ownGit{}, "rev-parse", "--verify", commit+"^{tree}")
	if err != nil {
		return "", fmt.Errorf("find the tree of %.12s: %w", commit, err)
	}
	return hash, nil
}
