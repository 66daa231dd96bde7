package lab

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lab/kernel"
	"lab/lab/search"
)

// Begun is what a bisect's folder says of how it began, for who looks on from
// another terminal.
type Begun struct {
	Axis        string          `json:"axis"` // what the candidates are: "commit", "kernel"
	Good        []kernel.Commit `json:"good"`
	Bad         kernel.Commit   `json:"bad"`
	Range       int             `json:"range"`
	Repo        string          `json:"repo,omitempty"`     // a folder or a URL
	Packages    []Package       `json:"packages,omitempty"` // the ready-made kernels
	Test        []string        `json:"test,omitempty"`     // the container's command; empty is the image's own
	Symptom     Symptom         `json:"symptom"`
	Terms       *Terms          `json:"terms,omitempty"`
	FirstParent bool            `json:"first_parent,omitempty"`
	Paths       []string        `json:"paths,omitempty"`
	Command     []string        `json:"command,omitempty"` // with which it goes on,
	Folder      string          `json:"folder,omitempty"`  // in this folder
}

// OfSets tells whether what is bisected are sets, which are in no order: of
// settings, or of a commit's hunks.
func (b Begun) OfSets() bool { return b.Axis == "setting" || b.Axis == "hunk" }

// begun describes the bisect for its journal.
func (b *bisection) begun(o BisectOptions) (*Begun, error) {
	folder, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working folder: %w", err)
	}
	test, repo := o.Spec.Test.Command, o.Spec.Kernel.Repo
	if c := o.Spec.Command; c != nil {
		test = []string{c.String()}
	}
	if isPackageHash(b.result.Bad.Hash) {
		repo = "" // of the one kernel, at most
	}
	if repo != "" && !kernel.IsURL(repo) {
		if repo, err = filepath.Abs(repo); err != nil {
			return nil, fmt.Errorf("find %s: %w", o.Spec.Kernel.Repo, err)
		}
	}
	return &Begun{
		Axis: b.words("commit"), Good: b.result.Good, Bad: b.result.Bad, Range: b.result.Range, Repo: repo, Packages: b.result.Kernels,
		Terms: b.result.Terms, FirstParent: o.FirstParent, Paths: o.Paths,
		Test: test, Symptom: o.Spec.Symptom, Command: o.Command, Folder: folder,
	}, nil
}

// A BisectDir is a folder in which a bisect keeps its state.
type BisectDir struct {
	Dir     string    `json:"dir"`
	Touched time.Time `json:"touched"` // when something was last recorded
	Ended   bool      `json:"ended"`   // it has its answer
	Running bool      `json:"running"`
}

// Bisects finds the bisects below the folder for state, the last touched first.
func (l *Lab) Bisects() ([]BisectDir, error) {
	files, err := filepath.Glob(filepath.Join(l.State, "bisects", "*", journalFile))
	if err != nil {
		return nil, fmt.Errorf("find bisects: %w", err)
	}
	var list []BisectDir
	for _, name := range files {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("find bisects: %w", err)
		}
		d := BisectDir{Dir: filepath.Dir(name), Touched: info.ModTime()}
		if holder, err := running(d.Dir); err == nil {
			d.Running = holder != nil
		}
		if s, err := OpenSaved(d.Dir); err == nil {
			d.Ended = s.ended() != nil
			walk := len(s.Good) == 0 // the search for a good end, whose bisect is another folder
			s.Close()
			if walk && !d.Running {
				continue
			}
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b BisectDir) int {
		return cmp.Or(b.Touched.Compare(a.Touched), cmp.Compare(a.Dir, b.Dir))
	})
	return list, nil
}

// A Saved is a bisect as its folder has it. Another lab may be at work on it.
type Saved struct {
	Begun
	journal *journal
}

// OpenSaved opens a bisect's folder to look at it.
func OpenSaved(dir string) (*Saved, error) { return openSaved(dir, os.O_RDONLY) }

// EditSaved opens a bisect's folder to add to what it knows. The lab that is at
// work on the bisect, if there is one, sees it before its next step.
func EditSaved(dir string) (*Saved, error) { return openSaved(dir, os.O_RDWR) }

func openSaved(dir string, flags int) (*Saved, error) {
	j, err := loadJournal(dir, flags)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no bisect in %s: it has no %s", dir, journalFile)
	}
	if err != nil {
		return nil, err
	}
	if len(j.events) == 0 || j.events[0].Begun == nil {
		j.Close()
		return nil, fmt.Errorf("the bisect in %s has not begun: start it again with its command", dir)
	}
	s := &Saved{Begun: *j.events[0].Begun, journal: j}
	if j.lineage, err = readLineage(dir); err != nil {
		j.Close()
		return nil, err
	}
	j.settle()
	return s, nil
}

// Close gives the folder back.
func (s *Saved) Close() error { return s.journal.Close() }

// Dir is the folder.
func (s *Saved) Dir() string { return s.journal.dir }

// Tested are the verdicts that count, in the order in which they were found.
func (s *Saved) Tested() []Tested { return tests(s.journal.records) }

func tests(records []record) []Tested {
	var list []Tested
	for _, r := range records {
		if r.Tested != nil {
			list = append(list, *r.Tested)
		}
	}
	return list
}

// ended is the answer, where there is one.
func (s *Saved) ended() *record {
	if n := len(s.journal.records); n > 0 && s.journal.records[n-1].Event == eventEnd {
		return &s.journal.records[n-1]
	}
	return nil
}

// Log is what git bisect log would print, so that git bisect replay goes on
// from there; empty where the candidates are no commits.
func (s *Saved) Log() string {
	if isPackageHash(s.Bad.Hash) {
		return ""
	}
	r := Bisection{Good: s.Good, Bad: s.Bad, Terms: s.Terms, FirstParent: s.FirstParent, Paths: s.Paths}
	if end := s.ended(); end != nil {
		if i, ok := s.journal.lineage.at[end.Culprit]; ok {
			r.Culprit = &s.journal.lineage.commits[i]
		}
		for _, hash := range end.Suspects {
			if i, ok := s.journal.lineage.at[hash]; ok {
				r.Suspects = append(r.Suspects, s.journal.lineage.commits[i])
			}
		}
	}
	return bisectLog(r, s.Tested())
}

// bisectLog renders what was found of commits as git bisect log does. The ends
// stand in its first lines. Paths do not: git would not look at other commits at
// all, one of which the answer may be.
func bisectLog(r Bisection, tests []Tested) string {
	h := search.History{Bad: logged(r.Bad), FirstParent: r.FirstParent}
	if r.Terms != nil {
		h.Terms = search.Terms{Old: r.Terms.Good, New: r.Terms.Bad}
	}
	for _, c := range r.Good {
		h.Good = append(h.Good, logged(c))
	}
	isEnd := func(hash string) bool {
		return hash == r.Bad.Hash || slices.ContainsFunc(r.Good, func(c kernel.Commit) bool { return c.Hash == hash })
	}
	for _, t := range tests {
		if t.Role == RoleStep || t.Role == RoleHand && !isEnd(t.Commit.Hash) {
			h.Tested = append(h.Tested, search.Tested{Commit: logged(t.Commit), Mark: searchMark(t.Mark)})
		}
	}
	if r.Culprit != nil {
		h.Culprit = logged(*r.Culprit)
	}
	for _, c := range r.Suspects {
		h.Suspects = append(h.Suspects, logged(c))
	}
	return search.Log(h)
}

// Events are the lines of the journal, each a JSON object, as docs/formats.md
// describes them: those too that no longer count.
func (s *Saved) Events() ([]byte, error) {
	data, err := os.ReadFile(s.journal.file.Name())
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return data[:min(int64(len(data)), s.journal.size)], nil
}
