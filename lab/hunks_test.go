package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hunkyRepo has a commit of seven hunks, between others, that breaks the test by
// two of them together: a line of code.txt and the file new.txt.
func hunkyRepo(t *testing.T) (r *smallRepo, culprit string) {
	t.Helper()
	r = newSmallRepo(t)
	code := make([]string, 80)
	for i := range code {
		code[i] = fmt.Sprintf("line %d", i)
	}
	r.write("code.txt", strings.Join(code, "\n")+"\n")
	r.write("notes.txt", "old\n")
	r.commit("code", "fine")
	for i := 5; i < 80; i += 15 {
		code[i] += " changed"
	}
	r.write("code.txt", strings.Join(code, "\n")+"\n")
	r.write("new.txt", "new\n")
	r.write("notes.txt", "new\n")
	culprit = r.commit("much at once", "fine")
	r.commit("later", "fine")
	return r, culprit
}

func TestBisectHunks(t *testing.T) {
	for _, test := range []struct {
		name, command string
		terms         Terms
		want          string
	}{
		{"one", "! grep -q 'line 35 changed' code.txt", Terms{}, "+code.txt:33"},
		{"two", "! { test -e new.txt && grep -q 'line 50 changed' code.txt; }", Terms{}, "+code.txt:48 +new.txt"},
		{"one that needs another", "grep -q 'line 5 changed' code.txt && ! test -e new.txt && exit 125; ! grep -q 'line 5 changed' code.txt", Terms{}, "+code.txt:3 +new.txt"},
		{"a repair", "grep -q 'line 20 changed' code.txt", Terms{Fix: true}, "+code.txt:18"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, culprit := hunkyRepo(t)
			log := filepath.Join(t.TempDir(), "log")
			o := commandOptions(r, r.commits[0], Command{Shell: "echo run >> " + log + "; " + test.command})
			o.Hunks, o.Steady, o.Terms = true, true, test.terms
			l := testLab(t)
			b, err := l.Bisect(t.Context(), o)
			if err != nil || b.Culprit == nil || b.Culprit.Hash != culprit || b.Hunks == nil {
				t.Fatalf("%+v, %s, %v", b.Culprit, b.Unclear, err)
			}
			h := *b.Hunks
			if h.Culprit == nil || minimal(h) != test.want || h.Axis != "hunk" || h.Range != 8 {
				t.Fatalf("%s of %d: %s", minimal(h), h.Range, h.Unclear)
			}
			if h.Tested[1].Role != RoleEnd || !strings.HasPrefix(h.Tested[1].Dir, "../trials/") || len(h.Tested[1].Set) != h.Range {
				t.Errorf("what was known of the ends is not taken over: %+v", h.Tested[1])
			}
			// The patch is what the answer says, and applies to the parent.
			parent := t.TempDir()
			r.run("", "clone", "-q", r.dir, parent)
			r.run(parent, "checkout", "-q", culprit+"^")
			apply := exec.Command("git", "apply", "-")
			apply.Dir, apply.Stdin = parent, strings.NewReader(h.Flip.Patch)
			if out, err := apply.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s\n%s", err, out, h.Flip.Patch)
			}
			files := r.run(parent, "status", "--porcelain", "-uall")
			if got := strings.Contains(files, "new.txt"); got != strings.Contains(test.want, "new.txt") || strings.Contains(files, "notes.txt") {
				t.Errorf("the patch changes %s", files)
			}
			if st, err := savedStatus(h.Dir); err != nil || !st.OfSets() || st.Culprit == nil || st.Culprit.Title != "hunk "+test.want {
				t.Errorf("the status is %+v, %v", st.Culprit, err)
			}
			before, _ := os.ReadFile(log)
			again, err := l.Bisect(t.Context(), o)
			after, _ := os.ReadFile(log)
			if err != nil || again.Hunks == nil || minimal(*again.Hunks) != test.want || again.Hunks.Flip.Patch != h.Flip.Patch || len(after) != len(before) {
				t.Errorf("again: %+v, %d bytes of log, then %d, %v", again.Hunks, len(before), len(after), err)
			}
		})
	}
}

// Killed at any of its tests, what was tested of the hunks is not tested again.
func TestBisectHunksGoOn(t *testing.T) {
	r, _ := hunkyRepo(t)
	log := filepath.Join(t.TempDir(), "log")
	// Every second run ends lab, as a signal would.
	o := commandOptions(r, r.commits[0], Command{Shell: "echo run >> " + log + "; test $(($(wc -l < " + log + ") % 2)) = 0 && exit 200; ! grep -q 'line 65 changed' code.txt"})
	o.Hunks, o.Steady = true, true
	l := testLab(t)
	kills := 0
	for {
		b, err := l.Bisect(t.Context(), o)
		if err == nil {
			if b.Hunks == nil || minimal(*b.Hunks) != "+code.txt:63" {
				t.Errorf("%+v", b.Hunks)
			}
			data, _ := os.ReadFile(log)
			runs := 0
			for _, x := range slices.Concat(b.Tested, b.Hunks.Tested[2:]) {
				if x.Inferred == "" {
					runs++
				}
			}
			if n := strings.Count(string(data), "run"); n != runs+kills {
				t.Errorf("%d runs for %d tests and %d kills", n, runs, kills)
			}
			return
		}
		if !strings.Contains(err.Error(), "status 200") || kills > 40 {
			t.Fatal(err)
		}
		kills++
	}
}

// Hunks of a kernel's commit, of which one does not compile.
func TestBisectHunksOfKernels(t *testing.T) {
	r := newVainRepo(t)
	r.vainly(1)
	culprit := r.change("broken", "kernel/audit.c", "drivers/usb.c", "include/audit.h", "init/main.c")
	o := r.options(r.commits[0], "main")
	o.Hunks = true
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != culprit || b.Hunks == nil || minimal(*b.Hunks) != "+kernel/audit.c:1" {
		t.Fatalf("%+v, %+v, %v", b.Culprit, b.Hunks, err)
	}
	if with := b.Hunks.Flip.With; with == nil || with.Mark != Bad || len(with.OnTop) != 0 && with.OnTop[0].State == "" {
		t.Errorf("%+v", with)
	}
	// Nothing to part.
	r = newVainRepo(t)
	r.change("broken", "kernel/audit.c")
	o = r.options(r.commits[0], "main")
	o.Hunks = true
	if b, err = testLab(t).Bisect(t.Context(), o); err != nil || b.Hunks == nil || b.Hunks.Unclear != "the commit changes 1 hunk" {
		t.Errorf("%+v, %v", b.Hunks, err)
	}
}
