package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What a commit is to the bisection, besides one of many.
const (
	isGood    = "good"    // the last commit of the base: everything after it is searched
	isCulprit = "culprit" // the commit that changes the kernel's answer
)

// A change is one commit of the history. The fields are exported because
// their JSON is part of the history's key.
type change struct {
	Branch string // the branch it is made on, "" is main; a new branch leaves main where main is
	Merge  string // the branch that it merges, if it is a merge
	Title  string
	Body   string // as one would write it, without line breaks inside a paragraph; wrapped by message
	Edits  []edit
	Is     string
}

// An edit replaces the one place where Old stands by New. An empty Old makes
// the file with New as its text.
type edit struct{ Path, Old, New string }

// apply gives the file's text after the edit. A kernel in which the place has
// changed, is gone or is not the only one is an error, not a guess.
func (e edit) apply(text string, exists bool) (string, error) {
	if e.Old == "" {
		if exists {
			return "", fmt.Errorf("add %s: this kernel has that file already", e.Path)
		}
		return e.New, nil
	}
	if !exists {
		return "", fmt.Errorf("edit %s: this kernel does not have that file", e.Path)
	}
	if n := strings.Count(text, e.Old); n != 1 {
		return "", fmt.Errorf("edit %s: the text %q stands there %d times, not once: the history does not fit this kernel", e.Path, e.Old, n)
	}
	return strings.Replace(text, e.Old, e.New, 1), nil
}

// A branch is the state that the next commit on it starts from: the mark of its
// last commit and the text of every file that the series edits.
type branch struct {
	mark  int
	files map[string]string
}

// A tree is what a change makes of its branch.
type tree struct {
	branch
	merged  int      // mark of the second parent, 0 if there is none
	changed []string // paths, sorted
}

// apply makes a change on the branches as they are.
func (c change) apply(branches map[string]branch) (tree, error) {
	from, ok := branches[c.Branch]
	if !ok {
		from = branches[""]
	}
	t := tree{branch: branch{mark: from.mark, files: maps.Clone(from.files)}}
	if c.Merge != "" {
		side, ok := branches[c.Merge]
		if !ok {
			return tree{}, fmt.Errorf("merge %s: no such branch", c.Merge)
		}
		t.merged = side.mark
		for _, other := range series {
			if other.Branch != c.Merge {
				continue
			}
			for _, e := range other.Edits {
				t.files[e.Path] = side.files[e.Path]
				t.changed = append(t.changed, e.Path)
			}
		}
	}
	for _, e := range c.Edits {
		old, exists := t.files[e.Path]
		text, err := e.apply(old, exists)
		if err != nil {
			return tree{}, err
		}
		t.files[e.Path] = text
		t.changed = append(t.changed, e.Path)
	}
	slices.Sort(t.changed)
	t.changed = slices.Compact(t.changed)
	return t, nil
}

// message is the commit message, its paragraphs wrapped at 72 columns.
func (c change) message() string {
	var b strings.Builder
	b.WriteString(c.Title + "\n")
	for _, paragraph := range strings.Split(strings.TrimSpace(c.Body), "\n\n") {
		column := 0
		for i, word := range strings.Fields(paragraph) {
			switch {
			case i == 0:
				b.WriteString("\n")
			case column+1+len(word) > 72:
				b.WriteString("\n")
				column = 0
			default:
				b.WriteString(" ")
				column++
			}
			b.WriteString(word)
			column += len(word)
		}
		b.WriteString("\n")
	}
	return b.String()
}
