package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// linear makes commits after the first, each with its state.
func (r *smallRepo) linear(states ...string) {
	for _, s := range states {
		r.commit(fmt.Sprintf("change %d", len(r.commits)), s)
	}
}

func repeat(state string, n int) []string { return strings.Fields(strings.Repeat(state+" ", n)) }

// TestBisectWithoutGood goes back over releases in growing strides, steps over
// what cannot be tested, and tests nothing twice.
func TestBisectWithoutGood(t *testing.T) {
	r := newSmallRepo(t)
	r.linear(append(repeat("fine", 9), repeat("broken", 10)...)...)
	for i, at := range []int{2, 4, 6, 8, 12, 14, 16, 17} {
		r.git("tag", fmt.Sprintf("v1.%d", i), r.commits[at])
	}
	skip := Command{Shell: "n=$(git describe --tags --exact-match 2>/dev/null); test \"$n\" != v1.6 -a \"$n\" != v1.4 || exit 125; " + broken.Shell}
	o := commandOptions(r, "", skip)
	o.Good = nil
	l := testLab(t)
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[10] {
		t.Fatalf("found %+v, %s, %v", b.Culprit, b.Unclear, err)
	}
	var walked []string
	for _, w := range b.Walked {
		walked = append(walked, fmt.Sprintf("%s %s", w.Commit.Title, w.Mark))
	}
	// v1.7, one on v1.6, to step over; v1.5, and from there two on.
	if got, want := strings.Join(walked, ", "), "change 19 bad, change 17 bad, change 16 skip, change 14 bad, change 8 good"; got != want {
		t.Errorf("walked %s, want %s", got, want)
	}
	if b.Good[0].Hash != r.commits[8] || b.Bad.Hash != r.commits[14] || b.Range != 6 {
		t.Errorf("ends %v and %v, %d between", b.Good, b.Bad, b.Range)
	}
	for _, x := range b.Tested {
		if x.Role == RoleEnd && !strings.HasPrefix(x.Dir, "ends/") && x.Inferred == "" {
			t.Errorf("%s was tested again as an end", x.Commit.Title)
		}
	}
	replayed(t, r, b.Log, r.commits[10])
	tested := len(b.Tested)
	again := o
	again.Spec.Command = &skip
	if b, err = l.Bisect(t.Context(), again); err != nil || b.Culprit == nil || len(b.Tested) != tested {
		t.Errorf("once more: %+v, %v", b, err)
	}

	// Without tags, over first parents.
	for i := range 8 {
		r.git("tag", "-d", fmt.Sprintf("v1.%d", i))
	}
	o = commandOptions(r, "", broken)
	o.Good = nil
	if b, err = l.Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[10] || b.Good[0].Hash != r.commits[3] || b.Bad.Hash != r.commits[11] {
		t.Errorf("by commits: %+v, %+v, %+v, %v", b.Culprit, b.Good, b.Bad, err)
	}
}

func TestBisectWithoutAnyGood(t *testing.T) {
	r := newSmallRepo(t)
	r.linear("broken", "broken", "broken", "fine")
	r.git("tag", "v1", r.commits[1])
	r.git("tag", "v2", r.commits[2])
	o := commandOptions(r, "", broken)
	o.Good, o.Bad = nil, r.commits[3]
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "no good commit was found") || !strings.Contains(b.Unclear, "v2 is bad (exit status 1: state: it broke); v1 is bad") {
		t.Errorf("%q, %v", b.Unclear, err)
	}
	o.Bad, o.Dir = r.commits[4], filepath.Join(t.TempDir(), "state")
	if b, err = testLab(t).Bisect(t.Context(), o); err != nil || !strings.Contains(b.Unclear, "the bad end "+r.commits[4][:12]) {
		t.Errorf("a bad end that is good: %q, %v", b.Unclear, err)
	}
	o.Spec.Command, o.Dir = &Command{Shell: "nosuch"}, filepath.Join(t.TempDir(), "state")
	if _, err = testLab(t).Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "cannot be run") {
		t.Errorf("a command that is not there: %v", err)
	}
}

// TestBisectWithoutGoodGoesOn stops after each test in turn.
func TestBisectWithoutGoodGoesOn(t *testing.T) {
	r := newSmallRepo(t)
	r.linear(append(repeat("fine", 6), repeat("broken", 8)...)...)
	for i := range 12 {
		r.git("tag", fmt.Sprintf("v%d", i), r.commits[i])
	}
	o := commandOptions(r, "", broken)
	o.Good = nil
	l := testLab(t)
	for stops := 0; ; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		l.Progress.Line = func(s string) {
			if strings.HasPrefix(s, "  good: ") || strings.HasPrefix(s, "  bad: ") {
				cancel()
			}
		}
		b, err := l.Bisect(ctx, o)
		cancel()
		if err != nil && stops < 20 {
			continue
		}
		if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[7] || stops < 5 {
			t.Fatalf("after %d stops: %+v, %v", stops, b.Culprit, err)
		}
		return
	}
}

// forked has a branch of its own for the good end.
func forked(t *testing.T, base string, side, main []string) (r *smallRepo, sideTip string) {
	r = newSmallRepo(t)
	r.linear(base)
	r.git("checkout", "-q", "-b", "side")
	for i, s := range side {
		sideTip = r.commit(fmt.Sprintf("side %d", i), s)
	}
	r.commits = r.commits[:2]
	r.git("checkout", "-q", "main")
	r.linear(main...)
	return r, sideTip
}

func TestBisectOnDifferentBranches(t *testing.T) {
	r, side := forked(t, "fine", []string{"fine", "fine"}, []string{"fine", "fine", "broken", "broken"})
	b, err := testLab(t).Bisect(t.Context(), commandOptions(r, side, broken))
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[4] || len(b.Bases) != 1 || b.Bases[0].Hash != r.commits[1] || len(b.Good) != 2 {
		t.Fatalf("%+v, %q, bases %+v, %v", b.Culprit, b.Unclear, b.Bases, err)
	}
	replayed(t, r, b.Log, r.commits[4])

	// Broken before the two parted, and repaired on the one.
	r, side = forked(t, "broken", []string{"fine"}, []string{"broken", "broken"})
	b, err = testLab(t).Bisect(t.Context(), commandOptions(r, side, broken))
	want := fmt.Sprintf("lab bisect --fix --bad %.12s --good %.12s", r.commits[1], side)
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "it was broken before") || !strings.Contains(b.Unclear, want) {
		t.Errorf("%q, %v", b.Unclear, err)
	}

	r.git("checkout", "-q", "--orphan", "other")
	r.commit("other", "fine")
	if _, err = testLab(t).Bisect(t.Context(), commandOptions(r, "other", broken)); err == nil || !strings.Contains(err.Error(), "no history in common") {
		t.Errorf("nothing in common: %v", err)
	}
}

func TestBisectSeveralBad(t *testing.T) {
	r, side := forked(t, "broken", []string{"broken"}, []string{"broken", "broken"})
	o := commandOptions(r, r.commits[0], broken)
	o.AlsoBad = []string{side}
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[1] || b.Range != 1 || len(b.AlsoBad) != 2 {
		t.Errorf("%+v of %d, %q, %v", b.Culprit, b.Range, b.Unclear, err)
	}
	r, side = forked(t, "fine", []string{"broken"}, []string{"broken"})
	o = commandOptions(r, r.commits[0], broken)
	o.AlsoBad = []string{side}
	if b, err = testLab(t).Bisect(t.Context(), o); err != nil || !strings.Contains(b.Unclear, "do not have one cause there") {
		t.Errorf("two causes: %q, %v", b.Unclear, err)
	}
}

// TestBisectFirstParent: the answer may be a merge, whose other parent nobody has
// looked at.
func TestBisectFirstParent(t *testing.T) {
	r, _ := forked(t, "fine", []string{"fine", "broken", "broken"}, repeat("fine", 3))
	r.git("merge", "-q", "--no-commit", "-s", "ours", "side")
	merge := r.commit("merge", "broken")
	r.linear("broken")
	o := commandOptions(r, r.commits[0], broken)
	o.FirstParent = true
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != merge || b.Range != 6 || len(b.Merged) != 1 || b.Merged[0] != r.git("rev-parse", "side") {
		t.Fatalf("%+v of %d, merged %v, %q, %v", b.Culprit, b.Range, b.Merged, b.Unclear, err)
	}
	for _, x := range b.Tested {
		if strings.HasPrefix(x.Commit.Title, "side") {
			t.Errorf("%s was tested", x.Commit.Title)
		}
	}
}

// TestBisectPaths looks at the commits that touch a path, and is not led astray
// by them where it was another one.
func TestBisectPaths(t *testing.T) {
	r := newSmallRepo(t)
	for i := 1; i < 24; i++ {
		if i%6 == 0 {
			r.write("doc", fmt.Sprint(i))
		}
		state := "fine"
		if i >= 12 {
			state = "broken"
		}
		r.commit(fmt.Sprintf("change %d", i), state)
	}
	count := func(paths ...string) int {
		o := commandOptions(r, r.commits[0], broken)
		o.Paths = paths
		b, err := testLab(t).Bisect(t.Context(), o)
		if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[12] || b.Range != 23 {
			t.Fatalf("%v: %+v of %d, %q, %v", paths, b.Culprit, b.Range, b.Unclear, err)
		}
		return len(b.Tested)
	}
	all, doc := count(), count("doc")
	if doc >= all {
		t.Errorf("%d tests, with --path %d", all, doc)
	}
	o := commandOptions(r, r.commits[0], Command{Shell: `test "$(git rev-list --count HEAD)" -lt 15`})
	o.Paths = []string{"doc"}
	if b, err := testLab(t).Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[14] {
		t.Errorf("a commit that touches none of them: %+v, %q, %v", b.Culprit, b.Unclear, err)
	}
	o.Paths = []string{"nosuch"}
	if _, err := testLab(t).Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no commit between the ends touches nosuch") {
		t.Errorf("a path that is not there: %v", err)
	}
}

// TestBisectKernelsByEnds: what is found of ends, paths and repairs holds for
// kernels too, with their footprints and toolchain.
func TestBisectKernelsByEnds(t *testing.T) {
	r := newSmallRepo(t)
	r.linear(slices.Concat(repeat("fine", 6), repeat("broken", 6), repeat("fine", 3))...)
	for i := range 12 {
		r.git("tag", fmt.Sprintf("v6.%d", i), r.commits[i])
	}
	l := testLab(t)
	o := r.options("", r.commits[12])
	o.Good = nil
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[7] || len(b.Walked) == 0 {
		t.Fatalf("without good: %+v, %q, %v", b.Culprit, b.Unclear, err)
	}
	for _, x := range b.Tested {
		if x.Role == RoleEnd && !strings.HasPrefix(x.Dir, "ends/") {
			t.Errorf("%s was tested again as an end: %s", x.Commit.Title, x.Dir)
		}
	}
	replayed(t, r, b.Log, r.commits[7])

	o = r.options(r.commits[8], "main")
	o.Terms.Fix, o.FirstParent, o.Paths = true, true, []string{"state"}
	b, err = l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[13] || b.Terms.Word(Bad) != "fixed" {
		t.Errorf("a repair: %+v, %q, %v", b.Culprit, b.Unclear, err)
	}
}
