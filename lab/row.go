package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lab/kernel"
)

// A row is candidates in an order of their own: each is the parent of the next.
type row struct {
	what    string // what each of them is: "kernel"
	commits []kernel.Commit
}

func (r *row) add(hash, title string) {
	c := kernel.Commit{Hash: hash, Title: title}
	if n := len(r.commits); n > 0 {
		c.Parents = []string{r.commits[n-1].Hash}
	}
	r.commits = append(r.commits, c)
}

func (r *row) find(hash string) (int, error) {
	i := slices.IndexFunc(r.commits, func(c kernel.Commit) bool { return c.Hash == hash })
	if i < 0 {
		return 0, fmt.Errorf("%s is none of the %ss of this bisect", hash, r.what)
	}
	return i, nil
}

func (r *row) resolve(_ context.Context, hash string) (kernel.Commit, error) {
	i, err := r.find(hash)
	if err != nil {
		return kernel.Commit{}, err
	}
	return r.commits[i], nil
}

// between finds the ends of the bisect, which pick knows by what the user calls
// them, by default the first of the row and the last, and gives the candidates
// from behind the newest good one to the bad one.
func (r *row) between(o BisectOptions, pick func(what string) (int, error), result *Bisection) ([]kernel.Commit, error) {
	bad, last := len(r.commits)-1, 0
	var err error
	if o.Bad != "" {
		if bad, err = pick(o.Bad); err != nil {
			return nil, fmt.Errorf("bad end: %w", err)
		}
	}
	goods := []int{0}
	if len(o.Good) > 0 {
		goods = nil
	}
	for _, what := range o.Good {
		i, err := pick(what)
		if err != nil {
			return nil, fmt.Errorf("good end: %w", err)
		}
		goods = append(goods, i)
	}
	for _, i := range goods {
		if i >= bad {
			return nil, fmt.Errorf("the good %s %s does not come before the bad one %s: are the two swapped?", r.what, r.commits[i].Title, r.commits[bad].Title)
		}
		result.Good = append(result.Good, r.commits[i])
		last = max(last, i)
	}
	result.Bad = r.commits[bad]
	result.Range = bad - last
	return r.commits[last+1 : bad+1], nil
}

func (r *row) isAside(string) bool { return false }

func (r *row) words(text string) string {
	return strings.NewReplacer("commit", r.what, "parent", "predecessor").Replace(text)
}

func (r *row) Close() error { return nil }
