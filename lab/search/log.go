package search

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"
)

// Commit is a commit as git bisect log names it.
type Commit struct {
	ID    string // the full hash
	Title string
}

// Tested is one test of a bisection.
type Tested struct {
	Commit
	Mark Mark
}

// Terms are the words for what was before the change and what is after it; empty
// ones are good and bad. With others, Good stands for Old and Bad for New.
type Terms struct{ Old, New string }

func (t Terms) or(old, new string) Terms { return Terms{cmp.Or(t.Old, old), cmp.Or(t.New, new)} }

func (t Terms) word(m Mark) string {
	switch m {
	case Good:
		return t.Old
	case Bad:
		return t.New
	}
	return m.String()
}

// History is a bisection from its start to where it is now.
type History struct {
	Terms       Terms
	FirstParent bool     // only the first parents of merges were followed
	Paths       []string // only commits that touch these were looked at; empty is all

	Bad      Commit
	Good     []Commit
	Tested   []Tested // in the order of the tests
	Culprit  Commit   // the zero Commit while it is not known
	Suspects []Commit // when only skipped commits were left to test
}

// Log renders a history as `git bisect log` does, so that `git bisect replay`
// accepts it. Marks other than Good, Bad and Skip are left out.
func Log(h History) string {
	var b strings.Builder
	comment := func(what string, c Commit) {
		fmt.Fprintf(&b, "# %s: [%s] %s\n", what, c.ID, oneLine(c.Title))
	}
	terms := h.Terms.or("good", "bad")
	comment(terms.New, h.Bad)
	for _, c := range h.Good {
		comment(terms.Old, c)
	}
	b.WriteString("git bisect start")
	if h.Terms != (Terms{}) {
		b.WriteString(" " + quote("--term-old="+terms.Old) + " " + quote("--term-new="+terms.New))
	}
	if h.FirstParent {
		b.WriteString(" '--first-parent'")
	}
	b.WriteString(" " + quote(h.Bad.ID))
	for _, c := range h.Good {
		b.WriteString(" " + quote(c.ID))
	}
	if len(h.Paths) > 0 {
		b.WriteString(" '--'")
	}
	for _, p := range h.Paths {
		b.WriteString(" " + quote(oneLine(p)))
	}
	b.WriteString("\n")
	for _, t := range h.Tested {
		if t.Mark == Unknown {
			continue
		}
		comment(terms.word(t.Mark), t.Commit)
		fmt.Fprintf(&b, "git bisect %s %s\n", terms.word(t.Mark), t.ID)
	}
	if h.Culprit.ID != "" {
		comment("first "+terms.New+" commit", h.Culprit)
	}
	if len(h.Suspects) > 0 {
		b.WriteString("# only skipped commits left to test\n")
	}
	for _, c := range h.Suspects {
		comment("possible first "+terms.New+" commit", c)
	}
	return b.String()
}

// oneLine keeps a title within its comment.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// quote is git's sq_quote: in single quotes, with ' and ! outside of them.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}
