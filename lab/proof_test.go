package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// proofRepo is a history of which the second commit is good and the last one bad.
func proofRepo(t *testing.T, changes func(r *smallRepo)) *smallRepo {
	r := newVainRepo(t)
	r.vainly(0)
	changes(r)
	return r
}

// TestProof: what the answer's change does by itself, with kernels and with commands.
func TestProof(t *testing.T) {
	plain := Command{Shell: "! grep -h broken kernel/audit.c hidden/hidden.c"}
	for _, test := range []struct {
		name    string
		changes func(r *smallRepo)
		command Command
		kernels bool // the Makefile says the same
		want    []string
	}{
		{"alone", func(r *smallRepo) {
			r.vainly(1)
			r.change("broken", "kernel/audit.c")
			r.vainly(2)
		}, plain, true, []string{"reverted on %s: good", "applied on %s: bad"}},
		{"not alone", func(r *smallRepo) {
			r.vainly(1)
			r.change("broken", "kernel/audit.c")
			r.change("broken too", "hidden/hidden.c")
		}, plain, true, []string{"reverted on %s: still bad: other changes make it so too", "applied on %s: bad"}},
		{"with another", func(r *smallRepo) {
			r.change("half", "drivers/usb.c")
			r.change("broken", "kernel/audit.c")
		}, Command{Shell: "! { grep -q broken kernel/audit.c && grep -q half drivers/usb.c; }"}, false, []string{"applied on %s: still good: it takes other changes too"}},
		{"conflicts", func(r *smallRepo) {
			r.change("other", "kernel/audit.c")
			r.change("broken", "kernel/audit.c")
			r.change("still broken", "kernel/audit.c")
		}, plain, true, []string{"reverted on %s: not tested: it does not revert: conflict in kernel/audit.c", "applied on %s: not tested: it does not apply: conflict in kernel/audit.c"}},
		{"nothing new", func(r *smallRepo) { r.change("broken", "kernel/audit.c") }, plain, true, nil},
		{"nothing checked out", func(r *smallRepo) {
			r.vainly(1)
			r.change("broken", "kernel/audit.c")
			r.vainly(2)
		}, Command{Shell: "! git grep -h broken $LAB_COMMIT -- kernel/audit.c", NoCheckout: true}, false, nil},
		{"merge", func(r *smallRepo) {
			r.git("checkout", "-q", "-b", "side")
			r.change("half", "drivers/usb.c")
			r.git("checkout", "-q", "main")
			r.change("other", "kernel/audit.c")
			r.git("merge", "-q", "--no-edit", "side")
			r.vainly(3)
		}, Command{Shell: "! { grep -q other kernel/audit.c && grep -q half drivers/usb.c; }"}, false, []string{"not reverted and applied: it is a merge, which has no one change"}},
	} {
		for _, kernels := range []bool{false, true} {
			if kernels && !test.kernels {
				continue
			}
			t.Run(fmt.Sprintf("%s, kernels %v", test.name, kernels), func(t *testing.T) {
				r := proofRepo(t, test.changes)
				test.command.Dir = r.dir
				o := commandOptions(r, r.commits[1], test.command)
				if kernels {
					o = r.options(r.commits[1], "main")
				}
				o.Proof = true
				l := testLab(t)
				b, err := l.Bisect(t.Context(), o)
				if err != nil || b.Culprit == nil || b.Unclear != "" {
					t.Fatalf("%+v, %s, %v", b.Culprit, b.Unclear, err)
				}
				got := b.Proof.Text(b.Terms)
				if len(got) != len(test.want) {
					t.Fatalf("%q, want %q", got, test.want)
				}
				for i, want := range test.want {
					if strings.Contains(want, "%s") {
						end := b.Bad
						if strings.HasPrefix(want, "applied") {
							end = b.Good[0]
						}
						want = fmt.Sprintf(want, name(end))
					}
					if !strings.HasPrefix(got[i], want) {
						t.Errorf("%q, want %q", got[i], want)
					}
				}
				if slices.ContainsFunc(b.Tested, func(x Tested) bool { return x.Role == RoleProof }) {
					t.Error("a proof is among the tests of commits")
				}
			})
		}
	}
}

// TestProofGoesOn: wherever in it a bisect was cut off, it comes to the same proof,
// and tests nothing twice.
func TestProofGoesOn(t *testing.T) {
	r := proofRepo(t, func(r *smallRepo) {
		r.change("broken", "kernel/audit.c")
		r.vainly(2)
	})
	count := filepath.Join(t.TempDir(), "count")
	o := commandOptions(r, r.commits[1], Command{Shell: "echo >> " + count + "; ! grep -h broken kernel/audit.c"})
	l := testLab(t)
	if b, err := l.Bisect(t.Context(), o); err != nil || b.Proof != nil {
		t.Fatalf("not asked for: %+v, %v", b.Proof, err)
	}
	before, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	o.Proof = true
	want, err := l.Bisect(t.Context(), o)
	if err != nil || want.Proof == nil {
		t.Fatalf("%+v, %v", want.Proof, err)
	}
	after, err := os.ReadFile(count)
	if err != nil || len(after) != len(before)+1 { // on the good end it is the answer itself
		t.Errorf("%d runs for one half, %v", len(after)-len(before), err)
	}
	name := filepath.Join(o.Dir, journalFile)
	journal, err := os.ReadFile(name)
	if err != nil || bytes.Count(journal, []byte(`"event":"proof"`)) != 1 {
		t.Fatalf("%v\n%s", err, journal)
	}
	lines := bytes.SplitAfter(journal, []byte("\n"))
	for n := 1; n <= len(lines); n++ {
		if err := os.WriteFile(name, bytes.Join(lines[:n], nil), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := l.Bisect(t.Context(), o)
		if err != nil || b.Culprit == nil || b.Culprit.Hash != want.Culprit.Hash || !reflect.DeepEqual(b.Proof, want.Proof) {
			t.Errorf("from line %d: %+v, %v", n, b.Proof, err)
		}
		if now, err := os.ReadFile(name); err != nil || bytes.Count(now, []byte(`"event":"proof"`)) != 1 {
			t.Errorf("from line %d: %v\n%s", n, err, now)
		}
	}
}

// TestProofOfFlaky: a revert that passes once proves nothing where a bad commit
// passes every other time.
func TestProofOfFlaky(t *testing.T) {
	r := proofRepo(t, func(r *smallRepo) {
		r.vainly(1)
		r.change("broken", "kernel/audit.c")
		r.vainly(2)
	})
	n := filepath.Join(t.TempDir(), "n")
	o := commandOptions(r, r.commits[1], Command{Shell: "grep -q broken kernel/audit.c || exit 0; n=$(cat " + n + " 2>/dev/null || echo 0); echo $((n+1)) > " + n + "; exit $((n%2))"})
	o.Proof = true
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Title != "broken" || b.Proof == nil || b.Proof.Reverted == nil || b.Proof.Applied == nil {
		t.Fatalf("%+v: %s, %v", b.Culprit, b.Unclear, err)
	}
	if p := b.Proof.Reverted; p.Mark != Good || p.Bad != 0 || p.Good < 3 || p.Chance == 0 || p.Chance > .05 {
		t.Errorf("reverted: %+v", p)
	}
	if p := b.Proof.Applied; p.Mark != Bad || p.Bad != 1 || p.Chance != 0 {
		t.Errorf("applied: %+v", p)
	}
	table := b.Table()
	if len(table) != 5 || !strings.Contains(table[3], "reverted") || !strings.Contains(table[4], "applied") {
		t.Errorf("%q", table)
	}
}
