package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel"
	"lab/lab/bundle"
)

// TestBisectPicks: a range that an older breakage hides is bisected with its
// repair on top, and each verdict says whether it was.
func TestBisectPicks(t *testing.T) {
	r := newVainRepo(t)
	good := r.change("fine", "kernel/audit.c")
	older := r.change("broken otherwise", "include/audit.h", "hidden/hidden.c")
	for i := range 3 {
		r.vainly(i)
	}
	culprit := r.change("broken", "kernel/audit.c")
	r.vainly(3)
	r.write("hidden/hidden.c", "fine again\n")
	repair := r.change("repaired\n\nFixes: " + older[:12] + " (\"broken otherwise\")")
	r.vainly(4)
	l := testLab(t)
	o := r.options(good, "main")
	if b, err := l.Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != older {
		t.Fatalf("without the repair: %+v, %v", b.Culprit, err)
	}
	o.Spec.Kernel.Picks = []string{repair}
	if _, err := l.Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is another one") {
		t.Errorf("with a pick it is the same bisect: %v", err)
	}
	o.Dir = filepath.Join(t.TempDir(), "state")
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("with the repair: %+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	want := map[string]string{good: kernel.NotNeeded, culprit: kernel.Applied, r.commits[len(r.commits)-1]: kernel.There}
	for _, x := range b.Tested {
		if len(x.OnTop) != 1 || x.OnTop[0].Pick != repair || x.OnTop[0].Name != "repaired" {
			t.Errorf("%s: %+v", x.Commit.Title, x.OnTop)
		} else if w := want[x.Commit.Hash]; w != "" && x.OnTop[0].State != w {
			t.Errorf("%s: %s, want %s", x.Commit.Title, x.OnTop[0].State, w)
		}
	}
	journal, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
	if err != nil || !strings.Contains(string(journal), `"on_top":["pick `+repair+" "+older+`"]`) {
		t.Errorf("the journal does not tell of the pick: %v\n%.300s", err, journal)
	}
}

// TestBisectInfersByWhatIsBuilt: commits between which nothing is compiled make
// different kernels where a pick is put on top of one of them only, and commits
// that differ make the same where the pick makes up for it.
func TestBisectInfersByWhatIsBuilt(t *testing.T) {
	r := newVainRepo(t)
	first := r.commits[0]
	var since string
	for i := range 8 {
		r.vainly(i)
		if i == 3 {
			since = r.commits[len(r.commits)-1]
		}
	}
	r.git("checkout", "-q", "-b", "side", first)
	r.write("kernel/audit.c", "broken by the pick\n")
	pick := r.change("side")
	l := testLab(t)
	o := r.options(first, "main")
	o.Spec.Kernel.Picks = []string{since + ".." + pick}
	o.Audit = 5
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != since || b.Unclear != "" {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}

	// A fine kernel, then the pick's change by another name, then another file.
	r.git("checkout", "-q", "-B", "other", first)
	r.change("fine", "kernel/audit.c")
	picked := r.commits[len(r.commits)-1]
	r.git("checkout", "-q", "-B", "line", first)
	r.vainly(0)
	r.write("kernel/audit.c", "fine\n")
	r.change("the same by itself")
	r.vainly(2)
	last := r.change("broken", "include/audit.h", "hidden/hidden.c")
	o = r.options(first, "line")
	o.Spec.Kernel.Picks = []string{picked}
	o.Audit = 5
	if b, err = l.Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != last || b.Unclear != "" {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	inferred := 0
	for _, x := range b.Tested {
		if x.Unbuilt {
			inferred++
		}
	}
	if inferred == 0 {
		t.Error("nothing was inferred of commits that the pick makes the same")
	}
}

// TestBisectSkipsWhatDoesNotApply: a commit that a patch does not fit says
// nothing, even where a build that fails is what is hunted.
func TestBisectSkipsWhatDoesNotApply(t *testing.T) {
	r := newVainRepo(t)
	first := r.commits[0]
	r.change("odd", "drivers/usb.h")
	odd := r.change("odd too", "include/audit.h")
	r.write("include/audit.h", "first\n")
	r.change("even")
	last := r.change("broken", "kernel/audit.c")
	file := filepath.Join(t.TempDir(), "printk.patch")
	text := "--- a/include/audit.h\n+++ b/include/audit.h\n@@ -1 +1,2 @@\n first\n+printk\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l := testLab(t)
	o := r.options(first, "main")
	o.Spec.Kernel.Patches = []string{file}
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != last {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	o = r.options(first, odd)
	o.Spec.Kernel.Patches = []string{file}
	b, err = l.Bisect(t.Context(), o)
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "is not bad but skip: patch printk.patch does not apply: include/audit.h:1") {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	// What is no patch is refused before there is anything of a bisect.
	o = r.options(first, "main")
	o.Spec.Kernel.Patches = []string{filepath.Join(r.dir, "Makefile")}
	if _, err := l.Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not a patch") {
		t.Errorf("of a makefile: %v", err)
	}
	if _, err := os.Stat(o.Dir); !os.IsNotExist(err) {
		t.Errorf("it began all the same: %v", err)
	}
}

// TestPackPatches: a bundle has what was given, what was picked, and what they
// changed, which applies to the commit as it is.
func TestPackPatches(t *testing.T) {
	r := newVainRepo(t)
	r.write("include/audit.h", "first\nhalf\n\n\n\n\n\nend\n")
	broken := r.change("broken")
	r.write("include/audit.h", "else\nfirst\nhalf\n\n\n\n\n\nend\n")
	r.change("moved")
	r.write("include/audit.h", "else\nfirst\nhalf\n\n\n\n\n\nrepaired\n")
	pick := r.change("repaired")
	file := filepath.Join(t.TempDir(), "my printk's.patch")
	if err := os.WriteFile(file, []byte("--- a/kernel/audit.c\n+++ b/kernel/audit.c\n@@ -1 +1,2 @@\n first\n+printk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := r.options(r.commits[0], "main")
	o.Spec.Kernel.Picks, o.Spec.Kernel.Patches = []string{broken + ".." + pick}, []string{file}
	p := &pack{Lab: testLab(t)}
	p.from = &bisection{Lab: p.Lab, spec: o.Spec}
	if err := p.from.openAxis(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer p.from.tree.Close()
	if err := p.patches(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m := p.manifest.Patches; len(m) != 2 || m[0].Commit != pick || m[0].Name != "repaired" || m[0].Member != "inputs/patches/01-pick-"+pick[:12]+".patch" ||
		m[1].Commit != "" || m[1].Name != "my printk's.patch" || m[1].Member != "inputs/patches/02-my_printk_s.patch" || m[1].Digest != p.from.options.Patches[0].Digest {
		t.Errorf("%+v", m)
	}
	for commit, want := range map[string]string{r.commits[0]: "02-my_printk_s.patch", broken: "01-pick-" + pick[:12] + ".patch 02-my_printk_s.patch"} {
		top, f, err := p.from.tree.OnTop(t.Context(), commit, p.from.options)
		if err != nil || f != nil {
			t.Fatal(f, err)
		}
		k := bundle.Kernel{Commit: commit}
		if err := p.onTop(t.Context(), &k, "kernels/bad", top.Additions); err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(strings.Join(k.Applied, " "), "inputs/patches/", ""); got != want || k.OnTop != "kernels/bad/on-top.patch" {
			t.Errorf("%s: applied %s in %s, want %s", commit[:12], got, k.OnTop, want)
		}
		diff := filepath.Join(t.TempDir(), "on-top.patch")
		if err := os.WriteFile(diff, p.files[len(p.files)-1].Data, 0o644); err != nil {
			t.Fatal(err)
		}
		r.git("checkout", "-q", commit)
		r.git("apply", "--check", diff)
	}
}

// TestKnownBreakages: what is known of a failure is said once for each kind, and
// is on record with every verdict.
func TestKnownBreakages(t *testing.T) {
	r := newVainRepo(t)
	makefile := strings.Replace(vainMakefile, "kernel/audit.c:1: error: broken", "kernel/bounds.c:1:0: error: code model kernel does not support PIC mode", 1)
	r.write("Makefile", makefile)
	r.change("broken", "kernel/audit.c")
	r.change("broken as well", "kernel/audit.c")
	var said strings.Builder
	l := testLab(t)
	l.Progress.Line = func(s string) { said.WriteString(s + "\n") }
	b, err := l.Bisect(t.Context(), r.options(r.commits[0], "main"))
	if err != nil || b.Culprit == nil {
		t.Fatalf("%+v, %v", b, err)
	}
	if n := strings.Count(said.String(), "known, seen first at "); n != 1 || !strings.Contains(said.String(), "repaired in Linux 4.9 by 8ae94224c9d7") {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
	for _, x := range b.Tested {
		if (x.Known == "pie") != (x.Mark == Bad) {
			t.Errorf("%s: known %q", x.Commit.Title, x.Known)
		}
	}
	skips := []Tested{{Known: "pie", Verdict: Verdict{Mark: Skip}}, {Known: "pie", Verdict: Verdict{Mark: Skip}}, {Known: "newer", Verdict: Verdict{Mark: Skip}}, {Known: "pie", Verdict: Verdict{Mark: Bad}}}
	if got := knownSkips(skips); len(got) != 2 || !strings.HasPrefix(got[0], "2 commits: the compiler makes position-independent programs") || got[1] != "1 commit: newer" {
		t.Errorf("%q", got)
	}
}

// TestKnownCrash: a console that tells of a known breakage has it said, of kernels
// that lab has built.
func TestKnownCrash(t *testing.T) {
	console := []byte("Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: start_secondary+0x1/0x2\n")
	for _, x := range []struct {
		trial Trial
		want  int
	}{
		{Trial{End: EndBoot, Console: console, Kernel: kernel.Kernel{Commit: "c"}}, 1},
		{Trial{End: EndTest, Console: console, Kernel: kernel.Kernel{Commit: "c"}}, 0},
		{Trial{End: EndBoot, Console: console}, 0},
		{Trial{End: EndBoot, Kernel: kernel.Kernel{Commit: "c"}}, 0},
	} {
		(&Lab{}).checkCrash(&x.trial)
		if len(x.trial.Kernel.Known) != x.want {
			t.Errorf("%+v: want %d", x.trial.Kernel, x.want)
		}
	}
}
