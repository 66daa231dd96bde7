package lab

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Terms are the words of a bisect for what it calls good and bad, as those of git
// bisect start --term-old and --term-new are, and which way round it looks.
type Terms struct {
	Good string `json:"good"`
	Bad  string `json:"bad"`
	// Fix hunts what repaired it: good is then the state before, with the symptom,
	// and bad the one after, without it. So the search and its records stay what
	// they are, and the first bad commit is the first that is fixed.
	Fix bool `json:"fix,omitempty"`
}

// AsGiven turns the words that the user has for a kernel without the symptom and
// for one with it into those of the bisect; nil where nothing is out of the
// ordinary.
func (t Terms) AsGiven() (*Terms, error) {
	if t == (Terms{}) {
		return nil, nil
	}
	if t.Fix {
		t.Good, t.Bad = cmp.Or(t.Bad, "broken"), cmp.Or(t.Good, "fixed")
	} else {
		t.Good, t.Bad = cmp.Or(t.Good, "good"), cmp.Or(t.Bad, "bad")
	}
	for _, word := range []string{t.Good, t.Bad} {
		if !term.MatchString(word) || slices.Contains(gitsOwn, word) {
			return nil, fmt.Errorf("%q is no word for a verdict: small letters, digits and - are wanted, and none of git bisect's own commands", word)
		}
	}
	// git-bisect(1) refuses these too.
	if t.Good == t.Bad || t.Good == "bad" || t.Good == "new" || t.Bad == "good" || t.Bad == "old" {
		return nil, fmt.Errorf("%s for what is before the change, and %s for what is after it, cannot be told apart or mean the contrary", t.Good, t.Bad)
	}
	return &t, nil
}

var (
	term    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	gitsOwn = strings.Fields("help start skip next reset visualize view replay log run terms undo status")
)

// Word is what a mark is called.
func (t *Terms) Word(m Mark) string {
	switch {
	case t == nil || m == Skip:
		return string(m)
	case m == Good:
		return t.Good
	}
	return t.Bad
}

// Turn makes a verdict on the symptom one of the bisect, and the other way round:
// where a repair is hunted, what is good is what comes after.
func (t *Terms) Turn(m Mark) Mark {
	switch {
	case t == nil || !t.Fix || m == Skip:
		return m
	case m == Good:
		return Bad
	}
	return Good
}

// judge is Judge, by the bisect's terms.
func (b *bisection) judge(t Trial) Verdict {
	v := Judge(t, b.spec.Symptom)
	v.Mark = b.result.Terms.Turn(v.Mark)
	return v
}

// called is what the bisect calls a mark.
func (b *bisection) called(m Mark) string { return b.result.Terms.Word(m) }
