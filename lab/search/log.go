package search

import (
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

// History is a bisection from its start to where it is now.
type History struct {
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
	comment("bad", h.Bad)
	for _, c := range h.Good {
		comment("good", c)
	}
	fmt.Fprintf(&b, "git bisect start '%s'", h.Bad.ID)
	for _, c := range h.Good {
		fmt.Fprintf(&b, " '%s'", c.ID)
	}
	b.WriteString("\n")
	for _, t := range h.Tested {
		if t.Mark == Unknown {
			continue
		}
		comment(t.Mark.String(), t.Commit)
		fmt.Fprintf(&b, "git bisect %s %s\n", t.Mark, t.ID)
	}
	if h.Culprit.ID != "" {
		comment("first bad commit", h.Culprit)
	}
	if len(h.Suspects) > 0 {
		b.WriteString("# only skipped commits left to test\n")
	}
	for _, c := range h.Suspects {
		comment("possible first bad commit", c)
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
