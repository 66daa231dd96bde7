package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTerms(t *testing.T) {
	for _, test := range []struct {
		given Terms
		want  *Terms
	}{
		{Terms{}, nil},
		{Terms{Good: "fast", Bad: "slow"}, &Terms{Good: "fast", Bad: "slow"}},
		{Terms{Bad: "slow"}, &Terms{Good: "good", Bad: "slow"}},
		{Terms{Fix: true}, &Terms{"broken", "fixed", true}},
		{Terms{Good: "fast", Bad: "slow", Fix: true}, &Terms{"slow", "fast", true}},
	} {
		got, err := test.given.AsGiven()
		if err != nil || (got == nil) != (test.want == nil) || got != nil && *got != *test.want {
			t.Errorf("%+v: %+v, %v", test.given, got, err)
		}
	}
	for _, wrong := range []Terms{{Good: "skip"}, {Good: "it's"}, {Bad: "Slow"}, {Good: "x", Bad: "x"}, {Good: "bad"}, {Good: "good", Fix: true}, {Bad: "--help"}} {
		if got, err := wrong.AsGiven(); err == nil {
			t.Errorf("%+v gives %+v", wrong, got)
		}
	}
	var plain *Terms
	fix := &Terms{"broken", "fixed", true}
	if plain.Word(Bad) != "bad" || plain.Turn(Bad) != Bad || fix.Word(Bad) != "fixed" || fix.Word(Skip) != "skip" || fix.Turn(Good) != Bad || fix.Turn(Bad) != Good || fix.Turn(Skip) != Skip {
		t.Error("words")
	}
}

// TestBisectFix finds what repaired it; git takes the log in the same words.
func TestBisectFix(t *testing.T) {
	for name, terms := range map[string]Terms{"fixed": {Fix: true}, "fast": {Good: "fast", Bad: "slow", Fix: true}, "slow": {Good: "fast", Bad: "slow"}} {
		t.Run(name, func(t *testing.T) {
			before, after := "broken", "fine"
			if !terms.Fix {
				before, after = after, before
			}
			r := newSmallRepo(t)
			r.linear(slices.Concat(repeat(before, 7), repeat(after, 6))...)
			o := commandOptions(r, r.commits[1], broken)
			o.Terms = terms
			b, err := testLab(t).Bisect(t.Context(), o)
			if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[8] || b.Terms == nil || b.Terms.Bad != name {
				t.Fatalf("%+v, %q, %+v, %v", b.Culprit, b.Unclear, b.Terms, err)
			}
			for _, x := range b.Tested {
				isAfter := slices.Index(r.commits, x.Commit.Hash) >= 8
				if (x.Mark == Bad) != isAfter || (x.Exit == 0) != (isAfter == terms.Fix) {
					t.Errorf("%s is %s with %s", x.Commit.Title, x.Mark, x.Reason)
				}
			}
			file := filepath.Join(t.TempDir(), "bisect.log")
			if err := os.WriteFile(file, []byte(b.Log), 0o644); err != nil {
				t.Fatal(err)
			}
			if out := r.git("bisect", "replay", file); !strings.Contains(out, r.commits[8]+" is the first "+name+" commit") {
				t.Errorf("git bisect replay says %s\nof %s", out, b.Log)
			}
			r.git("bisect", "reset")

			// The other way round it says what to do.
			o.Good, o.Bad, o.Dir = []string{"main"}, r.commits[1], filepath.Join(t.TempDir(), "state")
			if _, err := testLab(t).Bisect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "are the two swapped?") {
				t.Errorf("swapped: %v", err)
			}
		})
	}
}

// TestBisectFixWithoutBroken goes back over releases until one is broken.
func TestBisectFixWithoutBroken(t *testing.T) {
	r := newSmallRepo(t)
	r.linear(slices.Concat(repeat("broken", 4), repeat("fine", 6))...)
	for i := range 9 {
		r.git("tag", "v1."+string(rune('0'+i)), r.commits[i])
	}
	o := commandOptions(r, "", broken)
	o.Good, o.Terms.Fix = nil, true
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[5] || len(b.Walked) == 0 {
		t.Errorf("%+v, %q, %v", b.Culprit, b.Unclear, err)
	}
}
