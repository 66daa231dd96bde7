package lab

import (
	"slices"
	"strings"

	"lab/kernel"
	"lab/lab/report"
)

// What a picture says of commits that were not tested.
const (
	StateFirst   = report.StateFirst   // the answer
	StateSuspect = report.StateSuspect // may be the first bad one
	StateGood    = report.StateGood    // a good one is built upon it
	StateBad     = report.StateBad     // it is built upon a bad one
	StateOut     = report.StateOut     // a bad one is not built upon it
)

// mostSuspects is how many commits without a verdict the shortened picture has.
const mostSuspects = 16

// A Row is a line of a bisect's picture: a commit, or how many are left out
// between two, or only lines of the graph.
type Row struct {
	Graph    string         `json:"graph"` // as git log --graph draws it
	Commit   *kernel.Commit `json:"commit,omitempty"`
	State    string         `json:"state,omitempty"` // good, bad, skip, or one of State…
	End      bool           `json:"end,omitempty"`   // the user gave it
	Tested   *Tested        `json:"tested,omitempty"`
	Hidden   int            `json:"hidden,omitempty"`   // how many are left out here,
	Suspects int            `json:"suspects,omitempty"` // and how many of them may be the first bad one
}

// picture is what is drawn: the good ends, then the range.
type picture struct {
	*lineage
	keep   []bool
	state  []string
	tested []*Tested
	left   []bool
	goods  int // how many good ends there are
	bad    string
}

// Picture draws the range, the newest first, with what is known of each commit.
// Unless all is set, it is shortened to the ends, the commits that have a
// verdict, and those that are left where these are few.
func (s *Saved) Picture(all bool) []Row {
	p, parents := s.picture(all)
	rows := p.draw(parents)
	for i := range rows {
		if c := rows[i].Commit; c != nil {
			rows[i].End = p.isEnd(c.Hash)
		}
	}
	return rows
}

// Graph is the picture for who draws it otherwise.
func (s *Saved) Graph(all bool) []report.Node {
	p, parents := s.picture(all)
	hidden, suspects := p.hidden()
	var nodes []report.Node
	place := make([]int, len(p.commits))
	for v := len(p.commits) - 1; v >= 0; v-- {
		if p.keep[v] {
			place[v] = len(nodes)
			c, t := p.commits[v], p.tested[v]
			nodes = append(nodes, report.Node{
				Hash: c.Hash, Title: c.Title, State: p.state[v], End: p.isEnd(c.Hash), ByHand: t != nil && t.ByHand,
				Hidden: hidden[v], Suspects: suspects[v],
			})
		}
	}
	for v, list := range parents {
		for _, q := range list {
			if p.keep[v] {
				n := &nodes[place[v]]
				n.Parents = append(n.Parents, place[q])
			}
		}
	}
	return nodes
}

// picture finds what is drawn, and by place what each commit of it is drawn to be
// built upon.
func (s *Saved) picture(all bool) (*picture, [][]int) {
	p := &picture{lineage: newLineage(slices.Concat(s.Good, s.journal.lineage.commits))}
	n := len(p.commits)
	p.goods, p.bad = len(s.Good), s.Bad.Hash
	p.keep, p.state, p.tested = make([]bool, n), make([]string, n), make([]*Tested, n)
	tests := s.Tested()
	for i := range tests {
		t := &tests[i]
		if at, ok := p.at[t.Commit.Hash]; ok && (p.tested[at] == nil || t.Role == RoleStep || t.Role == RoleHand) {
			p.tested[at] = t
		}
	}
	p.judge(s, tests)
	few := count(p.left) <= mostSuspects
	for i := range p.keep {
		p.keep[i] = all || i < len(s.Good) || i == n-1 || p.tested[i] != nil || p.state[i] == StateFirst || few && p.left[i]
	}
	parents := p.parents
	if !all {
		parents = p.reduced()
	}
	return p, parents
}

// isEnd tells whether the user gave a commit.
func (p *picture) isEnd(hash string) bool { return p.at[hash] < p.goods || hash == p.bad }

// judge finds every commit's state.
func (p *picture) judge(s *Saved, tests []Tested) {
	var goods, bads []string
	for _, c := range s.Good {
		goods = append(goods, c.Hash)
	}
	for _, t := range tests {
		switch t.Mark {
		case Good:
			goods = append(goods, t.Commit.Hash)
		case Bad:
			bads = append(bads, t.Commit.Hash)
		}
	}
	below, above := p.set(goods...), p.set(append(bads, s.Bad.Hash)...)
	p.ancestors(below)
	p.descendants(above)
	p.left = slices.Concat(make([]bool, len(s.Good)), s.journal.lineage.suspects(tests))
	end := s.ended()
	for i, c := range p.commits {
		switch {
		case end != nil && end.Culprit == c.Hash:
			p.state[i] = StateFirst
		case p.tested[i] != nil:
			p.state[i] = string(p.tested[i].Mark)
		case i < len(s.Good):
			p.state[i] = string(Good)
		case p.left[i]:
			p.state[i] = StateSuspect
		case below[i]:
			p.state[i] = StateGood
		case above[i]:
			p.state[i] = StateBad
		default:
			p.state[i] = StateOut
		}
	}
}

// reduced gives the graph of the commits that are kept: each has as parents the
// next ones kept that it is built upon, without those that another of them is
// built upon.
func (p *picture) reduced() [][]int {
	next := make([][]int, len(p.commits)) // the kept ones that a commit is, or is built upon
	over := map[int]map[int]bool{}        // by kept commit, all kept ones that it is built upon
	parents := make([][]int, len(p.commits))
	for i := range p.commits {
		var list []int
		for _, q := range p.parents[i] {
			for _, k := range next[q] {
				if !slices.Contains(list, k) {
					list = append(list, k)
				}
			}
		}
		if len(list) > 1 {
			whole := slices.Clone(list)
			list = slices.DeleteFunc(list, func(k int) bool {
				return slices.ContainsFunc(whole, func(other int) bool { return over[other][k] })
			})
		}
		if !p.keep[i] {
			next[i] = list
			continue
		}
		next[i], parents[i] = []int{i}, list
		over[i] = map[int]bool{}
		for _, k := range list {
			over[i][k] = true
			for b := range over[k] {
				over[i][b] = true
			}
		}
	}
	return parents
}

// hidden counts for each kept commit those that are left out below it.
func (p *picture) hidden() (all, suspects map[int]int) {
	all, suspects = map[int]int{}, map[int]int{}
	owner := make([]int, len(p.commits))
	for i := len(owner) - 1; i >= 0; i-- {
		if p.keep[i] {
			owner[i] = i
		} else {
			all[owner[i]]++
			if p.left[i] {
				suspects[owner[i]]++
			}
		}
		for _, q := range p.parents[i] {
			if !p.keep[q] {
				owner[q] = owner[i] // the oldest that is built upon it
			}
		}
	}
	return all, suspects
}

// draw makes the rows. A lane is a column of the graph, and holds the commit
// that it leads down to.
func (p *picture) draw(parents [][]int) []Row {
	var rows []Row
	var lanes []int
	line := func(put func(cells []byte)) string {
		cells := []byte(strings.Repeat(" ", 2*len(lanes)+2))
		for k := range lanes {
			cells[2*k] = '|'
		}
		put(cells)
		return strings.TrimRight(string(cells), " ")
	}
	hidden, suspects := p.hidden()
	for v := len(p.commits) - 1; v >= 0; v-- {
		if !p.keep[v] {
			continue
		}
		at := slices.Index(lanes, v)
		if at < 0 {
			at = len(lanes)
			lanes = append(lanes, v)
		}
		for j := len(lanes) - 1; j > at; j-- { // lanes that lead here too
			if lanes[j] != v {
				continue
			}
			rows = append(rows, Row{Graph: line(func(cells []byte) {
				for k := at + 1; k < j; k++ {
					cells[2*k-1] = '_'
				}
				cells[2*j-1], cells[2*j] = '/', ' '
				for k := j + 1; k < len(lanes); k++ {
					cells[2*k-1], cells[2*k] = '/', ' '
				}
			})})
			lanes = slices.Delete(lanes, j, j+1)
		}
		rows = append(rows, Row{Graph: line(func(cells []byte) { cells[2*at] = '*' }), Commit: &p.commits[v], State: p.state[v], Tested: p.tested[v]})
		if n := hidden[v]; n > 0 {
			rows = append(rows, Row{Graph: line(func(cells []byte) { cells[2*at] = ':' }), Hidden: n, Suspects: suspects[v]})
		}
		if len(parents[v]) == 0 {
			if at < len(lanes)-1 {
				rows = append(rows, Row{Graph: line(func(cells []byte) {
					cells[2*at] = ' '
					for k := at + 1; k < len(lanes); k++ {
						cells[2*k-1], cells[2*k] = '/', ' '
					}
				})})
			}
			lanes = slices.Delete(lanes, at, at+1)
			continue
		}
		lanes[at] = parents[v][0]
		for _, q := range parents[v][1:] {
			rows = append(rows, Row{Graph: line(func(cells []byte) {
				cells[2*at+1] = '\\'
				for k := at + 1; k < len(lanes); k++ {
					cells[2*k], cells[2*k+1] = ' ', '\\'
				}
			})})
			lanes = slices.Insert(lanes, at+1, q)
		}
	}
	return rows
}
