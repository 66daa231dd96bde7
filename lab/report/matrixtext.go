package report

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Widths of a table of text, in characters.
const (
	widestRow    = 40
	widestColumn = 22
)

// ink are the colours of a terminal, by verdict: ECMA-48's SGR.
var ink = map[string]string{"good": "\x1b[32m", "bad": "\x1b[1;31m", "skip": "\x1b[33m"}

// Text is a matrix as plain text, for a terminal in colours.
func (m Matrix) Text(colours bool) string {
	m = m.plain()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", m.shape())
	for _, a := range m.Axes {
		if len(a.Values) == 1 {
			fmt.Fprintf(&b, "%s: %s\n", a.Noun, a.Values[0].Title)
		}
	}
	b.WriteString("\n")
	g := m.grid()
	notes := m.table(&b, g, colours)
	b.WriteString("\n")
	for _, n := range notes {
		fmt.Fprintf(&b, "%s\n", n)
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for i, s := range m.Says {
		if i == 0 && colours {
			s = "\x1b[1m" + s + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s\n", s)
	}
	if g.col >= 0 {
		for _, e := range m.evidence() {
			fmt.Fprintf(&b, "  %s: %s\n", e.Verdict, e.What)
			for _, c := range e.where(m, 4) {
				fmt.Fprintf(&b, "    %s\n", c)
			}
		}
	}
	fmt.Fprintf(&b, "%s", m.counts())
	if m.Dir != "" {
		fmt.Fprintf(&b, "; state in %s", m.Dir)
	}
	b.WriteString("\n")
	return b.String()
}

// table writes the cells, and gives what is to be said below them.
func (m Matrix) table(b *strings.Builder, g grid, colours bool) (notes []string) {
	var head []string // of the columns
	if g.col >= 0 {
		for i, v := range m.Axes[g.col].Values {
			head = append(head, v.Title)
			if utf8.RuneCountInString(v.Title) > widestColumn {
				head[i] = fmt.Sprintf("(%d)", i+1)
				notes = append(notes, fmt.Sprintf("(%d) %s", i+1, v.Title))
			}
		}
	}
	widths := make([]int, len(g.rows)) // of what names the rows
	for i, a := range g.rows {
		for _, v := range m.Axes[a].Values {
			widths[i] = max(widths[i], min(widestRow, utf8.RuneCountInString(v.Title)))
		}
	}
	columns := make([]int, max(1, len(head)))
	for i := range columns {
		columns[i] = 8
		if head != nil {
			columns[i] = max(columns[i], utf8.RuneCountInString(head[i]))
		}
	}
	if head != nil {
		for _, w := range widths {
			fmt.Fprintf(b, "%-*s", w+2, "")
		}
		for i, h := range head {
			fmt.Fprint(b, padded(h, columns[i]+2, i == len(head)-1))
		}
		b.WriteString("\n")
	}
	odd := false
	var before []int
	for _, line := range g.lines {
		at := pick(line[0].At, g.rows)
		same := before != nil // what this row has in common with the one above
		for i, a := range g.rows {
			title := clip(m.Axes[a].Values[at[i]].Title, widestRow)
			if same = same && before[i] == at[i]; same {
				title = ""
			}
			fmt.Fprint(b, padded(title, widths[i]+2, false))
		}
		before = at
		for i, c := range line {
			word := strings.Replace(c.word(), "bad", "BAD", 1)
			if c.Odd {
				word, odd = word+"*", true
			}
			last := i == len(line)-1
			text := padded(word, columns[i]+2, last && g.col >= 0)
			if colours {
				text = ink[c.Verdict] + word + "\x1b[0m" + text[len(word):]
			}
			b.WriteString(text)
		}
		if g.col < 0 {
			b.WriteString(line[0].what())
		}
		b.WriteString("\n")
	}
	if odd {
		notes = append(notes, "* differs from most of its row or column")
	}
	return notes
}

// padded fills a text up to a width, but for the last of a line.
func padded(text string, width int, last bool) string {
	if last {
		return text
	}
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// what is a cell's evidence in one line.
func (c MatrixCell) what() string {
	if c.Said == "" || strings.Contains(c.Reason, c.Said) {
		return c.Reason
	}
	return clip(c.Reason+"; it said: "+c.Said, maxLine)
}

// evidence is the same line of one or several cells.
type evidence struct {
	Verdict, What string
	Cells         []MatrixCell
}

// evidence gives that of the cells that are not good, the bad ones first.
func (m Matrix) evidence() (list []evidence) {
	for _, verdict := range []string{"bad", "skip"} {
		for _, c := range m.Cells {
			if c.Verdict != verdict {
				continue
			}
			i := slices.IndexFunc(list, func(e evidence) bool { return e.Verdict == verdict && e.What == c.what() })
			if i < 0 {
				i = len(list)
				list = append(list, evidence{Verdict: verdict, What: c.what()})
			}
			list[i].Cells = append(list[i].Cells, c)
		}
	}
	return list
}

// where names the cells, as many as there is room for.
func (e evidence) where(m Matrix, most int) (titles []string) {
	for i, c := range e.Cells {
		if i == most {
			return append(titles, fmt.Sprintf("and %d more", len(e.Cells)-i))
		}
		titles = append(titles, m.title(c))
	}
	return titles
}

// markdown is for a bug tracker, as the report of a bundle is.
func (m Matrix) markdown() []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, s := range m.Says {
		p("%s\n", code(s))
	}
	p("Test: %s; %s\n", code(shellLine(m.Test)), m.shape())
	g := m.grid()
	p("|%s%s|", strings.Repeat(" |", len(g.rows)-1), m.headCells(g))
	p("|%s", strings.Repeat("---|", len(g.rows)+len(g.lines[0])))
	for _, line := range g.lines {
		row := "|"
		for i, a := range g.rows {
			row += " " + cell(m.Axes[a].Values[pick(line[0].At, g.rows)[i]].Title) + " |"
		}
		for _, c := range line {
			word := c.word()
			if c.Verdict != "good" {
				word = "**" + word + "**"
			}
			if c.Odd {
				word += " \\*"
			}
			if g.col < 0 {
				word += " " + code(c.what())
			}
			row += " " + word + " |"
		}
		p("%s", row)
	}
	if g.col >= 0 {
		p("")
		for _, e := range m.evidence() {
			p("- **%s** %s: %s", e.Verdict, code(e.What), code(strings.Join(e.where(m, 4), "; ")))
		}
	}
	return []byte(b.String())
}

// headCells are the heads of a table's columns in Markdown.
func (m Matrix) headCells(g grid) string {
	if g.col < 0 {
		return " | "
	}
	head := " "
	for _, v := range m.Axes[g.col].Values {
		head += "| " + cell(v.Title) + " "
	}
	return head
}
