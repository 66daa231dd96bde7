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
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Pick is a commit whose change is put on top of the candidates that miss and
// need it, the repair of a build as a rule. See [Tree.OnTop].
type Pick struct {
	Commit Commit
	// Since are full hashes of the commits that brought in what it repairs, of
	// which one is enough to need it. Empty: nothing is known of that.
	Since []string
	// Reverted takes its change back where that is in the tree, as git revert does.
	Reverted bool
}

// A Patch is a change that is put on top of every candidate, such as the
// printk's with which one looks for a bug.
type Patch struct {
	Name   string // the file's, without its folders
	Digest string // sha256:… of Data
	Data   []byte
}

// fixes are the lines of a commit's message that name what it repairs
// (Documentation/process/submitting-patches.rst).
var fixes = regexp.MustCompile(`(?im)^\s*fixes:\s+(?:commit\s+)?([0-9a-f]{8,64})\b`)

// Pick finds the commit that REPAIRED or BROKEN..REPAIRED names, each a
// revision of the repository; of a clone that lab keeps, a full hash is fetched
// when it is not there. BROKEN brought in what the other repairs. Without it,
// the lines "Fixes: HASH" of the commit's message tell, as far as the repository
// has these commits.
func (t *Tree) Pick(ctx context.Context, text string) (Pick, error) {
	p, err := t.findPick(ctx, text)
	if err != nil {
		return Pick{}, fmt.Errorf("pick %s: %w", text, err)
	}
	return p, nil
}

func (t *Tree) findPick(ctx context.Context, text string) (Pick, error) {
	broken, repaired, ranged := strings.Cut(text, "..")
	if !ranged {
		broken, repaired = "", text
	}
	if ranged && (broken == "" || repaired == "" || strings.HasPrefix(repaired, ".")) {
		return Pick{}, errors.New("a commit is wanted, or BROKEN..REPAIRED")
	}
	var p Pick
	var err error
	if p.Commit, err = t.resolveOrFetch(ctx, repaired); err != nil {
		return Pick{}, err
	}
	switch {
	case len(p.Commit.Parents) > 1:
		return Pick{}, errors.New("it is a merge: name those of the commits that it brings in which are wanted")
	case len(p.Commit.Parents) == 0:
		return Pick{}, errors.New("it has no parent: what it changes cannot be told")
	}
	if ranged {
		c, err := t.resolveOrFetch(ctx, broken)
		p.Since = []string{c.Hash}
		return p, err
	}
	message, _, err := t.own(ctx, ownGit{}, "log", "--max-count=1", "--format=%B", "--encoding=UTF-8", p.Commit.Hash, "--")
	if err != nil {
		return Pick{}, err
	}
	for _, m := range fixes.FindAllStringSubmatch(message, 100) {
		hash, _, err := t.own(ctx, atHand, "rev-parse", "--verify", "--quiet", m[1]+"^{commit}")
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit): // another repository's
		case err != nil:
			return Pick{}, err
		case isHash(hash) && !slices.Contains(p.Since, hash):
			p.Since = append(p.Since, hash)
		}
	}
	return p, nil
}

// resolveOrFetch is Resolve, and asks the remote of a clone of lab's for a
// commit that no branch and no tag of it has.
func (t *Tree) resolveOrFetch(ctx context.Context, rev string) (Commit, error) {
	c, err := t.Resolve(ctx, rev)
	if err == nil || t.remote == "" || filepath.Dir(t.repo) != t.trees {
		return c, err
	}
	if !isHash(rev) {
		return c, fmt.Errorf("%w; one that is on no branch is fetched by its full hash", err)
	}
	child := child{dir: t.trees, env: append(gitBaseEnv(t.trees), networkEnv()...)}
	if fetched := child.run(ctx, "git", "--git-dir="+t.repo, "fetch", "--quiet", "--no-tags", "--filter=blob:none", "origin", rev); fetched != nil {
		return Commit{}, errors.Join(err, fmt.Errorf("git fetch: %w", fetched))
	}
	return t.Resolve(ctx, rev)
}

// ReadPatch reads a unified diff, alone or in a mail as git format-patch makes
// it. One that git cannot read, or that names files outside of the tree, is
// refused.
func ReadPatch(ctx context.Context, file string) (Patch, error) {
	f, err := os.Open(file)
	if err != nil {
		return Patch{}, fmt.Errorf("read patch: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPatch+1))
	if err == nil && len(data) > maxPatch {
		err = fmt.Errorf("it has more than %d bytes", maxPatch)
	}
	if err == nil {
		err = checkPatch(ctx, data)
	}
	if err != nil {
		return Patch{}, fmt.Errorf("read patch %s: %w", file, err)
	}
	sum := sha256.Sum256(data)
	return Patch{Name: printable([]byte(filepath.Base(file))), Digest: "sha256:" + hex.EncodeToString(sum[:]), Data: data}, nil
}

// checkPatch has git read a patch, in no repository at all.
func checkPatch(ctx context.Context, data []byte) error {
	out, said := cappedBuffer{limit: maxPatch}, cappedBuffer{limit: 4096}
	c := child{dir: "/", stdin: bytes.NewReader(data), stdout: &out, stderr: &said, env: append(gitBaseEnv("/nonexistent"), "GIT_DIR=/nonexistent")}
	err := c.run(ctx, "git", "apply", "--numstat", "-z")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("not a patch: %s", printable([]byte(complaint(said.kept.String()))))
	}
	if err != nil {
		return err
	}
	return checkNumstat(out.kept.Bytes())
}

// checkNumstat reads what git apply --numstat -z prints: lines added, lines
// removed, and a path, with tabs between and NUL at the end.
func checkNumstat(out []byte) error {
	files := bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0})
	for _, f := range files {
		fields := bytes.SplitN(f, []byte("\t"), 3)
		if len(fields) != 3 {
			return errors.New("not a patch: it changes no file")
		}
		if name := string(fields[2]); !inTree(name) {
			return fmt.Errorf("it changes %q, which is no file of a source tree", printable(fields[2]))
		}
	}
	return nil
}

// inTree tells whether git would have a path in a tree, on any file system.
func inTree(name string) bool {
	if name == "" || strings.HasPrefix(name, "/") || !filepath.IsLocal(name) {
		return false
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || part == "." || part == ".." || strings.EqualFold(part, ".git") {
			return false
		}
	}
	return true
}
