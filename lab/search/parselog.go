package search

import (
	"fmt"
	"strings"
	"unicode"
)

// What a log may have at most: far more than any bisection needs.
const (
	mostLog     = 16 << 20
	mostLine    = 64 << 10
	mostCommits = 100_000
)

// ParseLog reads what `git bisect log` prints, or Log. The commits that stand
// before both ends were known are the ends; the others were tested in the order
// of the log. Where `git bisect start` was given names, their hashes are taken
// from the comments above it, as git writes them.
//
// It refuses what `git bisect replay` refuses, and any revision that could be
// taken for an option or has control characters in it; but whether a revision
// exists is for the caller to find out.
func ParseLog(log string) (History, error) {
	if len(log) > mostLog {
		return History{}, fmt.Errorf("read bisect log: it has %d bytes, more than %d", len(log), mostLog)
	}
	p := logParser{titles: map[string]string{}}
	number := 0
	for line := range strings.Lines(log) {
		number++
		if err := p.line(strings.TrimRight(line, "\r\n")); err != nil {
			return History{}, fmt.Errorf("read bisect log: line %d: %w", number, err)
		}
	}
	h, err := p.finish()
	if err != nil {
		return History{}, fmt.Errorf("read bisect log: %w", err)
	}
	return h, nil
}

type logParser struct {
	h        History
	started  bool
	terms    Terms // in use, be they given or implied by the first of them
	comments []logged
	titles   map[string]string
	commits  int
}

// logged is a comment that names a commit: "# what: [id] title".
type logged struct {
	what string
	Commit
}

func (p *logParser) line(s string) error {
	if len(s) > mostLine {
		return fmt.Errorf("it has %d bytes, more than %d", len(s), mostLine)
	}
	if comment, is := strings.CutPrefix(s, "# "); is {
		return p.comment(comment)
	}
	command, is := strings.CutPrefix(s, "git bisect ")
	if !is {
		command, is = strings.CutPrefix(s, "git-bisect ")
	}
	if !is {
		return nil // so does git
	}
	words, err := dequote(command)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return fmt.Errorf("git bisect has no command")
	}
	if words[0] == "start" {
		return p.start(words[1:])
	}
	mark, err := p.mark(words[0])
	if err != nil {
		return err
	}
	if !p.started {
		return fmt.Errorf("%s comes before git bisect start", words[0])
	}
	for _, rev := range words[1:] {
		if err := p.add(mark, rev); err != nil {
			return err
		}
	}
	return nil
}

func (p *logParser) comment(s string) error {
	what, rest, ok := strings.Cut(s, ": [")
	id, title, closed := strings.Cut(rest, "]")
	if !ok || !closed || checkRevision(id) != nil {
		return nil
	}
	if len(p.comments) == 4*mostCommits {
		return fmt.Errorf("more than %d comments that name commits", len(p.comments))
	}
	title = oneLine(strings.TrimPrefix(title, " "))
	p.titles[id] = title
	p.comments = append(p.comments, logged{what, Commit{id, title}})
	return nil
}

// start takes what git bisect start was given: options, the bad commit, good
// ones, paths.
func (p *logParser) start(args []string) error {
	if p.started {
		return fmt.Errorf("a second git bisect start")
	}
	p.started = true
	var revs []string
	for i := 0; i < len(args); i++ {
		arg, value, joined := strings.Cut(args[i], "=")
		switch arg {
		case "--":
			p.h.Paths = append(p.h.Paths, args[i+1:]...)
			i = len(args)
		case "--term-old", "--term-good", "--term-new", "--term-bad":
			if !joined {
				if i++; i == len(args) {
					return fmt.Errorf("%s has no value", arg)
				}
				value = args[i]
			}
			if !isTerm(value) {
				return fmt.Errorf("%q cannot be a term", value)
			}
			if arg == "--term-old" || arg == "--term-good" {
				p.h.Terms.Old = value
			} else {
				p.h.Terms.New = value
			}
		case "--first-parent":
			p.h.FirstParent = true
		case "--no-checkout":
		default:
			if err := checkRevision(args[i]); err != nil {
				return err
			}
			revs = append(revs, args[i])
		}
	}
	if p.h.Terms != (Terms{}) {
		p.h.Terms = p.h.Terms.or("good", "bad")
		p.terms = p.h.Terms
		if p.terms.Old == p.terms.New {
			return fmt.Errorf("both terms are %q", p.terms.Old)
		}
	}
	// The comments above name what the revisions are.
	if above := p.comments; len(revs) > 0 && len(above) == len(revs) {
		for i := range revs {
			revs[i] = above[i].ID
		}
	}
	for i, rev := range revs {
		if i == 0 {
			p.h.Bad.ID = rev
		} else {
			p.h.Good = append(p.h.Good, Commit{ID: rev})
		}
	}
	return nil
}

// mark is what a command says of its commits. The first good or bad, old or new
// decides which pair is meant, where no terms were given.
func (p *logParser) mark(word string) (Mark, error) {
	if word == "skip" {
		return Skip, nil
	}
	if p.terms == (Terms{}) {
		switch word {
		case "good", "bad":
			p.terms = Terms{"good", "bad"}
		case "old", "new":
			p.terms = Terms{"old", "new"}
			p.h.Terms = p.terms
		}
	}
	switch word {
	case p.terms.Old:
		return Good, nil
	case p.terms.New:
		return Bad, nil
	}
	return 0, fmt.Errorf("git bisect %s is no verdict", word)
}

func (p *logParser) add(m Mark, rev string) error {
	if err := checkRevision(rev); err != nil {
		return err
	}
	if p.commits++; p.commits > mostCommits {
		return fmt.Errorf("more than %d commits", mostCommits)
	}
	c := Commit{ID: rev}
	switch {
	case m == Bad && p.h.Bad.ID == "":
		p.h.Bad = c
	case m == Good && (p.h.Bad.ID == "" || len(p.h.Good) == 0):
		p.h.Good = append(p.h.Good, c)
	default:
		p.h.Tested = append(p.h.Tested, Tested{c, m})
	}
	return nil
}

func (p *logParser) finish() (History, error) {
	switch {
	case !p.started:
		return History{}, fmt.Errorf("it has no git bisect start")
	case p.h.Bad.ID == "" || len(p.h.Good) == 0:
		return History{}, fmt.Errorf("it does not say both what is good and what is bad")
	}
	title := func(c *Commit) { c.Title = p.titles[c.ID] }
	title(&p.h.Bad)
	for i := range p.h.Good {
		title(&p.h.Good[i])
	}
	for i := range p.h.Tested {
		title(&p.h.Tested[i].Commit)
	}
	first := "first " + p.terms.or("good", "bad").New + " commit"
	for _, c := range p.comments {
		switch c.what {
		case first:
			p.h.Culprit = Commit{c.ID, p.titles[c.ID]}
		case "possible " + first:
			p.h.Suspects = append(p.h.Suspects, Commit{c.ID, p.titles[c.ID]})
		}
	}
	return p.h, nil
}

// checkRevision refuses what cannot be a revision's name, or would not be taken
// for one (git-check-ref-format(1)).
func checkRevision(s string) error {
	switch {
	case s == "" || len(s) > 256:
		return fmt.Errorf("a revision has %d characters", len(s))
	case s[0] == '-':
		return fmt.Errorf("%q is an option, and not a revision", s)
	case strings.Contains(s, "..") || strings.ContainsAny(s, " []'\\*?:") || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar }):
		return fmt.Errorf("%q is not a revision", s)
	}
	return nil
}

// isTerm says whether git would take a word for good or bad; none of its own
// commands is one.
func isTerm(s string) bool {
	switch s {
	case "help", "start", "skip", "next", "reset", "visualize", "view", "replay", "log", "run", "terms":
		return false
	}
	return len(s) > 0 && len(s) <= 64 && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && r != '_' && (r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r))
	}) < 0
}

// dequote splits a command as the shell would that git quotes for: at spaces,
// with '…' and \ taken for what they stand for.
func dequote(s string) ([]string, error) {
	var words []string
	var word []byte
	open := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ' ', '\t':
			if open {
				words = append(words, string(word))
			}
			word, open = word[:0], false
			continue
		case '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("a quote is not closed")
			}
			word = append(word, s[i+1:i+1+end]...)
			i += 1 + end
		case '\\':
			if i++; i == len(s) {
				return nil, fmt.Errorf("it ends with a backslash")
			}
			word = append(word, s[i])
		default:
			word = append(word, c)
		}
		open = true
	}
	if open {
		words = append(words, string(word))
	}
	return words, nil
}
