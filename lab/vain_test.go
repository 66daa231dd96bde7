package lab

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/kernel"
)

// vainMakefile makes a kernel of three files, and says so as Kbuild does. It
// also reads hidden/hidden.c, and does not say so.
const vainMakefile = `
KCONFIG_CONFIG ?= .config
allnoconfig:
	@echo "# Automatically generated file; DO NOT EDIT." > $(KCONFIG_CONFIG)
	@grep ^CONFIG Kconfig >> $(KCONFIG_CONFIG)
bzImage:
	@if grep -q broken kernel/audit.c hidden/hidden.c; then echo "kernel/audit.c:1: error: broken" >&2; exit 1; fi
	@mkdir -p arch/x86/boot init
	@cat header.bin init/main.c kernel/audit.c include/audit.h > arch/x86/boot/bzImage
	@printf 'source_init/main.o := init/main.c\ndeps_init/main.o := \\\n  kernel/audit.c include/audit.h \\\n' > init/.main.o.cmd
	@echo > System.map
`

func newVainRepo(t *testing.T) *smallRepo {
	t.Helper()
	r := &smallRepo{t: t, dir: filepath.Join(t.TempDir(), "linux")}
	r.run("", "init", "-q", "-b", "main", r.dir)
	for _, dir := range []string{"init", "kernel", "include", "hidden", "drivers", "Documentation", "arch/arm"} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.write("Makefile", vainMakefile)
	r.write("Kconfig", "CONFIG_AUDIT=y\n")
	r.write("header.bin", string(smallHeader()))
	r.change("first", "init/main.c", "kernel/audit.c", "include/audit.h", "hidden/hidden.c", "drivers/usb.c", "drivers/usb.h", "arch/arm/a.S")
	return r
}

// change commits new text of some files.
func (r *smallRepo) change(title string, files ...string) string {
	r.t.Helper()
	for _, name := range files {
		r.write(name, title+"\n")
	}
	r.git("add", ".")
	r.git("commit", "-q", "--allow-empty", "-m", title)
	r.commits = append(r.commits, r.git("rev-parse", "HEAD"))
	return r.commits[len(r.commits)-1]
}

// vainly is the i-th commit that changes nothing that is compiled.
func (r *smallRepo) vainly(i int) {
	file := []string{"drivers/usb.c", "Documentation/usb.rst", "drivers/usb.h", "arch/arm/a.S", fmt.Sprintf("Documentation/page%d.rst", i)}[i%5]
	r.change(fmt.Sprintf("vain %d", i), file)
}

// Of forty commits four are compiled: wherever the culprit is, it is found
// without building one of the others, but for the culprit's own parent, and
// every verdict that nobody saw says so.
func TestBisectBuildsNothingInVain(t *testing.T) {
	r := newVainRepo(t)
	const n, every = 40, 10
	for i := 1; i <= n; i++ {
		if i%every == 5 {
			r.change(fmt.Sprintf("compiled %d", i), "kernel/audit.c", "drivers/usb.c")
		} else {
			r.vainly(i)
		}
	}
	good := slices.Clone(r.commits)
	l := testLab(t)
	var said strings.Builder
	l.Progress.Line = func(s string) { said.WriteString(s + "\n") }
	for _, culprit := range []int{5, 25} {
		// The same history, from the culprit on with a broken file.
		r.git("checkout", "-q", "-B", "broken", good[culprit-1])
		r.commits = slices.Clone(good[:culprit])
		r.change("broken", "kernel/audit.c")
		for i := culprit + 1; i <= n; i++ {
			if i%every == 5 {
				r.change(fmt.Sprintf("compiled too %d broken", i), "kernel/audit.c")
			} else {
				r.vainly(i)
			}
		}
		o := r.options(r.commits[0], "broken")
		o.Audit = 3
		b, err := l.Bisect(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if b.Culprit == nil || b.Culprit.Hash != r.commits[culprit] || b.Unclear != "" {
			t.Fatalf("culprit %d: found %+v: %s", culprit, b.Culprit, b.Unclear)
		}
		replayed(t, r, b.Log, b.Culprit.Hash)
		steps, inferred, audited := 0, 0, 0
		for _, x := range b.Tested {
			switch {
			case x.Role == RoleAudit:
				audited++
				if x.Unbuilt || x.Inferred != "" || x.Mark != Good {
					t.Errorf("audited: %+v", x)
				}
			case x.Unbuilt:
				inferred++
				if x.Role != RoleStep || x.Inferred == "" || x.Kernel == "" || x.Dir != "" || x.Build != 0 || x.Mark != Good {
					t.Errorf("inferred: %+v", x)
				}
			case x.Role == RoleStep:
				steps++
			}
		}
		t.Logf("culprit %d: %d built, %d inferred, %d inert", culprit, steps, inferred, b.Inert)
		// A broken kernel leaves no footprint, so the commits between two
		// broken ones have to be built.
		if steps > 5 || inferred == 0 || audited != 3 || b.Inert != n-n/every {
			t.Errorf("culprit %d: %d built, %d inferred, %d audited, %d inert", culprit, steps, inferred, audited, b.Inert)
		}
		journal, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
		if err != nil || strings.Count(string(journal), `"unbuilt":true`) != inferred {
			t.Errorf("the journal tells of other than %d inferred verdicts: %v", inferred, err)
		}
		// It goes on to the same answer, with nothing more to test.
		again, err := l.Bisect(t.Context(), o)
		after, _ := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
		if err != nil || again.Culprit == nil || again.Culprit.Hash != b.Culprit.Hash || string(after) != string(journal) {
			t.Errorf("again: %+v, %v", again.Culprit, err)
		}
	}
	if s := said.String(); !strings.Contains(s, "(same binary as "+r.commits[0][:12]+": nothing it touches is compiled; neither built nor booted)") ||
		!strings.Contains(s, "36 of 40 commits change nothing that is compiled") || strings.Contains(s, "CONTRADICTION") {
		t.Errorf("said:\n%s", s)
	}
}

// TestBisectSeesThatTheRuleIsWrong: a build that reads what it does not tell.
func TestBisectSeesThatTheRuleIsWrong(t *testing.T) {
	for _, test := range []struct {
		name  string
		audit int
		make  func(r *smallRepo)
	}{
		// The culprit is inert, by the rule: the confirmation sees it.
		{"at the answer", 0, func(r *smallRepo) {
			for i := range 6 {
				r.vainly(i)
			}
			r.change("broken", "hidden/hidden.c")
			for i := range 6 {
				r.vainly(i + 6)
			}
			r.change("broken as well", "kernel/audit.c")
		}},
		// A commit elsewhere does not build: the audit sees it.
		{"elsewhere", 9, func(r *smallRepo) {
			r.vainly(1)
			r.change("broken for a while", "hidden/hidden.c")
			r.change("repaired", "hidden/hidden.c")
			r.change("compiled", "kernel/audit.c")
			r.vainly(2)
			r.change("broken", "kernel/audit.c")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newVainRepo(t)
			test.make(r)
			var said strings.Builder
			l := testLab(t)
			l.Progress.Line = func(s string) { said.WriteString(s + "\n") }
			o := r.options(r.commits[0], "main")
			o.Audit = test.audit
			b, err := l.Bisect(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if b.Culprit != nil || !strings.Contains(b.Unclear, "is not as was inferred: it does not build") || !strings.Contains(said.String(), "CONTRADICTION: ") {
				t.Errorf("culprit %+v, unclear %q\n%s", b.Culprit, b.Unclear, said.String())
			}
			// It is on record: asked again, without an audit, the answer stays away.
			journal, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
			if err != nil || !strings.Contains(string(journal), `"unclear":"`) {
				t.Errorf("the journal does not tell: %v\n%s", err, journal)
			}
			o.Audit = 0
			if b, err = l.Bisect(t.Context(), o); err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "is not as was inferred") {
				t.Errorf("again: culprit %+v, unclear %q, %v", b.Culprit, b.Unclear, err)
			}
		})
	}
}

// TestCompare: that the same bytes do both takes the answer of a steady test back,
// and is a run among others where runs are weighed; other bytes always do.
func TestCompare(t *testing.T) {
	c := kernel.Commit{Hash: strings.Repeat("1", 40), Title: "inferred"}
	said := Tested{Commit: c, Role: RoleStep, Unbuilt: true, Inferred: strings.Repeat("2", 40), Kernel: "sha256:1", Verdict: Verdict{Mark: Bad}}
	for _, test := range []struct {
		kernel  string
		mark    Mark
		steady  bool
		answers bool
	}{
		{"sha256:1", Bad, true, true},
		{"sha256:1", Good, true, false},
		{"sha256:1", Good, false, true},
		{"sha256:2", Bad, false, false},
		{"", Skip, false, false},
	} {
		for _, role := range []string{RoleConfirm, RoleAgain, RoleAudit} {
			seen := Tested{Commit: c, Role: role, Kernel: test.kernel, Verdict: Verdict{Mark: test.mark}}
			b := &bisection{Lab: testLab(t), steady: test.steady, journal: &journal{records: []record{{Tested: &said}, {Tested: &seen}}}}
			b.result.Culprit = &c
			if err := b.compareAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if answers := b.result.Culprit != nil; answers != test.answers || answers != (b.result.Unclear == "") {
				t.Errorf("%s, %+v: %q", role, test, b.result.Unclear)
			}
		}
	}
}

// A merge of two sides that are compiled may matter though nobody touched
// anything in it; one that brings in only what is not compiled does not.
func TestBisectWeighsMerges(t *testing.T) {
	r := newVainRepo(t)
	base := r.commits[0]
	r.git("checkout", "-q", "-b", "docs")
	r.vainly(1)
	r.git("checkout", "-q", "-b", "side", base)
	r.change("side", "include/audit.h")
	r.git("checkout", "-q", "main")
	r.change("main", "kernel/audit.c")
	r.git("merge", "-q", "--no-edit", "docs")
	r.git("merge", "-q", "--no-edit", "side")
	last := r.change("last broken", "kernel/audit.c")
	b, err := testLab(t).Bisect(t.Context(), r.options(base, "main"))
	if err != nil || b.Culprit == nil || b.Culprit.Hash != last {
		t.Fatalf("%+v, %v", b, err)
	}
	// Inert: the page, and its merge.
	if b.Inert != 2 || b.Range != 6 {
		t.Errorf("%d of %d are inert", b.Inert, b.Range)
	}
}

// Where Kconfig is touched the configuration is made again: the same one makes
// the same kernel, another one is built.
func TestBisectMakesTheConfigAgain(t *testing.T) {
	r := newVainRepo(t)
	kconfig := func(title, text string) {
		t.Helper()
		r.write("Kconfig", text)
		r.change(title)
	}
	kconfig("help", "CONFIG_AUDIT=y\nhelp\n")
	kconfig("more help", "CONFIG_AUDIT=y\nmore help\n")
	kconfig("a symbol", "CONFIG_AUDIT=y\nCONFIG_NET=y\n")
	kconfig("help again", "CONFIG_AUDIT=y\nCONFIG_NET=y\nhelp\n")
	culprit := r.change("broken", "kernel/audit.c")
	b, err := testLab(t).Bisect(t.Context(), r.options(r.commits[0], "main"))
	if err != nil || b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("%+v, %v", b, err)
	}
	// The range of five is halved at the symbol, which is built, and the help
	// after it has the same configuration.
	got := map[string]bool{}
	for _, x := range b.Tested {
		if x.Role == RoleStep {
			got[x.Commit.Title] = x.Unbuilt
		}
	}
	if want := map[string]bool{"more help": true, "a symbol": false, "help again": true}; !maps.Equal(got, want) {
		t.Errorf("unbuilt: %v, want %v", got, want)
	}
}

func TestSpread(t *testing.T) {
	list := []int{0, 1, 2, 3, 4, 5, 6, 7}
	for n, want := range map[int]string{0: "[]", 1: "[4]", 3: "[4 2 6]", 7: "[4 2 6 1 3 5 7]", 8: "[4 2 6 1 3 5 7 0]", 20: "[4 2 6 1 3 5 7 0]"} {
		if got := fmt.Sprint(spread(list, n)); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	if got := spread([]int(nil), 3); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}
