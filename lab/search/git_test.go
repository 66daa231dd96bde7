package search

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// repo is a git repository of empty commits, made for a test.
type repo struct {
	t   testing.TB
	dir string
	env []string
}

// newRepo makes a repository whose commit i has the parents parents[i] and the
// title "commit i", and gives the commits' hashes.
func newRepo(t testing.TB, parents [][]int) (repo, []string) {
	t.Helper()
	dates := make([]int64, len(parents))
	for i := range dates {
		dates[i] = 1_000_000_000 + int64(i)*60
	}
	return newDatedRepo(t, parents, dates)
}

// newDatedRepo makes one with the commits' dates, too.
func newDatedRepo(t testing.TB, parents [][]int, dates []int64) (repo, []string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Fatal("git is not installed: run lab doctor --install")
	}
	r := repo{t: t, dir: t.TempDir(), env: append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "LC_ALL=C")}
	r.git("", "init", "-q")
	var b strings.Builder
	for i, ps := range parents {
		title := fmt.Sprintf("commit %d", i)
		fmt.Fprintf(&b, "commit refs/heads/c%d\nmark :%d\ncommitter T <t@example.org> %d +0000\ndata %d\n%s\n", i, i+1, dates[i], len(title), title)
		for j, p := range ps {
			if j == 0 {
				fmt.Fprintf(&b, "from :%d\n", p+1)
			} else {
				fmt.Fprintf(&b, "merge :%d\n", p+1)
			}
		}
		if len(ps) == 0 {
			b.WriteString("deleteall\n")
		}
		b.WriteString("\n")
	}
	marks := filepath.Join(r.dir, "marks")
	r.git(b.String(), "fast-import", "--quiet", "--export-marks="+marks)
	data, err := os.ReadFile(marks)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(parents))
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		mark, id, _ := strings.Cut(strings.TrimPrefix(line, ":"), " ")
		n, err := strconv.Atoi(mark)
		if err != nil {
			t.Fatal(err)
		}
		ids[n-1] = id
	}
	r.git("", "checkout", "-q", "--detach", ids[len(ids)-1])
	return r, ids
}

// try runs git and gives what it says.
func (r repo) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r repo) git(stdin string, args ...string) string {
	r.t.Helper()
	out, err := r.try(stdin, args...)
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// candidates lists bad and its ancestors without good's, as a bisection has them.
func (r repo) candidates(good, bad string) []Candidate {
	r.t.Helper()
	var c []Candidate
	index := make(map[string]int)
	for _, line := range strings.Split(strings.TrimSpace(r.git("", "rev-list", "--topo-order", "--reverse", "--parents", bad, "^"+good)), "\n") {
		ids := strings.Fields(line)
		next := Candidate{ID: ids[0]}
		for _, p := range ids[1:] {
			if i, ok := index[p]; ok {
				next.Parents = append(next.Parents, i)
			}
		}
		index[next.ID] = len(c)
		c = append(c, next)
	}
	return c
}

// bisect has git itself bisect, with a script that knows the answers, and gives
// the number of tests and the suspects, sorted; one suspect is the culprit.
func (r repo) bisect(good, bad string, answer map[string]Mark) (tests int, suspects []string) {
	r.t.Helper()
	var script bytes.Buffer
	fmt.Fprintf(&script, "case $(git rev-parse BISECT_HEAD) in\n")
	for id, m := range answer {
		fmt.Fprintf(&script, "%s) exit %d ;;\n", id, map[Mark]int{Good: 0, Bad: 1, Skip: 125}[m])
	}
	script.WriteString("esac\nexit 128\n")
	path := filepath.Join(r.dir, "answer.sh")
	if err := os.WriteFile(path, script.Bytes(), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.git("", "bisect", "start", "--no-checkout", bad, good)
	_, _ = r.try("", "bisect", "run", "sh", path) // fails when only skipped commits are left
	log := r.git("", "bisect", "log")
	r.git("", "bisect", "reset")
	suspects = conclusion(log)
	if len(suspects) == 0 {
		r.t.Fatalf("git came to no conclusion:\n%s", log)
	}
	return strings.Count(log, "\ngit bisect ") - 1, suspects
}

// conclusion reads from a git bisect log which commits are the first bad one,
// or may be, sorted.
func conclusion(log string) []string {
	var ids []string
	for _, line := range strings.Split(log, "\n") {
		for _, prefix := range []string{"# first bad commit: [", "# possible first bad commit: ["} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				id, _, _ := strings.Cut(rest, "]")
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// randomDAG is a history as kernels have them: branches that start somewhere in
// the recent past and are merged, some of them more than once. The last commit is
// built upon all others.
func randomDAG(rnd *rand.Rand, n int) [][]int {
	parents := make([][]int, n)
	heads := []int{0}
	for i := 1; i < n; i++ {
		h := rnd.IntN(len(heads))
		switch k := rnd.IntN(10); {
		case i == n-1:
			slices.Sort(heads)
			parents[i] = slices.Clone(heads)
			return parents
		case k == 0: // a branch
			parents[i] = []int{max(0, i-1-rnd.IntN(20))}
			heads = slices.DeleteFunc(heads, func(head int) bool { return head == parents[i][0] })
			heads = append(heads, i)
		case k <= 2 && len(heads) > 1: // a merge, after which the other branch may go on
			other := (h + 1 + rnd.IntN(len(heads)-1)) % len(heads)
			parents[i] = []int{heads[h], heads[other]}
			heads[h] = i
			if len(heads) > 4 || rnd.IntN(2) == 0 {
				heads = slices.Delete(heads, other, other+1)
			}
		default:
			parents[i] = []int{heads[h]}
			heads[h] = i
		}
	}
	return parents
}

// answers are the marks that tests would give if culprit were the first bad
// commit and the skipped commits did not build.
func answers(c []Candidate, culprit int, skipped map[int]bool) []Mark {
	bad := make([]bool, len(c))
	marks := make([]Mark, len(c))
	for i := range c {
		bad[i] = i == culprit || slices.ContainsFunc(c[i].Parents, func(p int) bool { return bad[p] })
		marks[i] = Good
		if bad[i] {
			marks[i] = Bad
		}
		if skipped[i] {
			marks[i] = Skip
		}
	}
	return marks
}

// simulate searches with Next and the given answers.
func simulate(t testing.TB, c []Candidate, answer []Mark) (history []Tested, last Step) {
	t.Helper()
	marks := make([]Mark, len(c))
	for {
		step := Next(c, marks)
		if step.Conflict != nil {
			t.Fatalf("conflict after %v: %s", history, step.Why)
		}
		if step.Test < 0 {
			return history, step
		}
		if marks[step.Test] != Unknown || step.Test == len(c)-1 {
			t.Fatalf("commit %d is to be tested again", step.Test)
		}
		marks[step.Test] = answer[step.Test]
		history = append(history, Tested{Commit{c[step.Test].ID, ""}, answer[step.Test]})
	}
}

// found gives the hashes of what a search ended with, sorted.
func found(c []Candidate, s Step) []string {
	if s.Culprit >= 0 {
		return []string{c[s.Culprit].ID}
	}
	var ids []string
	for _, i := range s.Suspects {
		ids = append(ids, c[i].ID)
	}
	slices.Sort(ids)
	return ids
}

// byID has the answers by hash, for git.
func byID(c []Candidate, answer []Mark) map[string]Mark {
	m := make(map[string]Mark)
	for i := range c {
		m[c[i].ID] = answer[i]
	}
	return m
}
