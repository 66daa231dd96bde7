package kernel

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Each set of a commit's hunks makes the tree that has these and no others, and all
// of them make the commit.
func TestHunks(t *testing.T) {
	r := newRepo(t)
	lines := func(change ...int) string {
		var b strings.Builder
		for i := range 60 {
			switch {
			case i == 40 && slices.Contains(change, i):
				b.WriteString("one\ntwo\nthree\n")
			case i == 5 && slices.Contains(change, i):
			default:
				fmt.Fprintf(&b, "line %d %v\n", i%7, slices.Contains(change, i))
			}
		}
		return b.String()
	}
	r.write(map[string]string{"a b.txt": lines(), "gone.c": "gone\n", "blob": "\x00\x01", "one": "x"})
	first := r.commit("before")
	r.git("rm", "-q", "gone.c")
	r.write(map[string]string{"a b.txt": lines(5, 20, 40), "new.c": "diff --git a/x b/x\n@@ -1 +1 @@\n", "blob": "\x00\x02", "one": "y"})
	second := r.commit("after")
	tree := open(t, t.TempDir(), r.dir)
	hunks, err := tree.Hunks(t.Context(), first, second)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range hunks {
		names = append(names, h.String())
	}
	if want := []string{"a b.txt:3", "a b.txt:17", "a b.txt:37", "blob", "gone.c", "new.c", "one:1"}; !slices.Equal(names, want) {
		t.Fatalf("%q, want %q", names, want)
	}
	for _, set := range [][]int{{0}, {1}, {2}, {0, 2}, {1, 2, 3}, {4, 5}, {6}, {0, 1, 2, 3, 4, 5, 6}} {
		has := func(i int) bool { return slices.Contains(set, i) }
		patch := JoinHunks(hunks, has)
		top, f, err := tree.OnTop(t.Context(), first, BuildOptions{Patches: []Patch{{Name: "set", Digest: fmt.Sprint(set), Data: patch}}})
		if err != nil || f != nil {
			t.Fatalf("%v: %+v, %v\n%s", set, f, err, patch)
		}
		var change []int
		for i, n := range []int{5, 20, 40} {
			if has(i) {
				change = append(change, n)
			}
		}
		if got := r.gitOf(tree, top.Commit, "a b.txt"); got != lines(change...) {
			t.Errorf("%v: the file is\n%s", set, got)
		}
		if len(set) == len(hunks) {
			a, _ := tree.TreeHash(t.Context(), top.Commit)
			if b, _ := tree.TreeHash(t.Context(), second); a != b {
				t.Error("all hunks are not the commit")
			}
		}
	}
}

// gitOf is a file in a commit of lab's own repository.
func (r repo) gitOf(tree *Tree, commit, file string) string {
	r.t.Helper()
	var b bytes.Buffer
	if err := tree.git(r.t.Context(), &b, nil, "show", commit+":"+file); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

func FuzzHunks(f *testing.F) {
	f.Add([]byte("diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1 @@ f\n-a\n b\n@@ -9,0 +8,2 @@\n+c\n+d\n"))
	f.Add([]byte("diff --git a/x b/x\nnew file mode 100644\n@@ -0,0 +1 @@\n+x\n"))
	f.Fuzz(func(t *testing.T, diff []byte) {
		hunks, err := parseHunks(diff)
		if err != nil {
			return
		}
		all := func(int) bool { return true }
		once := JoinHunks(hunks, all)
		again, err := parseHunks(once)
		if err != nil || len(again) > len(hunks) {
			t.Fatalf("%d hunks, then %d: %v", len(hunks), len(again), err)
		}
	})
}
