package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Addition is a pick or a patch, and what became of it at one commit.
type Addition struct {
	Pick   string `json:"pick,omitempty"`   // full hash of the commit that was picked,
	Revert bool   `json:"revert,omitempty"` // or taken back
	Name   string `json:"name"`             // the pick's title, or the patch's file name
	Digest string `json:"digest,omitempty"` // sha256:… of the patch
	State  string `json:"state"`
	Why    string `json:"why,omitempty"` // of one that was not applied
}

// What can become of a pick or a patch.
const (
	Applied   = "applied"
	There     = "there"      // its change is in the commit already
	NotNeeded = "not needed" // what it repairs is not in the commit
)

// String names a pick or a patch, whatever became of it.
func (a Addition) String() string {
	if a.Revert {
		return fmt.Sprintf("revert of %.12s (%q)", a.Pick, a.Name)
	}
	if a.Pick != "" {
		return fmt.Sprintf("pick %.12s (%q)", a.Pick, a.Name)
	}
	return "patch " + a.Name
}

// A Top is a commit with what was merged with it and picks and patches on top.
type Top struct {
	// Commit has the changed tree, and lies in lab's own repository, where it
	// has the same hash each time. It is a commit of the user's where nothing changes.
	Commit    string
	Additions []Addition
}

// topsOnce remembers what [Tree.OnTop] found.
type topsOnce struct {
	sync.Mutex
	found map[string]foundTop
}

type foundTop struct {
	Top
	failure *Failure
}

// OnTop merges o.Merge with a commit, which is given by its full hash, and puts the
// picks, and then the patches, on top of that. Nothing but lab's own object store
// is written (an object that the user's has already is given the present time by
// git): two commits that come out the same have the same tree, whatever was done to
// either. What does not apply, or git cannot merge by itself, gives a Failure of the
// step StepPatch.
//
// A pick is applied where it is missing and needed:
//
//   - It is there when the commit or one of its ancestors is it, or says in
//     its message that it is a copy of it ("commit HASH upstream.",
//     "[ Upstream commit HASH ]", "(cherry picked from commit HASH)").
//   - It is not needed where what it repairs is not there: none of its Since is
//     the commit, an ancestor of it or copied by one. A pick without Since is
//     needed everywhere.
//   - Else its change is merged as git cherry-pick merges: renames are followed.
//     When nothing changes, it was there. When there are conflicts and none of
//     the files that it changes exists in the commit, it is not needed.
//
// A reverted pick is merged in the same way, from the commit to its parent, and
// wherever that changes something.
//
// A patch is applied to every commit that does not have its change already.
//
// Of a commit and o.Merge of which one has the other in it, the merge is that one.
func (t *Tree) OnTop(ctx context.Context, hash string, o BuildOptions) (Top, *Failure, error) {
	if o.Merge == "" && len(o.Picks) == 0 && len(o.Patches) == 0 {
		return Top{Commit: hash}, nil, nil
	}
	key := hash + "\n" + strings.Join(o.OnTop(), "\n")
	t.tops.Lock()
	found, known := t.tops.found[key]
	t.tops.Unlock()
	if !known {
		var err error
		if found.Top, found.failure, err = t.putOnTop(ctx, hash, o); err != nil {
			return Top{}, nil, fmt.Errorf("put what was asked for on top of %.12s: %w", hash, err)
		}
		t.tops.Lock()
		if t.tops.found == nil {
			t.tops.found = map[string]foundTop{}
		}
		t.tops.found[key] = found
		t.tops.Unlock()
	}
	if f := found.failure; f != nil {
		f = &Failure{Step: f.Step, Line: f.Line}
		return Top{}, f, nil
	}
	found.Additions = slices.Clone(found.Additions)
	return found.Top, nil, nil
}

// OnTopDiff is what the picks and patches change at a commit, as a diff. It
// applies to the commit's tree.
func (t *Tree) OnTopDiff(ctx context.Context, hash string, o BuildOptions) ([]byte, error) {
	top, f, err := t.OnTop(ctx, hash, o)
	if err == nil && f != nil {
		err = errors.New(f.Line)
	}
	out := &cappedBuffer{limit: maxPatch}
	if err == nil {
		err = t.git(ctx, out, nil, "diff-tree", "-p", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", hash, top.Commit)
	}
	if err == nil && out.over {
		err = fmt.Errorf("more than %d bytes", maxPatch)
	}
	if err != nil {
		return nil, fmt.Errorf("show what is on top of %.12s: %w", hash, err)
	}
	return out.kept.Bytes(), nil
}

// OnTop says what is put on top of commits, one line each: hashes and digests.
func (o BuildOptions) OnTop() []string {
	var lines []string
	if o.Merge != "" {
		lines = append(lines, "merge "+o.Merge)
	}
	for _, p := range o.Picks {
		verb := "pick"
		if p.Reverted {
			verb = "revert"
		}
		lines = append(lines, strings.Join(append([]string{verb, p.Commit.Hash}, p.Since...), " "))
	}
	for _, p := range o.Patches {
		lines = append(lines, "patch "+p.Digest)
	}
	return lines
}

func (t *Tree) putOnTop(ctx context.Context, hash string, o BuildOptions) (Top, *Failure, error) {
	if o.Merge != "" {
		merged, conflict, err := t.merge(ctx, hash, o.Merge)
		if err != nil {
			return Top{}, nil, err
		}
		if conflict != "" {
			return Top{}, &Failure{Step: StepPatch, Line: printable([]byte(fmt.Sprintf("git cannot merge it with %.12s by itself: %s", o.Merge, conflict)))}, nil
		}
		hash = merged
	}
	before, err := t.TreeHash(ctx, hash)
	if err != nil {
		return Top{}, nil, err
	}
	tree := before
	top := Top{Commit: hash}
	for _, p := range o.Picks {
		a := Addition{Pick: p.Commit.Hash, Name: p.Commit.Title, Revert: p.Reverted}
		var conflict string
		if tree, conflict, err = t.pick(ctx, hash, tree, p, &a); err != nil {
			return Top{}, nil, err
		}
		if conflict != "" {
			return Top{}, &Failure{Step: StepPatch, Line: printable([]byte(fmt.Sprintf("%s does not apply: %s", a, conflict)))}, nil
		}
		top.Additions = append(top.Additions, a)
	}
	for _, p := range o.Patches {
		a := Addition{Name: p.Name, Digest: p.Digest}
		var conflict string
		if tree, conflict, err = t.patch(ctx, tree, p, &a); err != nil {
			return Top{}, nil, err
		}
		if conflict != "" {
			return Top{}, &Failure{Step: StepPatch, Line: printable([]byte(fmt.Sprintf("%s does not apply: %s", a, conflict)))}, nil
		}
		top.Additions = append(top.Additions, a)
	}
	if tree != before {
		top.Commit, _, err = t.own(ctx, ownGit{}, "commit-tree", tree, "-p", hash, "-m", "lab: picks and patches on top")
	}
	return top, nil, err
}

// pick puts a pick on top of the tree that a commit has come to by now.
func (t *Tree) pick(ctx context.Context, hash, tree string, p Pick, a *Addition) (changed, conflict string, err error) {
	base, theirs, err := t.sides(ctx, p)
	if err != nil {
		return "", "", err
	}
	copied, err := t.has(ctx, hash, p.Commit.Hash)
	if err != nil {
		return "", "", err
	}
	if copied != "" && !p.Reverted {
		a.State, a.Why = There, copied
		return tree, "", nil
	}
	if len(p.Since) > 0 {
		needed := false
		for _, since := range p.Since {
			if copied, err = t.has(ctx, hash, since); err != nil {
				return "", "", err
			}
			needed = needed || copied != ""
		}
		if !needed {
			a.State, a.Why = NotNeeded, fmt.Sprintf("%.12s, which it repairs, is not in it", p.Since[0])
			return tree, "", nil
		}
	}
	// A commit with the tree as it is now and the pick's parent: what git merges
	// then is what the pick changes.
	ours, _, err := t.own(ctx, ownGit{}, "commit-tree", tree, "-p", base, "-m", "lab: to pick onto")
	if err != nil {
		return "", "", err
	}
	merged, conflict, err := t.mergeTrees(ctx, ours, theirs, "false")
	switch {
	case err != nil:
		return "", "", err
	case conflict == "" && merged == tree:
		a.State, a.Why = There, "its change is in it already"
		if p.Reverted {
			a.State, a.Why = NotNeeded, "its change is not in it"
		}
		return tree, "", nil
	case conflict == "":
		a.State = Applied
		return merged, "", nil
	}
	none, err := t.hasNone(ctx, tree, p.Commit)
	if err != nil {
		return "", "", err
	}
	if none {
		a.State, a.Why = NotNeeded, "none of the files that it changes is in it"
		return tree, "", nil
	}
	return "", conflict, nil
}

// sides are what a pick's change lies between: a commit, and one that is built upon
// it alone. To take it back that is one with the files of its parent.
func (t *Tree) sides(ctx context.Context, p Pick) (base, theirs string, err error) {
	parent := p.Commit.Parents[0]
	if !p.Reverted {
		return parent, p.Commit.Hash, nil
	}
	files, err := t.TreeHash(ctx, parent)
	if err != nil {
		return "", "", err
	}
	theirs, _, err = t.own(ctx, ownGit{}, "commit-tree", files, "-p", p.Commit.Hash, "-m", "lab: reverted")
	return p.Commit.Hash, theirs, err
}

// has says how a commit has another one in it: "" when it has not.
func (t *Tree) has(ctx context.Context, hash, other string) (string, error) {
	if there, err := t.isAncestor(ctx, other, hash); err != nil || there {
		return "it has it", err
	}
	written, _, err := t.own(ctx, ownGit{}, "log", "--max-count=1", "--format=%at", other, "--")
	if err != nil {
		return "", err
	}
	// What git cherry-pick -x and the stable kernels' maintainers write. No copy
	// was made before what it is one of was written.
	grep := fmt.Sprintf(`^(commit %[1]s upstream\.?|\[ *[Uu]pstream commit %[1]s *\]|\(cherry picked from commit %[1]s\).*|\(backported from commit %[1]s\).*)$`, other)
	out, _, err := t.own(ctx, ownGit{}, "log", "--max-count=1", "--format=%H", "-E", "--grep="+grep,
		"--since=@"+written+" +0000", hash, "^"+other, "--")
	if err != nil || out == "" {
		return "", err
	}
	return fmt.Sprintf("it has it as %.12s", out), nil
}

// hasNone tells whether none of the files that a commit changes or removes is in
// a tree. One that only adds files has them all to add.
func (t *Tree) hasNone(ctx context.Context, tree string, c Commit) (bool, error) {
	changes, err := t.Diff(ctx, c.Parents[0], c.Hash)
	if err != nil {
		return false, err
	}
	args := []string{"ls-tree", "--name-only", "-z", tree, "--"}
	for _, change := range changes {
		if change.Status != 'A' {
			args = append(args, change.Path)
		}
	}
	const few = 200 // no repair changes more
	if len(args) == 5 || len(args) > few {
		return false, nil
	}
	out, _, err := t.own(ctx, ownGit{}, args...)
	return out == "", err
}

// patch puts a patch on top of a tree.
func (t *Tree) patch(ctx context.Context, tree string, p Patch, a *Addition) (changed, conflict string, err error) {
	t.sweepPatches()
	dir, err := os.MkdirTemp(t.base, "patch-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	index := ownGit{env: []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "index")}}
	if _, _, err := t.own(ctx, index, "read-tree", tree); err != nil {
		return "", "", err
	}
	index.stdin = p.Data
	apply := []string{"apply", "--cached", "--whitespace=nowarn"}
	ways := [][]string{apply, append(apply, "--3way")}
	if t.remote != "" {
		ways = ways[:1] // it would ask the remote for files that only the patch's author has
	}
	var exit *exec.ExitError
	for i, way := range ways {
		var said string
		if _, said, err = t.own(ctx, index, way...); err == nil {
			break
		}
		if !errors.As(err, &exit) {
			return "", "", err
		}
		if i == 0 {
			conflict = complaint(said)
		}
	}
	if err == nil {
		index.stdin = nil
		if changed, _, err = t.own(ctx, index, "write-tree"); err != nil {
			return "", "", err
		}
		if a.State = Applied; changed == tree {
			a.State, a.Why = There, "its change is in it already"
		}
		return changed, "", nil
	}
	index.env = []string{"GIT_INDEX_FILE=" + filepath.Join(dir, "again")}
	index.stdin = nil
	if _, _, err := t.own(ctx, index, "read-tree", tree); err != nil {
		return "", "", err
	}
	index.stdin = p.Data
	switch _, _, err = t.own(ctx, index, append(apply, "--check", "--reverse")...); {
	case err == nil:
		a.State, a.Why = There, "its change is in it already"
		return tree, "", nil
	case errors.As(err, &exit):
		return "", conflict, nil
	}
	return "", "", err
}

// sweepPatches removes what labs that were killed have left of their patching,
// which takes seconds.
func (t *Tree) sweepPatches() {
	left, _ := filepath.Glob(filepath.Join(t.base, "patch-*"))
	for _, dir := range left {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.RemoveAll(dir)
		}
	}
}

// complaint is the first line in which git says what is wrong.
func complaint(said string) string {
	for line := range strings.Lines(said) {
		if text, ok := strings.CutPrefix(line, "error: "); ok {
			return strings.TrimSpace(strings.TrimPrefix(text, "patch failed: "))
		}
	}
	return "git apply says nothing of why"
}

// ownGit is what git gets beside its arguments.
type ownGit struct {
	env   []string
	stdin []byte
}

// atHand is for questions that are answered by what is there: nothing is fetched.
// git before 2.45 heeds only the second, and then has no way to fetch.
var atHand = ownGit{env: []string{"GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=none"}}

// own runs git in lab's own repository, without a work tree, and gives the one
// line that it prints and what it complains of. Its commits are always the same.
func (t *Tree) own(ctx context.Context, g ownGit, args ...string) (out, said string, err error) {
	env := t.ownEnv()
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		env = append(env, "GIT_"+who+"_NAME=lab", "GIT_"+who+"_EMAIL=lab@localhost", "GIT_"+who+"_DATE=@0 +0000")
	}
	stdout, stderr := cappedBuffer{limit: maxField}, cappedBuffer{limit: 64 << 10}
	c := child{dir: t.base, stdout: &stdout, stderr: &stderr, env: append(env, g.env...)}
	if g.stdin != nil {
		c.stdin = bytes.NewReader(g.stdin)
	}
	err = c.run(ctx, "git", args...)
	out, said = strings.TrimSuffix(stdout.kept.String(), "\n"), stderr.kept.String()
	if err != nil {
		verb := gitVerb(args)
		if said = strings.TrimSpace(said); said != "" {
			return out, said, fmt.Errorf("git %s: %w: %.400s", verb, err, said)
		}
		return out, said, fmt.Errorf("git %s: %w", verb, err)
	}
	return out, said, nil
}
