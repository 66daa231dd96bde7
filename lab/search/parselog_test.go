package search

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What git writes is understood: with terms of any kind, ends given as names or
// one by one, commits skipped as a range; and what Log makes of it leads git to
// where it was.
func TestParseLogOfGit(t *testing.T) {
	parents := make([][]int, 9)
	for i := 1; i < len(parents); i++ {
		parents[i] = []int{i - 1}
	}
	r, ids := newRepo(t, parents)
	r.git("", "tag", "v1", ids[0])
	at := func(n ...int) (list []Commit) {
		for _, i := range n {
			list = append(list, Commit{ids[i], fmt.Sprintf("commit %d", i)})
		}
		return list
	}
	tested := func(marks map[int]Mark, order ...int) (list []Tested) {
		for _, i := range order {
			list = append(list, Tested{at(i)[0], marks[i]})
		}
		return list
	}
	for _, test := range []struct {
		name     string
		commands []string // i stands for commit i
		want     History
	}{
		{"hashes", []string{"start --no-checkout 8 0", "good 4", "bad 6", "good 5"},
			History{Bad: at(8)[0], Good: at(0), Tested: tested(map[int]Mark{4: Good, 6: Bad, 5: Good}, 4, 6, 5), Culprit: at(6)[0]}},
		{"names and terms", []string{"start --term-old fast --term-new=slow --no-checkout HEAD v1", "slow 4"},
			History{Terms: Terms{"fast", "slow"}, Bad: at(8)[0], Good: at(0), Tested: tested(map[int]Mark{4: Bad}, 4)}},
		{"ends one by one", []string{"start --no-checkout --first-parent", "good 0 1", "bad 8", "good 3"},
			History{FirstParent: true, Bad: at(8)[0], Good: at(0, 1), Tested: tested(map[int]Mark{3: Good}, 3)}},
		{"old and new", []string{"start --no-checkout", "new 8", "old 1", "skip 2..5", "new 6"},
			History{Terms: Terms{"old", "new"}, Bad: at(8)[0], Good: at(1), Tested: tested(map[int]Mark{3: Skip, 4: Skip, 5: Skip, 6: Bad}, 5, 4, 3, 6)}},
		{"only skipped ones", []string{"start --no-checkout 3 0", "skip 1 2"},
			History{Bad: at(3)[0], Good: at(0), Tested: tested(map[int]Mark{1: Skip, 2: Skip}, 1, 2), Suspects: at(3, 1, 2)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, command := range test.commands {
				args := strings.Fields(command)
				for i, a := range args {
					from, to, isRange := strings.Cut(a, "..")
					switch {
					case isRange:
						args[i] = ids[from[0]-'0'] + ".." + ids[to[0]-'0']
					case len(a) == 1:
						args[i] = ids[a[0]-'0']
					}
				}
				_, _ = r.try("", append([]string{"bisect"}, args...)...)
			}
			log := r.git("", "bisect", "log")
			got, err := ParseLog(log)
			// git lists the suspects in no order that it promises.
			if len(got.Suspects) == len(test.want.Suspects) {
				got.Suspects = test.want.Suspects
			}
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("%v\n%s\ngot  %+v\nwant %+v", err, log, got, test.want)
			}
			r.git("", "bisect", "reset")
			if replayed := r.replay(Log(got)); !slices.Equal(replayed, conclusion(log)) {
				t.Errorf("git replays it to %v, not %v", replayed, conclusion(log))
			}
			r.git("", "checkout", "-q", "--detach", ids[8])
			if again, err := ParseLog(Log(got)); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%v\n%s\ngot  %+v\nwant %+v", err, Log(got), again, got)
			}
		})
	}
}

func TestParseLogRefuses(t *testing.T) {
	const start = "git bisect start 'b' 'g'\n"
	for _, test := range []struct{ log, want string }{
		{"", "read bisect log: it has no git bisect start"},
		{"git bisect start\n", "it does not say both what is good and what is bad"},
		{"git bisect good a\n", "line 1: good comes before git bisect start"},
		{start + start, "line 2: a second git bisect start"},
		{start + "git bisect reset\n", "line 2: git bisect reset is no verdict"},
		{start + "git bisect bad a\ngit bisect new b\n", "line 3: git bisect new is no verdict"},
		{start + "git bisect bad --upload-pack=x\n", `line 2: "--upload-pack=x" is an option, and not a revision`},
		{start + "git bisect bad a..b\n", `line 2: "a..b" is not a revision`},
		{start + "git bisect bad " + strings.Repeat("a", 300) + "\n", "line 2: a revision has 300 characters"},
		{start + "git bisect bad 'a\n", "line 2: a quote is not closed"},
		{start + "git bisect bad a\\\n", "line 2: it ends with a backslash"},
		{start + "git bisect \n", "line 2: git bisect has no command"},
		{"git bisect start --exec=x\n", "line 1: \"--exec=x\" is an option"},
		{"git bisect start --term-old\n", "line 1: --term-old has no value"},
		{"git bisect start --term-old=reset\n", `line 1: "reset" cannot be a term`},
		{"git bisect start --term-old=x --term-new=x\n", `line 1: both terms are "x"`},
		{start + strings.Repeat("x", mostLine+1), "line 2: it has 65537 bytes, more than 65536"},
		{strings.Repeat("x\n", mostLog), "it has 33554432 bytes, more than 16777216"},
		{start + "git bisect skip" + strings.Repeat("\ngit bisect skip"+strings.Repeat(" a", 1000), 101), "more than 100000 commits"},
	} {
		if _, err := ParseLog(test.log); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: %v, want %q", test.log, err, test.want)
		}
	}
}

func TestLogQuotes(t *testing.T) {
	h := History{Bad: Commit{ID: "b!"}, Good: []Commit{{ID: "g"}}, Paths: []string{"it's", "a b", "", "-x!"}}
	if got, err := ParseLog(Log(h)); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%v\n%s%+v", err, Log(h), got)
	}
}

// What is understood once is understood the same way again.
func FuzzParseLog(f *testing.F) {
	f.Add("# bad: [b1] title\n# good: [a1] x\ngit bisect start 'HEAD' 'v1' '--' 'it'\\''s'\n# bad: [c1] y\ngit bisect bad c1\n# first bad commit: [c1] y\n")
	f.Add("git bisect start --term-old=fast --term-new slow\n# status: waiting\ngit bisect slow b\ngit bisect fast a c\ngit bisect skip d e\n# possible first slow commit: [d] t\n")
	f.Add("git-bisect start\ngit bisect new b\ngit bisect old a\n")
	f.Fuzz(func(t *testing.T, log string) {
		h, err := ParseLog(log)
		if err != nil {
			return
		}
		again, err := ParseLog(Log(h))
		if err != nil {
			t.Fatalf("%v\n%s", err, Log(h))
		}
		for i, p := range h.Paths {
			h.Paths[i] = oneLine(p)
		}
		if !reflect.DeepEqual(again, h) {
			t.Fatalf("got  %+v\nwant %+v\n%s", again, h, Log(h))
		}
	})
}
