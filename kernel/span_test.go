package kernel

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSpan: what lies between ends, by first parents, by paths; where branches
// part.
func TestSpan(t *testing.T) {
	r := newRepo(t)
	hash := map[string]string{"first": r.git("rev-parse", "HEAD")}
	r.git("checkout", "-q", "-b", "side")
	hash["side a"] = r.change("side a", "src/a.c", "int a1;\n")
	hash["side doc"] = r.change("side doc", "README", "side\n")
	r.git("checkout", "-q", "main")
	hash["main b"] = r.change("main b", "src/b.c", "int b1;\n")
	r.git("merge", "-q", "--no-ff", "-m", "merge", "side")
	hash["merge"] = r.git("rev-parse", "HEAD")
	hash["last"] = r.change("last", "include/all.h", "#define ALL 2\n")
	tree, err := OpenTree(t.Context(), t.TempDir(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	title := map[string]string{}
	for name, h := range hash {
		title[h] = name
	}
	for _, test := range []struct {
		good  string
		first bool
		paths []string
		want  string
		touch string
	}{
		{good: "first", want: "main b, side a, side doc, merge, last"},
		{good: "first", first: true, want: "main b, merge, last", paths: []string{"src"}, touch: "main b, merge"},
		{good: "side doc", first: true, want: "main b, merge, last"},
		{good: "first", want: "main b, side a, side doc, merge, last", paths: []string{"src"}, touch: "main b, merge, side a"},
		{good: "first", want: "main b, side a, side doc, merge, last", paths: []string{"src/b.c", "include/*.h"}, touch: "last, main b, merge"},
		{good: "first", want: "main b, side a, side doc, merge, last", paths: []string{"nosuch"}, touch: ""},
	} {
		s := Span{Good: []string{hash[test.good]}, Bad: hash["last"], FirstParent: test.first}
		commits, err := tree.Span(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range commits {
			got = append(got, c.Title)
			if test.first && len(c.Parents) != 1 {
				t.Errorf("%s has parents %v", c.Title, c.Parents)
			}
		}
		if want := strings.Split(test.want, ", "); !sameSet(got, want) || got[len(got)-1] != "last" {
			t.Errorf("%+v: got %v", test, got)
		}
		if test.paths == nil {
			continue
		}
		touching, err := tree.Touching(t.Context(), s, test.paths)
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for h := range touching {
			got = append(got, title[h])
		}
		if slices.Sort(got); strings.Join(got, ", ") != test.touch {
			t.Errorf("%+v: touched by %v", test, got)
		}
	}
	for _, test := range [][]string{{"side doc", "main b", "first"}, {"side a", "last", "side a"}, {"side doc", "main b", "last", "first"}} {
		var of []string
		for _, name := range test[:len(test)-1] {
			of = append(of, hash[name])
		}
		if bases, err := tree.MergeBases(t.Context(), of...); err != nil || len(bases) != 1 || bases[0] != hash[test[len(test)-1]] {
			t.Errorf("%v: %v, %v", test, bases, err)
		}
	}
	r.git("checkout", "-q", "--orphan", "other")
	r.commit("other")
	if bases, err := tree.MergeBases(t.Context(), r.git("rev-parse", "HEAD"), hash["last"]); err != nil || len(bases) != 0 {
		t.Errorf("nothing in common: %v, %v", bases, err)
	}
	if list, err := tree.FirstParents(t.Context(), hash["last"]); err != nil || !slices.Equal(list, []string{hash["merge"], hash["main b"], hash["first"]}) {
		t.Errorf("first parents %v, %v", list, err)
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestReleases(t *testing.T) {
	r := newRepo(t)
	for i, tags := range []string{"v2.6.9 junk backup-1", "v2.6.10-rc1", "v2.6.10 v-next", "v3.0", "", "v3.10-rc2", "v3.2"} {
		hash := r.change(fmt.Sprint(i), "README", fmt.Sprint(i))
		for j, tag := range strings.Fields(tags) {
			if j == 0 {
				r.git("tag", "-m", "annotated", tag, hash)
			} else {
				r.git("tag", tag, hash)
			}
		}
	}
	r.git("tag", "v1.of-a-file", "HEAD:README")
	head := r.change("head", "README", "head")
	r.git("tag", "v9.0", head) // is itself
	r.git("checkout", "-q", "-b", "elsewhere", "HEAD~3")
	r.change("elsewhere", "README", "elsewhere")
	r.git("tag", "v8.0")
	tree, err := OpenTree(t.Context(), t.TempDir(), r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	releases := func(hash string) string {
		list, err := tree.Releases(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		var tags []string
		for _, l := range list {
			tags = append(tags, l.Tag)
			if l.Commit != r.git("rev-parse", l.Tag+"^{commit}") {
				t.Errorf("%s is %s", l.Tag, l.Commit)
			}
		}
		return strings.Join(tags, " ")
	}
	if got := releases(head); got != "v3.2 v3.0 v2.6.10 v2.6.9" {
		t.Errorf("got %s", got)
	}
	r.git("tag", "-d", "v3.2", "v3.0", "v2.6.10", "v2.6.9", "backup-1")
	if got := releases(head); got != "v3.10-rc2 v2.6.10-rc1" {
		t.Errorf("before releases: %s", got)
	}
	r.git("tag", "-d", "v3.10-rc2", "v2.6.10-rc1")
	if got := releases(head); got != "" {
		t.Errorf("no release: %s", got)
	}
}
