package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Tree is a git repository to build kernels from.
//
// The repository itself is only read. Below cache/trees/KEY lab has a bare
// repository of its own that finds all objects in the user's (alternates), so
// that it takes no space and knows new commits at once, and a work tree, in
// which it builds. The work tree stays between builds, in one place and with
// all objects, because make then compiles only what a commit changes.
//
//	git/          the bare repository
//	src/          the work tree; no .git in it, so that no build asks git anything
//	out/          what the build at hand has made so far
//	lock          held while something happens in git/ and src/
//	open          held (flock(2), shared) by whoever has the Tree open
//	building      there while a build runs: see workTree.recover
//	state.json    what the last build was made with
type Tree struct {
	repo       string // the user's repository or a directory in it
	base       string // cache/trees/KEY
	trees      string // cache/trees, which is also the children's HOME
	kernels    string // cache/kernels
	objects    string // the user's object directory
	shallow    string // where the user's repository says that it is shallow
	format     string // sha1 or sha256
	remote     string // of a partial clone: where what is missing can be had
	toolchains toolchains
	guess      guess
	held       *os.File // keeps what git/ finds its objects in from being freed
	plain      bool     // not for kernels: see OpenCheckout
	beside     string   // of a slot the base of the first, where commits are that lab has made
	tops       topsOnce
	makes      makesOnce
}

// gitConfig is all the configuration that git gets from lab. It replaces the
// user's and the system's. A repository that belongs to somebody else is safe
// because nothing runs that its own configuration could name.
const gitConfig = `[safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	autocrlf = false
	attributesFile = /dev/null
	excludesFile = /dev/null
[advice]
	detachedHead = false
[gc]
	auto = 0
[maintenance]
	auto = false
[checkout]
	workers = 0
`

// exclude names what builds leave in a tree, in addition to the tree's own
// .gitignore, which in old kernels forgets some of it.
const exclude = `.*
*.a
*.o
*.ko
*.s
*.so
*.so.dbg
*.mod
*.mod.c
*.order
*.lex.c
*.tab.[ch]
*.lds
/vmlinux*
/System.map
/Module.symvers
/modules.builtin*
/include/config/
/include/generated/
/arch/*/include/generated/
/arch/*/boot/bzImage
/arch/*/boot/*.bin
`

// OpenTree prepares to build from the repository at repo: a clone, a bare
// repository, a linked worktree or any directory in one. Nothing is copied and
// nothing in it is changed, now or later. What a partial clone lacks is got from
// its remote, and kept in lab's own repository. Builds in the same repository
// take turns; see Build.
func OpenTree(ctx context.Context, cache, repo string) (*Tree, error) {
	t, err := openTree(ctx, cache, repo, "")
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", repo, err)
	}
	return t, nil
}

// openTree opens the repository with the work tree that the suffix names; the
// empty one is for kernels.
func openTree(ctx context.Context, cache, repo, suffix string) (*Tree, error) {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(repo); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, errors.New("not a directory")
	}
	trees, err := filepath.Abs(filepath.Join(cache, "trees"))
	if err != nil {
		return nil, err
	}
	t := &Tree{repo: repo, trees: trees, plain: strings.HasPrefix(suffix, runSuffix)}
	if t.kernels, err = kernelsDir(cache); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(trees, 0o755); err != nil {
		return nil, err
	}
	if err := writeIfChanged(filepath.Join(trees, ".gitconfig"), gitConfig); err != nil {
		return nil, err
	}
	out, err := t.userGit(ctx, "rev-parse", "--git-common-dir", "--git-path", "objects", "--git-path", "shallow", "--show-object-format")
	if err != nil {
		if strings.Contains(err.Error(), "not a git repository") {
			return nil, errors.New("not a git repository")
		}
		return nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 4 {
		return nil, errors.New("the path of the repository has a line break in it")
	}
	for i := range lines[:3] {
		if !filepath.IsAbs(lines[i]) {
			lines[i] = filepath.Join(repo, lines[i])
		}
	}
	common, err := filepath.EvalSymlinks(lines[0])
	if err != nil {
		return nil, err
	}
	t.objects, t.shallow, t.format = lines[1], lines[2], "sha1"
	if lines[3] == "sha256" {
		t.format = "sha256"
	}
	sum := sha256.Sum256([]byte(t.format + common))
	t.base = filepath.Join(trees, hex.EncodeToString(sum[:8])+suffix)
	// A partial clone says which remote has the rest: remote.NAME.promisor in
	// git-config(1).
	if out, err := t.userGit(ctx, "config", "--bool", "--name-only", "--get-regexp", `^remote\..*\.promisor$`); err == nil {
		name, _, _ := strings.Cut(string(out), "\n")
		if out, err = t.userGit(ctx, "config", "--get", strings.TrimSuffix(name, "promisor")+"url"); err == nil {
			t.remote = strings.TrimSuffix(string(out), "\n")
		}
	}
	if slot := strings.TrimPrefix(suffix, runSuffix); slot != suffix && slot != "" {
		t.beside = strings.TrimSuffix(t.base, slot)
	}
	return t, t.setUp(ctx, common)
}

// setUp makes lab's own repository, unless it is there.
func (t *Tree) setUp(ctx context.Context, common string) error {
	if err := os.MkdirAll(t.base, 0o755); err != nil {
		return err
	}
	lock, err := lockFile(ctx, filepath.Join(t.base, "setup.lock"), holder(), nil)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := writeIfChanged(filepath.Join(t.base, "repository"), common+"\n"); err != nil {
		return err
	}
	git := filepath.Join(t.base, "git")
	if _, err := os.Stat(filepath.Join(git, "HEAD")); err != nil {
		args := []string{"init", "--quiet", "--bare", "--template="}
		if t.format != "sha1" {
			args = append(args, "--object-format="+t.format)
		}
		// Beside, and then renamed: killed in the middle, git leaves half of one.
		beside := git + ".new"
		if err := os.RemoveAll(beside); err != nil {
			return err
		}
		c := child{dir: t.base, env: t.gitEnv()}
		if err := c.run(ctx, "git", append(args, beside)...); err != nil {
			return fmt.Errorf("make a repository of our own: %w", err)
		}
		if err := errors.Join(os.RemoveAll(git), os.Rename(beside, git)); err != nil {
			return err
		}
	}
	// What a killed lab's git has left: who sets up is alone here.
	if err := removeIfThere(filepath.Join(git, "config.lock")); err != nil {
		return err
	}
	for _, dir := range []string{"objects/info", "info"} {
		if err := os.MkdirAll(filepath.Join(git, dir), 0o755); err != nil {
			return err
		}
	}
	if err := t.setUpExclude(ctx); err != nil {
		return err
	}
	alternates := t.objects + "\n"
	if t.beside != "" {
		alternates += filepath.Join(t.beside, "git/objects") + "\n"
	}
	if err := writeIfChanged(filepath.Join(git, "objects/info/alternates"), alternates); err != nil {
		return err
	}
	if t.remote != "" {
		err := promise(func(key, value string) error {
			return t.git(ctx, nil, nil, "config", key, value)
		}, t.remote)
		if err != nil {
			return err
		}
	}
	if err := t.hold(); err != nil {
		return err
	}
	return t.syncShallow()
}

const heldFile = "open"

// hold takes the lock of those who have the tree open.
func (t *Tree) hold() error {
	f, err := os.OpenFile(filepath.Join(t.base, heldFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		f.Close()
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	t.held = f
	return nil
}

// syncShallow tells lab's repository where the history of a shallow clone ends.
func (t *Tree) syncShallow() error {
	ours := filepath.Join(t.base, "git/shallow")
	ends, err := os.ReadFile(t.shallow)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Remove(ours); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	return writeIfChanged(ours, string(ends))
}

// shallowEnds tells where the history of a shallow clone is cut off: the hashes of
// the oldest commits there are.
func (t *Tree) shallowEnds() []string {
	data, err := os.ReadFile(t.shallow)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

// Repository is the folder of the repository.
func (t *Tree) Repository() string { return t.repo }

// Close gives back what the tree holds. What is in the cache stays.
func (t *Tree) Close() error { return t.held.Close() }

func writeIfChanged(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	return renameio.WriteFile(path, []byte(text), 0o644)
}

// gitEnv is the environment of git for a user's repository, of which nothing is
// fetched.
func (t *Tree) gitEnv() []string {
	return append(gitBaseEnv(t.trees), "GIT_NO_LAZY_FETCH=1")
}

// gitBaseEnv is the environment of every git. Nothing in it points at a repository.
func gitBaseEnv(home string) []string {
	return append(baseEnv(home),
		"GIT_CONFIG_NOSYSTEM=1", "GIT_ATTR_NOSYSTEM=1", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL="+strings.Join(cloneSchemes, ":"))
}

// userGit asks the user's repository. Only for commands that write nothing.
func (t *Tree) userGit(ctx context.Context, args ...string) ([]byte, error) {
	var out bytes.Buffer
	c := child{dir: t.repo, env: t.gitEnv(), stdout: &out}
	if err := c.run(ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"}, args...)...); err != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out.Bytes(), nil
}

// ownEnv is the environment of git for lab's own repository, which may fetch what
// a partial clone lacks.
func (t *Tree) ownEnv() []string {
	env := t.gitEnv()
	if t.remote != "" {
		env = append(gitBaseEnv(t.trees), networkEnv()...)
	}
	return append(env, "GIT_DIR="+filepath.Join(t.base, "git"))
}

// git runs git in lab's own repository and work tree. It inherits the files in
// held, and the locks on them.
func (t *Tree) git(ctx context.Context, stdout io.Writer, held []*os.File, args ...string) error {
	c := child{dir: t.base, stdout: stdout, extra: held, env: append(t.ownEnv(), "GIT_WORK_TREE="+filepath.Join(t.base, "src"))}
	if err := c.run(ctx, "git", args...); err != nil {
		return fmt.Errorf("git %s: %w", args[0], err)
	}
	return nil
}
