package lab

import (
	"slices"
	"time"

	"lab/kernel"
	"lab/lab/search"
)

// A Status is where a bisect stands.
type Status struct {
	Dir string `json:"dir"`
	Begun
	Running *Holder   `json:"running,omitempty"` // the lab that is at work on it
	Touched time.Time `json:"touched"`           // when something was last recorded

	Tested []Tested `json:"tested"` // the verdicts that count
	Aside  int      `json:"aside"`  // those that do not: taken back, or overruled by hand
	Before int      `json:"before"` // candidates that could be the first bad one before the last verdict,
	Left   int      `json:"left"`   // and that can be now
	Steps  int      `json:"steps"`  // tests to expect until one is left
	Window Window   `json:"window"` // what is left
	Was    Window   `json:"was"`    // what was left before the last verdict

	Ended    bool            `json:"ended"`
	Culprit  *kernel.Commit  `json:"culprit,omitempty"`
	Suspects []kernel.Commit `json:"suspects,omitempty"`
	Unclear  string          `json:"unclear,omitempty"`
	Pair     *Pair           `json:"pair,omitempty"` // of a culprit that is a merge
}

// A Window is between what the first bad commit lies.
type Window struct {
	Good []kernel.Commit `json:"good"` // the newest that are good: none is built upon another
	Bad  []kernel.Commit `json:"bad"`  // the oldest that are bad: none is built upon another
}

// Status tells where the bisect stands.
func (s *Saved) Status() (Status, error) {
	j := s.journal
	st := Status{Dir: j.dir, Begun: s.Begun, Touched: j.events[len(j.events)-1].Time, Tested: s.Tested()}
	var err error
	if st.Running, err = running(j.dir); err != nil {
		return st, err
	}
	for _, e := range j.events {
		if e.Tested != nil {
			st.Aside++
		}
		st.Aside += len(e.Hand)
	}
	st.Aside -= len(st.Tested)
	before := st.Tested
	for i := len(before) - 1; i >= 0; i-- {
		if r := before[i].Role; r == RoleStep || r == RoleHand {
			before = slices.Delete(slices.Clone(before), i, len(before))
			break
		}
	}
	l := j.lineage
	st.Before, st.Left = count(l.suspects(before)), count(l.suspects(st.Tested))
	st.Was, st.Window = l.window(s.Good, s.Bad, before), l.window(s.Good, s.Bad, st.Tested)
	st.Steps = s.steps()
	end := s.ended()
	if end == nil {
		return st, nil
	}
	st.Ended, st.Unclear, st.Steps = true, end.Unclear, 0
	for _, c := range slices.Concat(l.commits, s.sets()) {
		if c.Hash == end.Culprit {
			st.Culprit = &c
		}
		if slices.Contains(end.Suspects, c.Hash) {
			st.Suspects = append(st.Suspects, c)
		}
	}
	st.Pair, err = pairOf(j.dir, end.Culprit)
	return st, err
}

// steps asks the search how many tests it expects.
func (s *Saved) steps() int {
	l := s.journal.lineage
	step := search.Next(l.candidates(), l.marks(s.journal.records))
	if step.Test < 0 {
		return 0
	}
	return step.Steps + 1
}

// window finds the good and the bad that the suspects lie between, of the commits
// that were tested and of the ends.
func (l *lineage) window(ends []kernel.Commit, bad kernel.Commit, tests []Tested) Window {
	goods, bads := map[string]bool{}, map[string]bool{bad.Hash: true}
	for _, t := range tests {
		switch t.Mark {
		case Good:
			goods[t.Commit.Hash] = true
		case Bad:
			bads[t.Commit.Hash] = true
		}
	}
	// below has what a good commit is built upon, above what is built upon a bad one.
	below, above := make([]bool, len(l.commits)), make([]bool, len(l.commits))
	for i, c := range l.commits {
		for _, p := range l.parents[i] {
			below[p] = below[p] || goods[c.Hash]
			above[i] = above[i] || above[p] || bads[l.commits[p].Hash]
		}
	}
	l.ancestors(below)
	var w Window
	covered := map[string]bool{} // parents of what is good
	for i, c := range l.commits {
		if goods[c.Hash] && !below[i] {
			w.Good = append(w.Good, c)
		}
		if bads[c.Hash] && !above[i] {
			w.Bad = append(w.Bad, c)
		}
		if goods[c.Hash] || below[i] {
			for _, p := range c.Parents {
				covered[p] = true
			}
		}
	}
	for _, end := range ends {
		if !covered[end.Hash] {
			w.Good = append(w.Good, end)
		}
	}
	return w
}

// String names the commits of a window, the first few of each side.
func (w Window) String() string {
	side := func(list []kernel.Commit) string {
		var names []string
		for _, c := range list {
			if isPackageHash(c.Hash) {
				names = append(names, c.Title)
			} else {
				names = append(names, short(c.Hash))
			}
		}
		return some(names, 2)
	}
	return side(w.Good) + " and " + side(w.Bad)
}
