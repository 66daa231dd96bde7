package kernel

import (
	"strings"
	"testing"
)

// mergeSides is a history of two sides: what one of them changes in b.c the other
// one has changed too, in the commit before its last.
func mergeSides(t *testing.T) (r repo, c map[string]string) {
	r = newRepo(t)
	c = map[string]string{"base": r.git("rev-parse", "main")}
	r.git("checkout", "-q", "-b", "one")
	c["one"] = r.change("one", "src/a.c", "int a(void) { return 11; }\n")
	c["one b"] = r.change("one b", "src/b.c", "int b(void) { return 11; }\n")
	r.git("checkout", "-q", "-b", "two", "main")
	c["two"] = r.change("two", "src/c.c", "int c(void) { return 22; }\n")
	c["two b"] = r.change("two b", "src/b.c", "int b(void) { return 22; }\n")
	r.git("checkout", "-q", "--orphan", "alone")
	r.git("rm", "-rqf", ".")
	c["alone"] = r.change("alone", "README", "alone\n")
	return r, c
}

func TestOnTopMerge(t *testing.T) {
	r, c := mergeSides(t)
	tree := open(t, t.TempDir(), r.dir)
	on := func(commit, with string, picks ...Pick) (Top, *Failure) {
		t.Helper()
		top, f, err := tree.OnTop(t.Context(), c[commit], BuildOptions{Merge: c[with], Picks: picks})
		if err != nil {
			t.Fatal(err)
		}
		return top, f
	}
	top, f := on("one b", "two")
	if f != nil {
		t.Fatal(f)
	}
	var files []string
	for _, of := range []string{"base", "one b", "two"} {
		changes, err := tree.Diff(t.Context(), c[of], top.Commit)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range changes {
			files = append(files, of+" "+change.Path)
		}
	}
	if want := "base src/a.c, base src/b.c, base src/c.c, one b src/c.c, two src/a.c, two src/b.c"; strings.Join(files, ", ") != want {
		t.Errorf("changed are %q", files)
	}
	if again, _ := on("one b", "two"); again.Commit != top.Commit {
		t.Errorf("once it is %s, then %s", top.Commit, again.Commit)
	}
	// One that has the other in it is what they make together.
	for _, of := range [][2]string{{"base", "two"}, {"two", "base"}, {"two", "two"}} {
		if top, f := on(of[0], of[1]); f != nil || top.Commit != c["two"] {
			t.Errorf("%s with %s: %+v, %+v", of[0], of[1], top, f)
		}
	}
	for with, want := range map[string]string{"two b": "by itself: conflict in src/b.c", "alone": "by itself: they have no history in common"} {
		if _, f := on("one b", with); f == nil || f.Step != StepPatch || !strings.HasSuffix(f.Line, want) {
			t.Errorf("one b with %s: %+v", with, f)
		}
	}
	// A pick that the other side has is there.
	top, f = on("one", "two b", r.pick(tree, c["two b"]), r.pick(tree, c["one"]))
	if f != nil || states(top.Additions) != "there, there" {
		t.Errorf("with picks: %+v, %+v", top, f)
	}
}

func TestMergeDiff(t *testing.T) {
	r, c := mergeSides(t)
	r.git("checkout", "-q", "one")
	r.git("merge", "-q", "--no-commit", "--no-ff", c["two"])
	merge := r.change("merge", "README", strings.Repeat("evil\n", 40))
	tree := open(t, t.TempDir(), r.dir)
	for limit, want := range map[int]string{1 << 10: "+evil\n", 200: "\n[lab: the rest is left out here]\n"} {
		diff, err := tree.MergeDiff(t.Context(), c["one b"], c["two"], merge, limit)
		if err != nil || !strings.HasPrefix(string(diff), "diff --git a/README b/README\n") || !strings.HasSuffix(string(diff), want) || strings.Contains(string(diff), "src/") {
			t.Errorf("of %d bytes: %q, %v", limit, diff, err)
		}
	}
	if _, err := tree.MergeDiff(t.Context(), c["one b"], c["two b"], merge, 1<<10); err == nil || !strings.Contains(err.Error(), "conflict in src/b.c") {
		t.Errorf("of a conflict: %v", err)
	}
}
