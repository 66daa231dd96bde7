package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"lab/kernel"
)

// A Pair is what does not go together in a merge that is bad although each of its
// parents is good. One of three shapes: Commits set; Resolution set, when what git
// makes of the parents by itself is good; or Unclear, with Suspects where some are
// left.
type Pair struct {
	Merge string `json:"merge"` // full hash
	// Commits are the two that do not go together: of each the first on its side
	// with which the other is bad.
	Commits []kernel.Commit `json:"commits,omitempty"`
	Checks  []Together      `json:"checks,omitempty"` // of the two and of each without the other
	// Resolution is what the merge itself has changed: a diff from what git makes
	// of the parents, of 64 KiB at most.
	Resolution string          `json:"resolution,omitempty"`
	Suspects   []kernel.Commit `json:"suspects,omitempty"`
	Unclear    string          `json:"unclear,omitempty"`
	Tests      int             `json:"tests"` // beside those that found the merge
	Dirs       []string        `json:"dirs"`  // of the bisects that found it, in their order
}

// Together is the verdict on what git merges of two commits.
type Together struct {
	Commits [2]string `json:"commits"` // full hashes
	Verdict
}

const (
	pairFile      = "pair.json"
	pairFolder    = "pair"
	maxResolution = 64 << 10
	mostShown     = 60 // lines of it that are printed
	mostParents   = 6  // of a merge: each two of them are tried
)

// A descent looks for the pair of a merge.
//
// A commit of one side "with" a commit of the other is what git merges of the two
// by itself. So one side's commits are bisected with the other side's last one: that
// finds the first commit with which the other side is bad; then the other side's
// commits are bisected with that one. Each is a bisect of its own, with a folder below the
// first one's, and goes on by itself after a crash.
type descent struct {
	*bisection
	o     BisectOptions
	tree  *kernel.Tree
	pair  *Pair
	known map[string]Tested // what was tested before, by the hash of its tree
}

// findPair goes down into the culprit, a merge of good parents.
func (b *bisection) findPair(ctx context.Context, o BisectOptions) error {
	b.ahead.yield(nil)
	m := *b.result.Culprit
	d := &descent{bisection: b, o: o, tree: b.commitAxis().tree, pair: &Pair{Merge: m.Hash}, known: map[string]Tested{}}
	if c := o.Spec.Command; c != nil && c.NoCheckout {
		d.pair.Unclear = "which two commits do not go together is not looked for where nothing is checked out"
	} else if err := d.find(ctx, m); err != nil {
		return fmt.Errorf("find what does not go together in the merge %s: %w", short(m.Hash), err)
	}
	b.result.Pair = d.pair
	data, err := json.MarshalIndent(d.pair, "", "  ")
	if err != nil {
		return fmt.Errorf("encode pair: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(b.result.Dir, pairFile), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write pair: %w", err)
	}
	return nil
}

func (d *descent) find(ctx context.Context, m kernel.Commit) error {
	d.Progress.Say("%s is a merge, %s, and each of its parents is %s: looking for what does not go together", name(m), d.called(Bad), d.called(Good))
	if err := d.learn(ctx, d.result, d.options); err != nil {
		return err
	}
	if len(m.Parents) > 2 {
		return d.octopus(ctx, m)
	}
	// With the first parent, which it has in it, the merge is what it is.
	return d.descend(ctx, m.Parents[0], []string{m.Parents[0]}, m)
}

// octopus looks for two parents that do not go together by themselves.
func (d *descent) octopus(ctx context.Context, m kernel.Commit) error {
	if len(m.Parents) > mostParents {
		d.pair.Unclear = fmt.Sprintf("it is a merge of %d commits: of more than %d not each two are tried", len(m.Parents), mostParents)
		return nil
	}
	var cannot []string
	for i, onto := range m.Parents {
		for _, side := range m.Parents[i+1:] {
			tip, err := d.resolve(ctx, side)
			if err != nil {
				return err
			}
			bases, err := d.tree.MergeBases(ctx, onto, side)
			if err != nil {
				return err
			}
			if len(bases) == 0 {
				cannot = append(cannot, fmt.Sprintf("%s and %s have no history in common", short(onto), short(side)))
				continue
			}
			d.pair.Unclear = ""
			if err := d.descend(ctx, onto, bases, tip); err != nil || d.pair.Unclear == "" || len(d.pair.Suspects) > 0 {
				return err
			}
			cannot = append(cannot, d.pair.Unclear)
		}
	}
	d.pair.Unclear = fmt.Sprintf("no two of its %d parents are %s by themselves: it takes more of them, or the merge has changes of its own (%s)", len(m.Parents), d.called(Bad), strings.Join(cannot, "; "))
	return nil
}

// descend finds the pair of a commit that is good and another side, whose tip is bad
// with it and whose good ends are not.
func (d *descent) descend(ctx context.Context, onto string, good []string, tip kernel.Commit) error {
	d.Progress.Say("first the one side: its commits with %s", short(onto))
	one, err := d.stage(ctx, onto, good, tip.Hash, false)
	if err != nil {
		return err
	}
	switch {
	case one.Culprit == nil:
		side := tip.Hash
		if side == d.pair.Merge {
			side = tip.Parents[1]
		}
		d.undecided(one, fmt.Sprintf("of the commits on the side of %s, with %s", short(side), short(onto)))
		return nil
	case one.Culprit.Hash == d.pair.Merge:
		return d.resolution(ctx, tip)
	}
	second := *one.Culprit
	d.Progress.Say("then the other: its commits with %s", name(second))
	bases, err := d.tree.MergeBases(ctx, onto, second.Hash)
	if err != nil {
		return err
	}
	if slices.Contains(bases, onto) {
		d.pair.Unclear = fmt.Sprintf("%s is %s by itself, and has %s in it: it was repaired on its own side", name(second), d.called(Bad), short(onto))
		return nil
	}
	other, err := d.stage(ctx, second.Hash, bases, onto, false)
	if err != nil {
		return err
	}
	if other.Culprit == nil {
		d.undecided(other, fmt.Sprintf("%s is the one on its side; of the commits on the side of %s, with it", name(second), short(onto)))
		return nil
	}
	first := *other.Culprit
	d.Progress.Say("and the two the other way round: %s without and with %s", name(first), name(second))
	check, err := d.stage(ctx, first.Hash, second.Parents, second.Hash, true)
	if err != nil {
		return err
	}
	d.checks(other, first, second)
	d.checks(check, second, first)
	if check.Unclear != "" {
		d.pair.Suspects = []kernel.Commit{first, second}
		d.pair.Unclear = fmt.Sprintf("of the two that are left, %s and %s, the second is not what it takes: %s", name(first), name(second), check.Unclear)
		return nil
	}
	d.pair.Commits = []kernel.Commit{first, second}
	return nil
}

// resolution keeps what a merge has changed of what git makes of its parents.
func (d *descent) resolution(ctx context.Context, m kernel.Commit) error {
	own, err := d.made(ctx, m.Parents[1], kernel.BuildOptions{Merge: m.Parents[0]})
	if err != nil {
		return err
	}
	if own == "" {
		d.pair.Unclear = "it is the merge itself: how its conflicts, which git cannot resolve, were resolved"
		return nil
	}
	diff, err := d.tree.MergeDiff(ctx, m.Parents[0], m.Parents[1], m.Hash, maxResolution)
	d.pair.Resolution = strings.ToValidUTF8(string(diff), "?")
	return err
}

// undecided records that a search found no commit, and where that was.
func (d *descent) undecided(found Bisection, where string) {
	d.pair.Suspects = found.Suspects
	d.pair.Unclear = where + ": " + found.Unclear
	for _, t := range found.Tested {
		if t.Mark == Skip {
			d.pair.Unclear += fmt.Sprintf("; %s: %s", short(t.Commit.Hash), t.Reason)
			return // one is enough to see why
		}
	}
}

// checks notes what was seen of a commit with another one, and of its parents.
func (d *descent) checks(found Bisection, of, with kernel.Commit) {
	for i, hash := range append([]string{of.Hash}, of.Parents...) {
		t := lastRun(found.Tested, hash, i == 0)
		twin := func(c Together) bool { return c.Commits == [2]string{with.Hash, hash} }
		if t != nil && !slices.ContainsFunc(d.pair.Checks, twin) {
			d.pair.Checks = append(d.pair.Checks, Together{[2]string{hash, with.Hash}, t.Verdict})
		}
	}
}

// lastRun is the last test of a commit that could be judged; of a test that fails at
// times the last that shows what the commit is.
func lastRun(tests []Tested, hash string, bad bool) *Tested {
	var found *Tested
	for i, t := range tests {
		if t.Commit.Hash == hash && t.Mark != Skip && (found == nil || (t.Mark == Bad) == bad || (found.Mark == Bad) != bad) {
			found = &tests[i]
		}
	}
	return found
}

// learn notes what a bisect has found of its answer and of the parents of that.
func (d *descent) learn(ctx context.Context, found Bisection, on kernel.BuildOptions) error {
	if found.Culprit == nil {
		return nil
	}
	for i, hash := range append([]string{found.Culprit.Hash}, found.Culprit.Parents...) {
		t := lastRun(found.Tested, hash, i == 0)
		if t == nil || (t.Mark == Bad) != (i == 0) {
			continue
		}
		tree, err := d.made(ctx, hash, on)
		if err != nil {
			return err
		}
		if _, known := d.known[tree]; !known && tree != "" {
			of := *t
			if of.Dir != "" {
				of.Dir = filepath.Join(found.Dir, of.Dir)
			}
			d.known[tree] = of
		}
	}
	return nil
}

// made is the hash of the tree that comes of a commit; empty where none does.
func (d *descent) made(ctx context.Context, hash string, on kernel.BuildOptions) (string, error) {
	top, failure, err := d.tree.OnTop(ctx, hash, on)
	if err != nil || failure != nil {
		return "", err
	}
	return d.tree.TreeHash(ctx, top.Commit)
}

// stage bisects the commits up to bad, each merged with onto. What is known of the
// ends is not tested again. With onlyEnds nothing but these are tested, and the bad
// end, which has nothing before it but the good ones, is the answer.
func (d *descent) stage(ctx context.Context, onto string, good []string, bad string, onlyEnds bool) (Bisection, error) {
	folder := filepath.Join(pairFolder, fmt.Sprintf("%.12s-with-%.12s", bad, onto))
	if onlyEnds {
		folder += "-ends"
	}
	o := BisectOptions{
		Spec: d.o.Spec, Good: good, Bad: bad, Terms: d.o.Terms, Dir: filepath.Join(d.result.Dir, folder),
		Confidence: d.o.Confidence, MaxRuns: d.o.MaxRuns, Steady: d.o.Steady, Jobs: d.o.Jobs, Launcher: d.o.Launcher, Command: d.o.Command, Ask: d.o.Ask,
	}
	o.Spec.Kernel.Repo = d.tree.Repository()
	s := newBisection(d.Lab, o)
	defer s.Close()
	if err := s.open(ctx, o); err != nil {
		return Bisection{}, err
	}
	s.onlyEnds, s.options.Merge, s.options.Toolchain, s.result.Images = onlyEnds, onto, d.options.Toolchain, d.result.Images
	commits, err := s.ends(ctx, o, &s.result)
	if err != nil {
		return Bisection{}, err
	}
	if err := s.enter(ctx, o, commits); err != nil {
		return Bisection{}, err
	}
	taken, err := d.handOver(ctx, s)
	if err != nil {
		return Bisection{}, err
	}
	if err := s.hunt(ctx, commits); err != nil {
		return Bisection{}, err
	}
	d.pair.Dirs = append(d.pair.Dirs, folder)
	for _, t := range s.result.Tested {
		known := t.Role == RoleEnd && taken[t.Commit.Hash]
		if t.Inferred == "" && !known {
			d.pair.Tests++
		}
	}
	return s.result, d.learn(ctx, s.result, s.options)
}

// handOver has a stage know what was found before of its ends, and of the parents of the
// bad one, of which the last may be the same files as that. It says of which.
func (d *descent) handOver(ctx context.Context, s *bisection) (taken map[string]bool, err error) {
	taken = map[string]bool{}
	commits := append(slices.Clone(s.result.Good), s.result.Bad)
	for _, hash := range s.result.Bad.Parents {
		c, err := s.resolve(ctx, hash)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
	for _, c := range commits {
		tree, err := d.made(ctx, c.Hash, s.options)
		if err != nil {
			return nil, err
		}
		t, known := d.known[tree]
		if !known || taken[c.Hash] {
			continue
		}
		taken[c.Hash] = true
		if s.journal.tested(c.Hash, RoleEnd) != nil {
			continue // by an earlier run
		}
		t.Commit, t.Role, t.Left, t.Prepared = c, RoleEnd, 0, ""
		if t.Dir != "" {
			if t.Dir, err = filepath.Rel(s.journal.dir, t.Dir); err != nil {
				return nil, fmt.Errorf("take over the test of %s: %w", short(c.Hash), err)
			}
		}
		if err := s.journal.add(record{Event: eventVerdict, Tested: &t}); err != nil {
			return nil, err
		}
	}
	return taken, nil
}

// pairOf reads what was found of the merge that is a bisect's answer; nil while
// nothing is.
func pairOf(dir, culprit string) (*Pair, error) {
	data, err := os.ReadFile(filepath.Join(dir, pairFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pair: %w", err)
	}
	p := &Pair{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("read pair %s: %w; the bisect's command writes it again", filepath.Join(dir, pairFile), err)
	}
	if p.Merge != culprit {
		return nil, nil // of an answer that was taken back
	}
	return p, nil
}

// Text tells the pair in lines.
func (p *Pair) Text(terms *Terms) []string {
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case len(p.Commits) > 0:
		say("two commits that it brings together do not go together:")
		for _, c := range p.Commits {
			say("  %s %s", c.Hash, oneLine(c.Title))
		}
	case p.Resolution != "":
		say("what git makes of its parents by itself is %s; the merge has changed of that:", terms.Word(Good))
		for line := range strings.Lines(p.Resolution) {
			if len(lines) > mostShown {
				say("  …")
				break
			}
			say("  %s", printable(strings.TrimSuffix(line, "\n")))
		}
	default:
		say("which two commits do not go together was not found: %s", p.Unclear)
		for _, c := range p.Suspects {
			say("  %s %s", c.Hash, oneLine(c.Title))
		}
	}
	for _, c := range p.Checks {
		say("  %s with %s %s: %s", short(c.Commits[0]), short(c.Commits[1]), terms.Word(c.Mark), oneLine(c.Reason))
	}
	if p.Tests > 0 {
		say("%s for that", plural(p.Tests, "further test"))
	}
	return lines
}
