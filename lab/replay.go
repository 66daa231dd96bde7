package lab

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"lab/kernel"
	"lab/lab/search"
)

// A Replay is a bisection that git bisect log, or lab bisect log, told of.
type Replay struct {
	Good []string // the ends, as revisions
	Bad  string

	tested []search.Tested
	digest string
}

// ParseReplay reads what git bisect log printed.
func ParseReplay(log []byte) (*Replay, error) {
	h, err := search.ParseLog(string(log))
	if err != nil {
		return nil, err
	}
	r := &Replay{Bad: h.Bad.ID, digest: fmt.Sprintf("sha256:%x", sha256.Sum256(log))}
	for _, c := range h.Good {
		r.Good = append(r.Good, c.ID)
		r.tested = append(r.tested, search.Tested{Commit: c, Mark: search.Good})
	}
	r.tested = append(r.tested, search.Tested{Commit: h.Bad, Mark: search.Bad})
	r.tested = append(r.tested, h.Tested...)
	return r, nil
}

// Replay gives the commits of the range the verdicts that a log has, in one
// event, once. The others, which are behind an end, are left out.
func (s *Saved) Replay(r *Replay, find func(rev string) (kernel.Commit, error)) (Change, error) {
	if slices.ContainsFunc(s.journal.events, func(e record) bool { return e.Replay == r.digest }) {
		return Change{}, nil
	}
	var marks []Tested
	for _, t := range r.tested {
		c, err := find(t.ID)
		if err != nil {
			return Change{}, fmt.Errorf("replay bisect log: %w", err)
		}
		if _, ok := s.journal.lineage.at[c.Hash]; !ok {
			continue
		}
		v := Verdict{Skip, "by hand: so says the bisect log"}
		switch t.Mark {
		case search.Good:
			v.Mark = Good
		case search.Bad:
			v.Mark = Bad
		}
		if c.Hash != s.Bad.Hash || v.Mark != Bad {
			marks = append(marks, Tested{Commit: c, Verdict: v})
		}
	}
	if len(marks) == 0 {
		return Change{}, nil
	}
	return s.Mark(marks, r.digest)
}
