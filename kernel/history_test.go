package kernel

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBundle: git fetches the commits between two ends from the file, and nothing
// of the making stays in the repository or in lab's own.
func TestBundle(t *testing.T) {
	r := newRepo(t)
	good := r.git("rev-parse", "HEAD")
	other := filepath.Join(t.TempDir(), "other.git")
	r.git("clone", "-q", "--bare", r.dir, other)
	r.change("one", "src/a.c", "int a1;\n")
	bad := r.change("two", "src/a.c", "int a2;\n")
	tree, err := OpenTree(t.Context(), t.TempDir(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	file := filepath.Join(t.TempDir(), "source.bundle")
	if err := tree.Bundle(t.Context(), []string{good}, bad, file); err != nil {
		t.Fatal(err)
	}
	if refs, _, err := tree.own(t.Context(), ownGit{}, "for-each-ref", "refs/lab"); err != nil || refs != "" {
		t.Errorf("left in lab's repository: %q, %v", refs, err)
	}
	if out, err := exec.Command("git", "-C", other, "fetch", "-q", file, "refs/lab/"+bad+":refs/heads/bad").CombinedOutput(); err != nil {
		t.Fatalf("git fetch: %v\n%s", err, out)
	}
	out, err := exec.Command("git", "-C", other, "log", "--format=%s", good+"..bad").Output()
	if err != nil || string(out) != "two\none\n" {
		t.Errorf("fetched %q, %v", out, err)
	}
	if err := tree.Bundle(t.Context(), []string{bad}, bad, file); err == nil || !strings.Contains(err.Error(), "bundle the commits behind "+bad[:12]) {
		t.Errorf("a bundle of nothing: %v", err)
	}
}
