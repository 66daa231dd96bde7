package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lab/kernel"
	"lab/lab/search"
)

// begun is a bisect whose ends are tested.
func begun(t *testing.T, l *Lab, o BisectOptions) *bisection {
	t.Helper()
	b := newBisection(l, o)
	if err := b.openAxis(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.ahead.yield(nil); b.Close() })
	var err error
	if b.commits, err = b.ends(t.Context(), o, &b.result); err != nil {
		t.Fatal(err)
	}
	if b.journal, err = openJournal(t.Context(), o.Dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.journal.Close() })
	if err := b.begin(t.Context(), o, "key"); err != nil {
		t.Fatal(err)
	}
	b.recall()
	if ok, err := b.verifyEnds(t.Context()); err != nil || !ok {
		t.Fatalf("%v: %s", err, b.result.Unclear)
	}
	return b
}

// What is foreseen while a kernel boots is what is built next, whichever way it
// comes out; and built ahead of time, it changes nothing that is recorded.
func TestLookAhead(t *testing.T) {
	r := newVainRepo(t)
	const n, every = 40, 4
	culprit := ""
	for i := 1; i <= n; i++ {
		switch {
		case i == 29:
			culprit = r.change("broken", "kernel/audit.c")
		case i%every == 1:
			state := "compiled"
			if i > 29 {
				state = "broken still,"
			}
			r.change(fmt.Sprintf("%s %d", state, i), "kernel/audit.c", "include/audit.h")
		default:
			r.vainly(i)
		}
	}
	plain, err := testLab(t).Bisect(t.Context(), r.options(r.commits[0], "main"))
	if err != nil || plain.Culprit == nil || plain.Culprit.Hash != culprit {
		t.Fatalf("%+v, %v", plain.Culprit, err)
	}

	b := begun(t, testLab(t), r.options(r.commits[0], "main"))
	ahead, err := b.foresee(t.Context(), *b.journal.records[len(b.journal.records)-1].Tested)
	if err != nil {
		t.Fatal(err)
	}
	var found search.Step
	steps, wrong := 0, 0
	for {
		if err := b.weigh(t.Context(), b.candidates); err != nil {
			t.Fatal(err)
		}
		if found = search.Next(b.candidates, b.marks); found.Test < 0 {
			break
		}
		c := b.commits[found.Test]
		inferred, err := b.infer(t.Context(), c, 0)
		if err != nil {
			t.Fatal(err)
		}
		if inferred == nil {
			if !slices.ContainsFunc(ahead, func(a kernel.Commit) bool { return a.Hash == c.Hash }) {
				t.Errorf("step %d is %s, foreseen was %v", steps, c.Title, ahead)
			}
			if len(ahead) > 0 && ahead[0].Hash != c.Hash {
				wrong++
			}
			steps++
			k, err := b.trial(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			seen := Tested{Commit: c, Role: RoleStep, Kernel: k.Kernel.Digest}
			b.lookAhead(t.Context(), seen)
			b.ahead.settle()
			if ahead, err = b.foresee(t.Context(), seen); err != nil {
				t.Fatal(err)
			}
		}
		x, err := b.test(t.Context(), c, RoleStep, found.Left)
		if err != nil {
			t.Fatal(err)
		}
		b.marks[found.Test] = searchMark(x.Mark)
	}
	if steps < 2 {
		t.Errorf("%d steps, %d of them other than the first guess", steps, wrong)
	}
	if err := b.search(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.finish()
	if b.result.Culprit == nil || b.result.Culprit.Hash != culprit || b.result.Log != plain.Log {
		t.Errorf("with: %s\nwithout: %s", b.result.Log, plain.Log)
	}
	said := func(list []Tested) (s []string) {
		for _, x := range list {
			s = append(s, fmt.Sprintf("%s %s %s %q %v %s", x.Commit.Title, x.Role, x.Mark, x.Inferred, x.Unbuilt, x.Kernel))
		}
		return s
	}
	if with, without := said(b.result.Tested), said(plain.Tested); !slices.Equal(with, without) {
		t.Errorf("with: %q\nwithout: %q", with, without)
	}
}

// A bisect that ends while something is built ahead leaves nothing running and
// a work tree of which nobody has to think.
func TestLookAheadIsCutShort(t *testing.T) {
	r := newVainRepo(t)
	for i := range 8 {
		r.change(fmt.Sprintf("compiled %d", i), "kernel/audit.c")
	}
	r.change("broken", "kernel/audit.c")
	b := begun(t, testLab(t), r.options(r.commits[0], "main"))
	b.lookAhead(t.Context(), Tested{Commit: b.commits[4], Role: RoleStep})
	b.ahead.settle()
	b.ahead.yield(nil)
	left, err := filepath.Glob(filepath.Join(b.Cache, "trees/*/building"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if entries, err := os.ReadDir(filepath.Join(b.Cache, "kernels")); err != nil || len(entries) < 2 {
		t.Errorf("%v, %v", entries, err)
	}
}
