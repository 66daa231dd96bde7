package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// states gives what became of each pick and patch, in short.
func states(on []Addition) string {
	var s []string
	for _, a := range on {
		s = append(s, a.State)
	}
	return strings.Join(s, ", ")
}

func (r repo) pick(tree *Tree, text string) Pick {
	r.t.Helper()
	p, err := tree.Pick(r.t.Context(), text)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

const longC = "#include \"all.h\"\n\n/*\n * c\n */\nint c(void)\n{\n\tint n = ALL;\n\n\treturn n;\n}\n\nint d;\n"

// brokenRange is a history in which b.c does not compile from broken on, until
// it is repaired.
func brokenRange(t *testing.T) (r repo, commits map[string]string) {
	r = newRepo(t)
	c := map[string]string{"first": r.change("first of these", "src/c.c", longC)}
	c["before"] = r.change("before", "src/a.c", "int a(void) { return 2; }\n")
	c["broken"] = r.change("broken", "src/b.c", "#include \"all.h\"\nint b(void) { return MISSING; }\n")
	c["after"] = r.change("after", "src/a.c", "int a(void) { return 3; }\n")
	c["repaired"] = r.change("repaired\n\nFixes: "+c["broken"][:12]+" (\"broken\")", "src/b.c", "#include \"all.h\"\nint b(void) { return 4; }\n")
	c["last"] = r.change("last", "src/a.c", "int a(void) { return 5; }\n")
	return r, c
}

// TestPickWhereNeeded: a repair is applied in the range in which the breakage
// is, and nowhere else.
func TestPickWhereNeeded(t *testing.T) {
	r, c := brokenRange(t)
	before := snapshot(t, r.dir)
	tree := open(t, t.TempDir(), r.dir)
	plain := fragments("CONFIG_A=y\n")
	for _, name := range []string{"broken", "after"} {
		if b := build(t, tree, c[name], plain); b.failure == nil || b.failure.Step != "compile" {
			t.Fatalf("%s builds without the repair: %+v", name, b.failure)
		}
	}
	o := plain
	o.Picks = []Pick{r.pick(tree, "main~1")}
	if !slices.Equal(o.Picks[0].Since, []string{c["broken"]}) {
		t.Errorf("the repair is of %v", o.Picks[0].Since)
	}
	for name, want := range map[string]string{"first": NotNeeded, "before": NotNeeded, "broken": Applied, "after": Applied, "repaired": There, "last": There} {
		b := build(t, tree, c[name], o)
		if b.failure != nil || b.Commit != c[name] || b.Source != "commit "+c[name] || states(b.OnTop) != want {
			t.Errorf("%s: %+v, %+v, want %s", name, b.failure, b.OnTop, want)
		}
		if again := build(t, tree, c[name], o); !again.cached || states(again.OnTop) != want || again.Commit != c[name] {
			t.Errorf("%s again: cached %v, %+v", name, again.cached, again.OnTop)
		}
		// What changes nothing is the same kernel, from the same entry.
		if b := build(t, tree, c[name], plain); (b.failure == nil) == (want == Applied) || !b.cached && want != Applied || len(b.OnTop) > 0 {
			t.Errorf("%s without: %+v, cached %v, %+v", name, b.failure, b.cached, b.OnTop)
		}
	}
	// git gives an object that it would write and the user has the present time.
	times := regexp.MustCompile(`(/\.git/objects/.*) \d+`)
	if times.ReplaceAllString(snapshot(t, r.dir), "$1") != times.ReplaceAllString(before, "$1") {
		t.Error("the user's repository was written to")
	}
	// The range can be told, and then it holds whatever the message says.
	o.Picks = []Pick{r.pick(tree, c["after"]+"..main~1")}
	top, f, err := tree.OnTop(t.Context(), c["broken"], o)
	if err != nil || f != nil || top.Commit != c["broken"] || states(top.Additions) != NotNeeded {
		t.Errorf("outside of the range that was told: %+v, %v, %v", top, f, err)
	}
	// The same commit on top in another cache.
	one, _, _ := tree.OnTop(t.Context(), c["after"], o)
	two, _, err := open(t, t.TempDir(), r.dir).OnTop(t.Context(), c["after"], o)
	if err != nil || one.Commit != two.Commit || one.Commit == c["after"] {
		t.Errorf("%s and %s, %v", one.Commit, two.Commit, err)
	}
}

// TestRevert: a change is taken back where it is, renamed files and all, and what was
// built upon it in the same lines is in the way.
func TestRevert(t *testing.T) {
	r, c := brokenRange(t)
	r.git("mv", "src/a.c", "src/moved.c")
	r.git("commit", "-q", "-m", "moved")
	c["moved"] = r.git("rev-parse", "HEAD")
	tree := open(t, t.TempDir(), r.dir)
	for _, test := range []struct{ revert, on, want, same string }{
		{"last", "last", Applied, "repaired"},
		{"broken", "after", Applied, ""},
		{"broken", "before", NotNeeded, "before"},
		{"after", "last", "conflict in src/a.c", ""},
		{"last", "moved", Applied, ""},
	} {
		p := Pick{Commit: r.pick(tree, c[test.revert]).Commit, Reverted: true}
		top, f, err := tree.OnTop(t.Context(), c[test.on], BuildOptions{Picks: []Pick{p}})
		if err != nil {
			t.Fatal(err)
		}
		got := states(top.Additions)
		if f != nil {
			_, got, _ = strings.Cut(f.Line, "does not apply: ")
		} else if !strings.HasPrefix(top.Additions[0].String(), "revert of "+c[test.revert][:12]) {
			t.Errorf("it is called %s", top.Additions[0])
		}
		if got != test.want {
			t.Errorf("%s on %s: %s, want %s", test.revert, test.on, got, test.want)
		}
		if test.same == "" {
			continue
		}
		if changes, err := tree.Diff(t.Context(), c[test.same], top.Commit); err != nil || len(changes) > 0 {
			t.Errorf("%s on %s is not %s: %v, %v", test.revert, test.on, test.same, changes, err)
		}
	}
}

// TestPickThere: copies of the commit, of what it repairs, and of its change.
func TestPickThere(t *testing.T) {
	r, c := brokenRange(t)
	pick := func(name, content, message string) string {
		t.Helper()
		r.write(map[string]string{name: content})
		return r.commit(message)
	}
	repaired := "#include \"all.h\"\nint b(void) { return 4; }\n"
	r.git("checkout", "-q", "-b", "stable", c["before"])
	copied := pick("src/b.c", "#include \"all.h\"\nint b(void) { return MISSING + 1; }\n", "broken\n\n[ Upstream commit "+c["broken"]+" ]")
	adapted := pick("src/b.c", "#include \"all.h\"\nint b(void) { return 40; }\n", "repaired\n\ncommit "+c["repaired"]+" upstream.")
	r.git("checkout", "-q", "-b", "silent", c["after"])
	silent := pick("src/b.c", repaired, "repaired otherwise")
	r.git("checkout", "-q", "-b", "small", c["first"])
	r.git("rm", "-q", "src/b.c")
	small := r.commit("no b")
	r.git("checkout", "-q", "-b", "moved", c["after"])
	r.git("mv", "src/b.c", "src/bb.c")
	moved := r.commit("b is bb")
	r.git("checkout", "-q", "-b", "other", c["after"])
	other := r.change("other", "src/b.c", "#include \"all.h\"\nint b(void) { return OTHER; }\n")

	tree := open(t, t.TempDir(), r.dir)
	o := BuildOptions{Picks: []Pick{r.pick(tree, c["repaired"])}}
	everywhere := BuildOptions{Picks: []Pick{{Commit: o.Picks[0].Commit}}}
	for _, x := range []struct {
		name, commit string
		o            BuildOptions
		want, why    string
	}{
		{"a copy of what is repaired, changed", copied, o, "", "conflict in src/b.c"},
		{"a copy of the repair, changed", adapted, o, There, "it has it as " + adapted[:12]},
		{"the same change", silent, o, There, "its change is in it already"},
		{"no such file", small, everywhere, NotNeeded, "none of the files that it changes is in it"},
		{"the file has another name", moved, o, Applied, ""},
		{"a conflict", other, o, "", "pick " + c["repaired"][:12] + ` ("repaired") does not apply: conflict in src/b.c`},
	} {
		top, f, err := tree.OnTop(t.Context(), x.commit, x.o)
		switch {
		case err != nil:
			t.Errorf("%s: %v", x.name, err)
		case x.want == "" && (f == nil || f.Step != "patch" || !strings.Contains(f.Line, x.why)):
			t.Errorf("%s: %+v, %+v", x.name, top, f)
		case x.want != "" && (f != nil || states(top.Additions) != x.want || top.Additions[0].Why != x.why):
			t.Errorf("%s: %+v, %+v", x.name, top, f)
		}
	}
	b := build(t, tree, other, BuildOptions{Fragments: fragments("CONFIG_A=y\n").Fragments, Picks: o.Picks})
	if b.failure == nil || b.failure.Step != "patch" || b.failure.Log != "" || b.cached {
		t.Errorf("built in spite of the conflict: %+v", b.failure)
	}
	if _, f, err := tree.Configure(t.Context(), other, BuildOptions{Fragments: fragments("CONFIG_A=y\n").Fragments, Picks: o.Picks}); err != nil || f == nil || f.Step != "patch" {
		t.Errorf("configured in spite of the conflict: %+v, %v", f, err)
	}
}

func TestPickRefused(t *testing.T) {
	r, _ := brokenRange(t)
	r.git("checkout", "-q", "-b", "side", "main~6")
	r.change("side", "README", "side\n")
	r.git("merge", "-q", "--no-edit", "main")
	tree := open(t, t.TempDir(), r.dir)
	for text, want := range map[string]string{
		"side":               "it is a merge",
		"main~6":             "it has no parent",
		"nosuch":             "no such commit",
		"..main":             "BROKEN..REPAIRED",
		"main..":             "BROKEN..REPAIRED",
		"main~2...main":      "BROKEN..REPAIRED",
		"nosuch..main":       "no such commit",
		"--upload-pack=true": "not a revision",
	} {
		if _, err := tree.Pick(t.Context(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	// What the message says of commits that are elsewhere tells nothing.
	r.git("checkout", "-q", "main")
	r.change("repaired\n\nFixes: 0123456789ab (\"elsewhere\")\nFixes: "+strings.Repeat("0123456789", 4), "README", "else\n")
	if p := r.pick(tree, "main"); len(p.Since) != 0 {
		t.Errorf("since %v", p.Since)
	}
}

// TestPickFetched: a commit on no branch of a clone of lab's is fetched.
func TestPickFetched(t *testing.T) {
	r, c := brokenRange(t)
	r.git("config", "uploadpack.allowFilter", "true")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	r.git("checkout", "-q", "--detach", c["after"])
	hidden := r.change("on no branch\n\nFixes: "+strings.Repeat("0123456789", 4), "src/b.c", "#include \"all.h\"\nint b(void) { return 7; }\n")
	r.git("checkout", "-q", "main")
	cache := t.TempDir()
	dir, err := Clone(t.Context(), cache, "file://"+r.dir, CloneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := open(t, cache, dir)
	o := fragments("CONFIG_A=y\n")
	o.Picks = []Pick{r.pick(tree, c["broken"]+".."+hidden)}
	if b := build(t, tree, c["after"], o); b.failure != nil || states(b.OnTop) != Applied {
		t.Errorf("%+v, %+v", b.failure, b.OnTop)
	}
	if p := r.pick(tree, hidden); len(p.Since) != 0 {
		t.Errorf("since %v", p.Since)
	}
	if _, err := tree.Pick(t.Context(), hidden[:12]+"00"); err == nil || !strings.Contains(err.Error(), "fetched by its full hash") {
		t.Errorf("of the beginning of a hash: %v", err)
	}
	if _, err := tree.Pick(t.Context(), strings.Repeat("0123456789", 4)); err == nil || !strings.Contains(err.Error(), "no such commit") {
		t.Errorf("of a commit that is nowhere: %v", err)
	}
}

const printk = `An explanation.
---
 src/c.c | 1 +
 1 file changed, 1 insertion(+)

diff --git a/src/c.c b/src/c.c
--- a/src/c.c
+++ b/src/c.c
@@ -6,6 +6,7 @@
 int c(void)
 {
 	int n = ALL;
+	n++;
 
 	return n;
 }
-- 
2.39
`

func patch(t *testing.T, text string) Patch {
	t.Helper()
	name := filepath.Join(t.TempDir(), "printk.patch")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := ReadPatch(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPatchEverywhere(t *testing.T) {
	r, c := brokenRange(t)
	cache := t.TempDir()
	tree := open(t, cache, r.dir)
	o := fragments("CONFIG_A=y\n")
	o.Picks = []Pick{r.pick(tree, c["repaired"])}
	o.Patches = []Patch{patch(t, printk)}
	plain := build(t, tree, c["before"], fragments("CONFIG_A=y\n"))
	for _, name := range []string{"before", "after", "last"} {
		b := build(t, tree, c[name], o)
		if b.failure != nil || !strings.HasSuffix(states(b.OnTop), ", "+Applied) || b.Digest == plain.Digest {
			t.Errorf("%s: %+v, %+v", name, b.failure, b.OnTop)
		}
		if name == "after" {
			b.compiled(t, "src/a.o", "src/b.o")
		}
	}
	top, _, err := tree.OnTop(t.Context(), c["last"], o)
	if err != nil {
		t.Fatal(err)
	}
	if a := top.Additions[1]; a.String() != "patch printk.patch" || a.Digest != o.Patches[0].Digest || a.Pick != "" {
		t.Errorf("%+v", a)
	}
	// Lines that moved do not matter, and what is there is there.
	moved := r.change("moved", "src/c.c", "/* a\n * long\n * explanation */\n\n"+longC)
	there := r.change("there", "src/c.c", strings.Replace(longC, "ALL;\n", "ALL;\n\tn++;\n", 1))
	gone := r.change("gone", "src/c.c", "int c(void) { return 9; }\n")
	for commit, want := range map[string]string{moved: Applied, there: There} {
		top, f, err := tree.OnTop(t.Context(), commit, BuildOptions{Patches: o.Patches})
		if err != nil || f != nil || states(top.Additions) != want {
			t.Errorf("%+v, %+v, %v, want %s", top, f, err, want)
		}
	}
	_, f, err := tree.OnTop(t.Context(), gone, BuildOptions{Patches: o.Patches})
	if err != nil || f == nil || f.Step != "patch" || f.Line != "patch printk.patch does not apply: src/c.c:6" {
		t.Errorf("%+v, %v", f, err)
	}
	// What a lab that was killed left is swept away, and what one that works has is not.
	old, busy := filepath.Join(tree.base, "patch-old"), filepath.Join(tree.base, "patch-busy")
	if err := errors.Join(os.Mkdir(old, 0o755), os.Mkdir(busy, 0o755), os.Chtimes(old, time.Unix(0, 0), time.Unix(0, 0))); err != nil {
		t.Fatal(err)
	}
	tree.sweepPatches()
	if err := os.Remove(busy); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(tree.base, "patch-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestReadPatchRefuses(t *testing.T) {
	change := func(name string) string {
		return "--- a/" + name + "\n+++ b/" + name + "\n@@ -1 +1 @@\n-a\n+b\n"
	}
	for text, want := range map[string]string{
		"":                       "not a patch",
		"int main(void) {}\n":    "not a patch",
		printk[:180]:             "not a patch: corrupt patch",
		change("../etc/x"):       `it changes "../etc/x"`,
		change("a/../../x"):      `it changes "a/../../x"`,
		change(".git/config"):    `it changes ".git/config"`,
		change("a/.GIT/hooks/x"): `it changes "a/.GIT/hooks/x"`,
	} {
		name := filepath.Join(t.TempDir(), "a.patch")
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPatch(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", text, err, want)
		}
	}
	if _, err := ReadPatch(t.Context(), "/nonexistent/a.patch"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no file: %v", err)
	}
}

func FuzzCheckNumstat(f *testing.F) {
	f.Add([]byte("1\t1\tsrc/a.c\x00-\t-\ta/b\x00"))
	f.Add([]byte("1\t1\t../x\x00"))
	f.Fuzz(func(t *testing.T, out []byte) {
		if checkNumstat(out) != nil {
			return
		}
		for _, file := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			name := strings.SplitN(file, "\t", 3)[2]
			if strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../") || strings.Contains("/"+strings.ToLower(name)+"/", "/.git/") {
				t.Errorf("%q is taken", name)
			}
		}
	})
}
