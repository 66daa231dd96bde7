package lab

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"

	"lab/kernel"
	"lab/lab/search"
)

const (
	rangeFile  = "range.jsonl"
	maxRange   = 5_000_000 // commits; Linux has about 1.4 million
	maxCommit  = 8 << 20   // bytes of one of them
	noSuchPart = "%s has no %s yet: start the bisect again with its command, which writes it"
)

// A lineage is who descends from whom in a bisect's range: the candidates behind
// the good ends, up to the bad one, parents first. The bisect leaves it in its
// folder, for who looks on from another terminal, whatever the candidates are
// and whether their repository is at hand.
type lineage struct {
	commits []kernel.Commit
	at      map[string]int // by hash
	parents [][]int        // those that are candidates themselves
}

func newLineage(commits []kernel.Commit) *lineage {
	l := &lineage{commits: commits, at: make(map[string]int, len(commits)), parents: make([][]int, len(commits))}
	for i, c := range commits {
		l.at[c.Hash] = i
		for _, p := range c.Parents {
			if n, ok := l.at[p]; ok {
				l.parents[i] = append(l.parents[i], n)
			}
		}
	}
	return l
}

// ancestors adds to a set of commits all that they are built upon.
func (l *lineage) ancestors(set []bool) {
	for i := len(set) - 1; i >= 0; i-- {
		if set[i] {
			for _, p := range l.parents[i] {
				set[p] = true
			}
		}
	}
}

// descendants adds to a set of commits all that are built upon them.
func (l *lineage) descendants(set []bool) {
	for i := range set {
		for _, p := range l.parents[i] {
			set[i] = set[i] || set[p]
		}
	}
}

// set is the set of the commits of these hashes, as far as they are in the range.
func (l *lineage) set(hashes ...string) []bool {
	s := make([]bool, len(l.commits))
	for _, h := range hashes {
		if i, ok := l.at[h]; ok {
			s[i] = true
		}
	}
	return s
}

// suspects are the commits that may still be the first bad one, as git bisect
// has it: every bad commit is built upon it or is it, and no good one is. The
// last of the range is bad. Where that leaves none, the test fails at times, and
// that it passed says nothing for certain: then only what is good by hand counts.
func (l *lineage) suspects(tests []Tested) []bool {
	left := l.certain(tests)
	if count(left) == 0 {
		left = l.certain(slices.DeleteFunc(slices.Clone(tests), func(t Tested) bool { return t.Mark == Good && !t.ByHand }))
	}
	return left
}

// certain are the suspects where no test is ever wrong.
func (l *lineage) certain(tests []Tested) []bool {
	left := make([]bool, len(l.commits))
	if len(left) == 0 {
		return left
	}
	bads := []int{len(left) - 1}
	var goods []string
	for _, t := range tests {
		i, ok := l.at[t.Commit.Hash]
		switch {
		case ok && t.Mark == Bad && i != bads[0]:
			bads = append(bads, i)
		case t.Mark == Good:
			goods = append(goods, t.Commit.Hash)
		}
	}
	for i := range left {
		left[i] = true
	}
	for _, b := range bads {
		below := make([]bool, len(left))
		below[b] = true
		l.ancestors(below)
		for i := range left {
			left[i] = left[i] && below[i]
		}
	}
	good := l.set(goods...)
	l.ancestors(good)
	for i := range left {
		left[i] = left[i] && !good[i]
	}
	return left
}

// candidates are the commits as the search knows them.
func (l *lineage) candidates() []search.Candidate {
	cs := make([]search.Candidate, len(l.commits))
	for i, c := range l.commits {
		cs[i] = search.Candidate{ID: c.Hash, Parents: l.parents[i]}
	}
	return cs
}

// marks are what a journal says of the candidates, where each verdict is taken
// for certain: the last that is no skip.
func (l *lineage) marks(records []record) []search.Mark {
	marks := make([]search.Mark, len(l.commits))
	for _, r := range records {
		if r.Tested == nil {
			continue
		}
		if i, ok := l.at[r.Tested.Commit.Hash]; ok && (marks[i] == search.Unknown || r.Tested.Mark != Skip) {
			marks[i] = searchMark(r.Tested.Mark)
		}
	}
	marks[len(marks)-1] = search.Bad
	return marks
}

// keepRange leaves the range in the bisect's folder.
func keepRange(dir string, commits []kernel.Commit) error {
	name := filepath.Join(dir, rangeFile)
	if _, err := os.Stat(name); err == nil {
		return nil // of the same bisect, whose range does not change
	}
	out, err := renameio.NewPendingFile(name, renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write range: %w", err)
	}
	defer out.Cleanup()
	w := bufio.NewWriterSize(out, 1<<20)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, c := range commits {
		if err := e.Encode(c); err != nil {
			return fmt.Errorf("write range %s: %w", name, err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write range %s: %w", name, err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write range %s: %w", name, err)
	}
	return nil
}

// readLineage reads the range that a bisect left in its folder.
func readLineage(dir string) (*lineage, error) {
	f, err := os.Open(filepath.Join(dir, rangeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(noSuchPart, dir, rangeFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read range: %w", err)
	}
	defer f.Close()
	commits, err := parseRange(f)
	if err != nil {
		return nil, fmt.Errorf("read range %s: %w; remove it, and the bisect's command writes it again", f.Name(), err)
	}
	return newLineage(commits), nil
}

func parseRange(r io.Reader) ([]kernel.Commit, error) {
	var commits []kernel.Commit
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxCommit)
	for s.Scan() {
		var c kernel.Commit
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(commits)+1, err)
		}
		if c.Hash == "" {
			return nil, fmt.Errorf("line %d: a commit without a hash", len(commits)+1)
		}
		if commits = append(commits, c); len(commits) > maxRange {
			return nil, fmt.Errorf("more than %d commits", maxRange)
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(commits) == 0 {
		return nil, errors.New("there is no commit in it")
	}
	return commits, nil
}
