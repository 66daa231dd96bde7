package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"
	"unicode/utf8"
)

// What a matrix's page shows at most: so many cells with what they said, and of
// that so many bytes on the whole page and for one stream.
const (
	shownCells  = 400
	shownBytes  = 400 << 10
	streamBytes = 8 << 10
)

var matrixStyle = pageStyle + mustRead("matrix.css")

// A heatRow is a row of the heat map.
type heatRow struct {
	Heads []heatHead
	Cells []heatCell
}

// A heatHead names a row, or several one below the other.
type heatHead struct {
	Title string
	Span  int
}

type heatCell struct {
	Class, Word, Title, What string
	Anchor                   string // of what is shown of it; empty for nothing
	Odd                      bool
	Took                     string
	Streams                  []shownStream
}

// A shownStream is the end of what a test, or a kernel, wrote.
type shownStream struct {
	Name  string
	Lines []pageLine
}

// html is a page of a matrix that needs nothing but itself, as a bundle's does.
func (m Matrix) html() ([]byte, error) {
	g := m.grid()
	sum := sha256.Sum256([]byte(matrixStyle))
	view := struct {
		Matrix
		Policy, Title, Shape, Counts, Command string
		Style                                 template.CSS
		Corner                                []string
		Head                                  []string
		Single                                [][2]string
		Rows                                  []heatRow
		Shown                                 []heatCell
		Left                                  int
	}{
		Matrix: m, Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
		Style: template.CSS(matrixStyle), Title: m.Says[0], Shape: m.shape(), Counts: m.counts(), Command: shellLine(m.Test),
	}
	if g.col >= 0 {
		for _, v := range m.Axes[g.col].Values {
			view.Head = append(view.Head, v.Title)
		}
	}
	for _, a := range g.rows {
		view.Corner = append(view.Corner, m.Axes[a].Noun)
	}
	for _, a := range m.Axes {
		if len(a.Values) == 1 {
			view.Single = append(view.Single, [2]string{a.Noun, a.Values[0].Title})
		}
	}
	anchors := m.showCells(&view.Shown)
	view.Left = len(m.Cells) - len(view.Shown)
	index := map[*MatrixCell]int{}
	for i := range m.Cells {
		index[&m.Cells[i]] = i
	}
	for y, line := range g.lines {
		row := heatRow{Heads: m.heads(g, y)}
		for _, c := range line {
			h := m.heat(*c)
			h.Anchor = anchors[index[c]]
			row.Cells = append(row.Cells, h)
		}
		view.Rows = append(view.Rows, row)
	}
	var b bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&b, "matrix.html", view); err != nil {
		return nil, fmt.Errorf("render HTML: %w", err)
	}
	return b.Bytes(), nil
}

// heads name a row by what it does not have in common with the one above.
func (m Matrix) heads(g grid, y int) (heads []heatHead) {
	same := func(a, b, upTo int) bool {
		for _, axis := range g.rows[:upTo+1] {
			if g.lines[a][0].At[axis] != g.lines[b][0].At[axis] {
				return false
			}
		}
		return true
	}
	for i, a := range g.rows {
		if y > 0 && same(y, y-1, i) {
			continue
		}
		h := heatHead{Title: m.Axes[a].Values[g.lines[y][0].At[a]].Title, Span: 1}
		for y+h.Span < len(g.lines) && same(y, y+h.Span, i) {
			h.Span++
		}
		heads = append(heads, h)
	}
	return heads
}

func (m Matrix) heat(c MatrixCell) heatCell {
	h := heatCell{Class: c.Verdict, Word: c.word(), Title: m.title(c), What: c.what(), Odd: c.Odd}
	if h.Class != "good" && h.Class != "bad" {
		h.Class = "skip"
	}
	if c.isFlaky() {
		h.Class += " flaky"
	}
	if c.Boot > 0 {
		h.Took = fmt.Sprintf("booted in %s, tested in %s", seconds(c.Boot), seconds(c.Test))
	}
	return h
}

// showCells lists the cells with what they said, those that are not good first, and
// gives their anchors by index.
func (m Matrix) showCells(shown *[]heatCell) map[int]string {
	anchors := map[int]string{}
	budget := min(streamBytes, shownBytes/max(1, min(shownCells, len(m.Cells)))/4)
	for _, verdict := range []string{"bad", "skip", "good"} {
		for i, c := range m.Cells {
			if c.Verdict != verdict || len(*shown) == shownCells {
				continue
			}
			h := m.heat(c)
			h.Anchor = fmt.Sprintf("cell-%d", i+1)
			anchors[i] = h.Anchor
			for _, s := range c.Run.streams() {
				h.Streams = append(h.Streams, lastOf(s.name, s.text, budget)...)
			}
			if verdict != "good" {
				h.Streams = append(h.Streams, lastOf("console", c.Run.Console, budget)...)
			}
			*shown = append(*shown, h)
		}
	}
	return anchors
}

// lastOf is the end of a stream; nothing of an empty one.
func lastOf(name, text string, most int) []shownStream {
	all := lines(strings.TrimRight(text, "\n"))
	if len(all) == 0 {
		return nil
	}
	from, n := len(all), 0
	for from > 0 {
		if n += utf8.RuneCountInString(all[from-1])*6 + 64; n > most && from < len(all) {
			break // the longest that escaping makes of it
		}
		from--
	}
	var kept []pageLine
	if from > 0 {
		kept = append(kept, pageLine{Text: plural(from, "line") + " before"})
	}
	return []shownStream{{Name: name, Lines: append(kept, fit(numbered(all[from:]), most)...)}}
}
