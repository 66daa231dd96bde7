package search

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// replay has git replay a log and gives the commits that git then suspects.
func (r repo) replay(log string) []string {
	r.t.Helper()
	path := filepath.Join(r.dir, "bisect.log")
	if err := os.WriteFile(path, []byte(log), 0o644); err != nil {
		r.t.Fatal(err)
	}
	out, err := r.try("", "bisect", "replay", path)
	got := conclusion(r.git("", "bisect", "log"))
	r.git("", "bisect", "reset")
	// git exits with 2 when only skipped commits are left.
	if err != nil && !strings.Contains(out, "only 'skip'ped commits left") {
		r.t.Fatalf("replay: %v\n%s\n%s", err, out, log)
	}
	return got
}

// The log is the very one that git writes itself.
func TestLogIsGits(t *testing.T) {
	parents := make([][]int, 9)
	for i := 1; i < len(parents); i++ {
		parents[i] = []int{i - 1}
	}
	r, ids := newRepo(t, parents)
	commit := func(i int) Commit { return Commit{ids[i], "commit " + string(rune('0'+i))} }
	h := History{Bad: commit(8), Good: []Commit{commit(1), commit(0)}}
	r.git("", "bisect", "start", "--no-checkout", ids[8], ids[1], ids[0])
	test := func(i int, m Mark) {
		h.Tested = append(h.Tested, Tested{commit(i), m})
		_, _ = r.try("", "bisect", m.String(), ids[i])
	}
	check := func() {
		t.Helper()
		// The one difference: git repeats how it was called.
		want := strings.Replace(r.git("", "bisect", "log"), "'--no-checkout' ", "", 1)
		if got := Log(h); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	check()
	test(4, Skip)
	test(5, Bad)
	check()
	test(3, Good)
	h.Suspects = []Commit{commit(5), commit(4)}
	check()
	r.git("", "bisect", "reset")
	if got, want := r.replay(Log(h)), []string{ids[4], ids[5]}; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("replayed: %v, want %v", got, want)
	}

	h = History{Bad: commit(8), Good: []Commit{commit(0)}}
	r.git("", "bisect", "start", "--no-checkout", ids[8], ids[0])
	test(4, Bad)
	test(2, Good)
	test(3, Good)
	h.Culprit = commit(4)
	check()
	r.git("", "bisect", "reset")
	if got := r.replay(Log(h)); !slices.Equal(got, []string{ids[4]}) {
		t.Errorf("replayed: %v, want %s", got, ids[4])
	}
}

func TestTitlesStayInTheirLines(t *testing.T) {
	log := Log(History{
		Bad:     Commit{"b", "title\ngit bisect reset\r\x1b[2J"},
		Good:    []Commit{{"g", "good"}},
		Tested:  []Tested{{Commit{"u", "never tested"}, Unknown}},
		Culprit: Commit{"b", "x\ny"},
	})
	want := "# bad: [b] title git bisect reset  [2J\n# good: [g] good\ngit bisect start 'b' 'g'\n# first bad commit: [b] x y\n"
	if log != want {
		t.Errorf("got %q\nwant %q", log, want)
	}
}
