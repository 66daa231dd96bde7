package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// history makes
//
//	first - a - b - merge - last (main)
//	      \ - s1 - s2 - /
func history(t *testing.T) (r repo, hash map[string]string) {
	r = newRepo(t)
	hash = map[string]string{"first": r.git("rev-parse", "HEAD")}
	hash["a"] = r.change("a", "README", "a\n")
	r.git("checkout", "-q", "-b", "side", hash["first"])
	hash["s1"] = r.change("side 1", "src/a.c", "int a(void) { return 1; }\n")
	hash["s2"] = r.change("side: a \"title\" with \t tab, ü and \x1b[31m", "src/a.c", "int a(void) { return 2; }\n")
	r.git("checkout", "-q", "main")
	hash["b"] = r.change("b", "README", "b\n")
	r.git("merge", "-q", "--no-ff", "-m", "merge", "side")
	hash["merge"] = r.git("rev-parse", "HEAD")
	hash["last"] = r.change("last", "README", "last\n")
	r.git("tag", "-a", "-m", "a tag", "v1.0", hash["merge"])
	return r, hash
}

func titles(commits []Commit) []string {
	var list []string
	for _, c := range commits {
		list = append(list, c.Title)
	}
	return list
}

func TestRange(t *testing.T) {
	r, hash := history(t)
	tree := open(t, t.TempDir(), r.dir)
	for _, test := range []struct {
		good []string
		bad  string
		want []string // hashes by name
	}{
		{[]string{"first"}, "last", []string{"a", "b", "s1", "s2", "merge", "last"}},
		{[]string{"a"}, "last", []string{"b", "s1", "s2", "merge", "last"}},
		{[]string{"b", "s1"}, "v1.0", []string{"s2", "merge"}},
		{[]string{"last"}, "first", nil},
		{[]string{"a"}, "a", nil},
		{nil, "a", []string{"first", "a"}},
	} {
		var good []string
		for _, name := range test.good {
			good = append(good, hash[name])
		}
		bad := test.bad
		if hash[bad] != "" {
			bad = hash[bad]
		}
		got, err := tree.Range(t.Context(), good, bad)
		if err != nil {
			t.Fatal(err)
		}
		var hashes, want []string
		seen := map[string]bool{}
		for _, c := range got {
			hashes = append(hashes, c.Hash)
			for _, other := range got {
				if slices.Contains(c.Parents, other.Hash) && !seen[other.Hash] {
					t.Errorf("range %v..%s: %s comes before its parent", test.good, test.bad, c.Title)
				}
			}
			seen[c.Hash] = true
		}
		for _, name := range test.want {
			want = append(want, hash[name])
		}
		slices.Sort(hashes)
		slices.Sort(want)
		if diff := cmp.Diff(want, hashes); diff != "" {
			t.Errorf("range %v..%s (-want +got):\n%s%q", test.good, test.bad, diff, titles(got))
		}
	}
	// A new commit is known at once, with no fetch to ask for.
	next := r.change("next", "README", "next\n")
	got, err := tree.Range(t.Context(), []string{hash["last"]}, "HEAD")
	if err != nil || len(got) != 1 || got[0].Hash != next {
		t.Errorf("a new commit: %v %v", got, err)
	}
}

func TestResolve(t *testing.T) {
	r, hash := history(t)
	tree := open(t, t.TempDir(), filepath.Join(r.dir, "src")) // any directory in it will do
	for rev, want := range map[string]string{
		"v1.0": hash["merge"], "main": hash["last"], "HEAD~1": hash["merge"], "side": hash["s2"],
		hash["a"]: hash["a"], hash["a"][:10]: hash["a"], "v1.0^2": hash["s2"], ":/side 1": hash["s1"],
	} {
		c, err := tree.Resolve(t.Context(), rev)
		if err != nil || c.Hash != want {
			t.Errorf("Resolve(%s) = %s, %v, want %s", rev, c.Hash, err, want)
		}
	}
	c, err := tree.Resolve(t.Context(), "side")
	if err != nil {
		t.Fatal(err)
	}
	if c.Title != `side: a "title" with ? tab, ü and ?[31m` || c.Author != "A U Thor <author@example.org>" ||
		!slices.Equal(c.Parents, []string{hash["s1"]}) || time.Since(c.Date) > time.Hour || time.Until(c.Date) > time.Hour {
		t.Errorf("commit: %+v", c)
	}
	for _, rev := range []string{"v9.9", "", "-q", "--all", "a\nb", "main..side", "v1.0:README", strings.Repeat("0", 40)} {
		if c, err := tree.Resolve(t.Context(), rev); err == nil {
			t.Errorf("Resolve(%q) = %+v, want an error", rev, c)
		} else if rev == "v9.9" && !strings.Contains(err.Error(), "resolve v9.9: no such commit in "+r.dir) {
			t.Errorf("Resolve(v9.9): %v", err)
		}
	}
}

func TestIsAncestor(t *testing.T) {
	r, hash := history(t)
	tree := open(t, t.TempDir(), r.dir)
	for _, test := range []struct {
		a, b string
		want bool
	}{{"first", "last", true}, {"s1", "last", true}, {"last", "first", false}, {"a", "s2", false}, {"b", "b", true}} {
		got, err := tree.IsAncestor(t.Context(), hash[test.a], hash[test.b])
		if err != nil || got != test.want {
			t.Errorf("IsAncestor(%s, %s) = %v, %v", test.a, test.b, got, err)
		}
	}
	if _, err := tree.IsAncestor(t.Context(), "nosuch", "main"); err == nil {
		t.Error("IsAncestor of an unknown commit is no error")
	}
}

func TestShow(t *testing.T) {
	r, hash := history(t)
	tree := open(t, t.TempDir(), r.dir)
	patch, err := tree.Show(t.Context(), "side")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"From " + hash["s2"], "Subject: [PATCH]", "src/a.c | 2 +-", "\n+int a(void) { return 2; }\n"} {
		if !bytes.Contains(patch, []byte(want)) {
			t.Errorf("the patch does not have %q:\n%s", want, patch)
		}
	}
	// It applies.
	file := filepath.Join(t.TempDir(), "culprit.patch")
	if err := os.WriteFile(file, patch, 0o644); err != nil {
		t.Fatal(err)
	}
	r.git("checkout", "-q", "--detach", hash["s1"])
	r.git("am", "-q", file)
	if got, want := r.git("rev-parse", "HEAD^{tree}"), r.git("rev-parse", hash["s2"]+"^{tree}"); got != want {
		t.Errorf("the patch makes tree %s, want %s", got, want)
	}
	huge := r.change("huge", "huge", strings.Repeat("0123456789abcdef\n", maxPatch/16))
	patch, err = tree.Show(t.Context(), huge)
	if err != nil || !bytes.Contains(patch, []byte("1 file changed")) || bytes.Contains(patch, []byte("+0123456789")) {
		t.Errorf("of a huge patch %d bytes are left, %v", len(patch), err)
	}
}

// Every shape of repository that a user may have.
func TestOpenTree(t *testing.T) {
	r, hash := history(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	r.git("clone", "-q", "--bare", ".", path("bare"))
	r.git("worktree", "add", "-q", "--detach", path("linked"), hash["s2"])
	r.git("clone", "-q", "--shared", ".", path("a \"shared\" clone"))
	for name, want := range map[string]string{"bare": hash["last"], "linked": hash["s2"], "a \"shared\" clone": hash["last"]} {
		before := snapshot(t, path(name))
		tree := open(t, t.TempDir(), path(name))
		b := build(t, tree, "HEAD", fragments("CONFIG_A=y\n"))
		if b.failure != nil || b.Commit != want {
			t.Errorf("%s: built %s, want %s, failure %+v", name, b.Commit, want, b.failure)
		}
		if diff := cmp.Diff(before, snapshot(t, path(name))); diff != "" {
			t.Errorf("%s changed:\n%s", name, diff)
		}
	}
	// A linked worktree builds where its main one builds.
	cache := t.TempDir()
	if a, b := open(t, cache, r.dir), open(t, cache, path("linked")); a.base != b.base {
		t.Errorf("two places for one repository: %s and %s", a.base, b.base)
	}

	run(t, dir, "git", "init", "-q", "--object-format=sha256", path("sha256"))
	other := repo{t, path("sha256")}
	other.write(map[string]string{"README": "x\n"})
	long := other.commit("of a longer hash")
	if c, err := open(t, cache, other.dir).Resolve(t.Context(), "HEAD"); err != nil || c.Hash != long || len(long) != 64 {
		t.Errorf("SHA-256 repository: %+v, %v", c, err)
	}

	if err := os.Mkdir(path("empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "git", "init", "-q", path("unborn"))
	if _, err := open(t, cache, path("unborn")).Resolve(t.Context(), "HEAD"); err == nil || !strings.Contains(err.Error(), "no such commit") {
		t.Errorf("a repository without commits: %v", err)
	}
	for name, want := range map[string]string{
		path("empty"): "not a git repository", path("nosuch"): "no such file", filepath.Join(r.dir, "README"): "not a directory",
	} {
		if _, err := OpenTree(t.Context(), cache, name); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("OpenTree(%s): error %v, want %q", name, err, want)
		}
	}
}

func TestShallowClone(t *testing.T) {
	r, hash := history(t)
	dir := filepath.Join(t.TempDir(), "shallow")
	r.git("clone", "-q", "--depth=2", "file://"+r.dir, dir)
	tree := open(t, t.TempDir(), dir)
	if b := build(t, tree, "HEAD", fragments("CONFIG_A=y\n")); b.failure != nil {
		t.Errorf("a commit that is there does not build: %+v", b.failure)
	}
	if got, err := tree.Range(t.Context(), []string{"HEAD~1"}, "HEAD"); err != nil || len(got) != 1 {
		t.Errorf("a range that is there: %v, %v", got, err)
	}
	if _, err := tree.Resolve(t.Context(), hash["first"]); err == nil || !strings.Contains(err.Error(), "git fetch --unshallow") {
		t.Errorf("a commit that is not there: %v", err)
	}
	if _, err := tree.Range(t.Context(), nil, "HEAD"); err == nil || !strings.Contains(err.Error(), "git fetch --unshallow") {
		t.Errorf("a range that is cut off: %v", err)
	}
	run(t, dir, "git", "-c", "protocol.file.allow=always", "fetch", "-q", "--unshallow")
	if got, err := tree.Range(t.Context(), []string{hash["first"]}, "HEAD"); err != nil || len(got) != 6 {
		t.Errorf("after git fetch --unshallow: %q, %v", titles(got), err)
	}
}

func FuzzParseCommits(f *testing.F) {
	hash := strings.Repeat("a", 40)
	f.Add([]byte(hash + "\x00" + hash + " " + hash + "\x00A <a@b>\x001700000000\x00title\x00"))
	f.Add([]byte(hash + "\x00\x00A <a@b>\x00-1\x00\x00" + hash + "\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		commits, err := parseCommits(bytes.NewReader(data))
		if err != nil {
			return
		}
		if want := bytes.Count(data, []byte{0}) / 5; len(commits) != want {
			t.Errorf("%d commits of %d", len(commits), want)
		}
		for _, c := range commits {
			if !isHash(c.Hash) || strings.ContainsAny(c.Title+c.Author, "\n\x1b\x00") {
				t.Errorf("commit: %q", c)
			}
		}
	})
}
