package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A mergeRepo has a file lib with the functions that there are, and files below calls
// with those that are called: two changes that are right each may be wrong together,
// and git sees nothing of it.
type mergeRepo struct {
	*smallRepo
	log string // one line for each run of the test
}

func newMergeRepo(t *testing.T) *mergeRepo {
	r := &mergeRepo{newSmallRepo(t), filepath.Join(t.TempDir(), "runs")}
	r.change("base", "lib", "f", "calls/a", "f")
	return r
}

// change commits files, which are given by their names and contents.
func (r *mergeRepo) change(title string, files ...string) string {
	r.t.Helper()
	for i := 0; i < len(files); i += 2 {
		if err := os.MkdirAll(filepath.Join(r.dir, filepath.Dir(files[i])), 0o755); err != nil {
			r.t.Fatal(err)
		}
		r.write(files[i], files[i+1]+"\n")
	}
	r.git("add", ".")
	r.git("commit", "-q", "--allow-empty", "-m", title)
	return r.git("rev-parse", "HEAD")
}

func (r *mergeRepo) rename() string { return r.change("rename f to g", "lib", "g", "calls/a", "g") }
func (r *mergeRepo) caller() string { return r.change("call f once more", "calls/b", "f") }

// others makes commits that have nothing to do with it, some of them on branches of
// their own that are merged.
func (r *mergeRepo) others(side string, n int) {
	r.t.Helper()
	here := r.git("rev-parse", "--abbrev-ref", "HEAD")
	for i := range n {
		name := fmt.Sprintf("%s %d", side, i)
		if i%4 != 3 {
			r.change(name, "other/"+name, name)
			continue
		}
		r.git("checkout", "-q", "-b", strings.ReplaceAll(name, " ", "-"), "HEAD~2")
		r.change(name, "other/"+name, name)
		r.git("checkout", "-q", here)
		r.git("merge", "-q", "--no-ff", "-m", "nested "+name, strings.ReplaceAll(name, " ", "-"))
	}
}

func (r *mergeRepo) branch(name string) { r.t.Helper(); r.git("checkout", "-q", "-b", name, "main") }

func (r *mergeRepo) options() BisectOptions {
	return commandOptions(r.smallRepo, "main", Command{Shell: fmt.Sprintf(
		`git rev-parse HEAD >> %s; test $LAB_COMMIT = $(git rev-parse HEAD) || exit 200
		for f in $(cat calls/*); do grep -qx $f lib || { echo "there is no $f" >&2; exit 1; }; done`, r.log)})
}

// runs counts how often the test was run.
func (r *mergeRepo) runs() int {
	data, err := os.ReadFile(r.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// bisect bisects main..bad, and wants a merge for an answer, about which it says more.
func (r *mergeRepo) bisect(bad string) Bisection {
	r.t.Helper()
	o := r.options()
	o.Bad = bad
	b, err := testLab(r.t).Bisect(r.t.Context(), o)
	if err != nil {
		r.t.Fatal(err)
	}
	if b.Culprit == nil || b.Culprit.Hash != r.git("rev-parse", bad) || b.Pair == nil || b.Pair.Merge != b.Culprit.Hash {
		r.t.Fatalf("found %+v: %s, %+v", b.Culprit, b.Unclear, b.Pair)
	}
	s, err := OpenSaved(b.Dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	if st, err := s.Status(); err != nil || st.Pair == nil || strings.Join(st.Pair.Text(nil), "\n") != strings.Join(b.Pair.Text(nil), "\n") {
		r.t.Errorf("the status has %+v, %v", st.Pair, err)
	}
	return b
}

func (r *mergeRepo) wantPair(b Bisection, first, second string) {
	r.t.Helper()
	p := b.Pair
	if len(p.Commits) != 2 || p.Commits[0].Hash != first || p.Commits[1].Hash != second || p.Unclear != "" {
		r.t.Fatalf("found %s", strings.Join(p.Text(nil), "\n"))
	}
	var marks []Mark
	for _, c := range p.Checks {
		marks = append(marks, c.Mark)
	}
	if want := []Mark{Bad, Good, Good}; !slices.Equal(marks, want) {
		r.t.Errorf("checked %+v", p.Checks)
	}
}

func TestPair(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	first := r.rename()
	r.branch("two")
	second := r.caller()
	r.git("merge", "-q", "-m", "merge", "one")
	b := r.bisect("two")
	r.wantPair(b, second, first) // the first parent's side comes first
	if c := b.Pair.Checks[0]; c.Reason != "exit status 1: there is no f" || c.Commits != [2]string{second, first} {
		t.Errorf("checked %+v", c)
	}
}

// TestPairDeep: each of the two is in the middle of a long side, with merges.
func TestPairDeep(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	r.others("a", 9)
	first := r.rename()
	r.others("b", 6)
	r.branch("two")
	r.others("c", 5)
	r.git("checkout", "-q", "-b", "topic", "HEAD~3")
	second := r.caller()
	r.git("checkout", "-q", "two")
	r.git("merge", "-q", "-m", "topic", "topic")
	r.others("d", 8)
	r.git("checkout", "-q", "one")
	r.git("merge", "-q", "-m", "merge", "two")
	r.others("e", 3)
	o := r.options()
	o.Bad = "one"
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Pair == nil {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	r.wantPair(b, first, second)
	// A side has 20 commits and fewer: 5 steps each, 2 tests of the answer, one of
	// the second commit alone and one of the first without it.
	t.Logf("%d tests found the merge, %d the pair", len(b.Tested), b.Pair.Tests)
	if b.Pair.Tests > 2*(5+2)+2 {
		t.Errorf("%d tests for the pair", b.Pair.Tests)
	}
	was := r.runs()
	again, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || r.runs() != was || strings.Join(again.Pair.Text(nil), "\n") != strings.Join(b.Pair.Text(nil), "\n") {
		t.Errorf("once more, %d runs: %+v, %v", r.runs()-was, again.Pair, err)
	}
}

// TestPairEvil: what the merge itself has changed is to blame.
func TestPairEvil(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	r.others("a", 3)
	r.branch("two")
	r.others("b", 3)
	r.git("merge", "-q", "--no-commit", "--no-ff", "one")
	r.change("merge", "lib", "h")
	b := r.bisect("two")
	p := b.Pair
	if len(p.Commits) > 0 || p.Unclear != "" || !strings.Contains(p.Resolution, "--- a/lib\n+++ b/lib\n@@ -1 +1 @@\n-f\n+h\n") || strings.Contains(p.Resolution, "other/") {
		t.Errorf("found %s", strings.Join(p.Text(nil), "\n"))
	}
}

// TestPairConflict: where git cannot merge by itself, what is left is told, and
// what can be tested narrows it down.
func TestPairConflict(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	r.others("a", 6)
	notes := r.change("notes", "notes", "one")
	rename := r.rename()
	r.branch("two")
	r.change("other notes", "notes", "two")
	r.caller()
	r.git("merge", "-q", "-s", "ours", "--no-commit", "one")
	merge := r.change("merge", "lib", "g", "calls/a", "g", "notes", "both")
	p := r.bisect("two").Pair
	var left []string
	for _, c := range p.Suspects {
		left = append(left, c.Hash)
	}
	if want := []string{notes, rename, merge}; !slices.Equal(left, want) || len(p.Commits) > 0 {
		t.Errorf("left are %q, want %q", left, want)
	}
	if !strings.Contains(p.Unclear, "by itself: conflict in notes") {
		t.Errorf("says %s", strings.Join(p.Text(nil), "\n"))
	}
}

// TestPairOctopus: two of three parents do not go together.
func TestPairOctopus(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("zero")
	r.others("a", 3)
	r.branch("one")
	first := r.rename()
	r.others("b", 2)
	r.branch("two")
	second := r.caller()
	r.git("checkout", "-q", "zero")
	r.git("merge", "-q", "-m", "merge", "one", "two")
	r.wantPair(r.bisect("zero"), first, second)
}

// TestPairNoCheckout: there is no merge to run a command on that gets but a hash.
func TestPairNoCheckout(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	r.rename()
	r.branch("two")
	r.caller()
	r.git("merge", "-q", "-m", "merge", "one")
	o := r.options()
	o.Bad = "two"
	o.Spec.Command = &Command{NoCheckout: true, Dir: r.dir, Shell: "git show $LAB_COMMIT:lib | grep -qx f || ! git show $LAB_COMMIT:calls/b"}
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Pair == nil || !strings.Contains(b.Pair.Unclear, "nothing is checked out") {
		t.Errorf("%+v, %v", b.Pair, err)
	}
}

// TestPairBuild: kernels are built of what is merged, and what is put on top of
// commits is put on top of that.
func TestPairBuild(t *testing.T) {
	r := newMergeRepo(t)
	r.change("make", "Makefile", smallMakefile+`
bzImage: called
called:
	@for f in $$(cat calls/*); do grep -qx $$f lib || { echo "kernel/audit.c:1: error: no $$f" >&2; exit 1; }; done
	@test ! -e wanted || test -e patched`)
	r.branch("one")
	r.change("wants the patch", "wanted", "")
	first := r.rename()
	r.branch("two")
	r.others("b", 3)
	second := r.caller()
	r.git("checkout", "-q", "one")
	r.git("merge", "-q", "-m", "merge", "two")
	r.others("c", 2)
	o := r.smallRepo.options("main", "one")
	patch := filepath.Join(t.TempDir(), "it.patch")
	if err := os.WriteFile(patch, []byte("--- /dev/null\n+++ b/patched\n@@ -0,0 +1 @@\n+it\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.Spec.Kernel.Patches = []string{patch}
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Pair == nil {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	r.wantPair(b, first, second)
	if c := b.Pair.Checks[0]; !strings.Contains(c.Reason, "no f") {
		t.Errorf("checked %+v", c)
	}
}

// TestPairGoesOn: ended before any of its tests, it goes on, and tests nothing
// twice but what it was ended over.
func TestPairGoesOn(t *testing.T) {
	r := newMergeRepo(t)
	r.branch("one")
	r.others("a", 2)
	first := r.rename()
	r.branch("two")
	r.others("b", 2)
	second := r.caller()
	r.git("checkout", "-q", "one")
	r.git("merge", "-q", "-m", "merge", "two")
	whole := r.bisect("one")
	r.wantPair(whole, first, second)
	want := r.runs()
	if err := os.Remove(r.log); err != nil {
		t.Fatal(err)
	}
	o := r.options()
	o.Bad = "one"
	ended := errors.New("ended")
	ends := 0
	for {
		ctx, cancel := context.WithCancelCause(t.Context())
		l := testLab(t)
		runs := 0
		l.Progress.Live = func(s string) {
			if strings.HasPrefix(s, "checking out") {
				if runs++; runs > 1 {
					cancel(ended)
				}
			}
		}
		b, err := l.Bisect(ctx, o)
		if context.Cause(ctx) != nil {
			ends++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		r.wantPair(b, first, second)
		if b.Pair.Tests != whole.Pair.Tests {
			t.Errorf("%d tests, in one go %d", b.Pair.Tests, whole.Pair.Tests)
		}
		break
	}
	if r.runs() != want || ends < want-2 {
		t.Errorf("%d runs and %d ends, in one go %d", r.runs(), ends, want)
	}
}
