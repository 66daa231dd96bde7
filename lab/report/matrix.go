package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Matrix is one test over all combinations of what may be around it: kernels,
// images, boot options and the like. As JSON it is a report by itself.
type Matrix struct {
	Format  int          `json:"format"`  // MatrixFormat
	Verdict string       `json:"verdict"` // bad where a cell is, else skip where one could not be judged, else good
	Says    []string     `json:"says"`    // what stands out, in sentences; Tell finds it
	Test    []string     `json:"test"`    // the command; empty for the image's own
	Axes    []MatrixAxis `json:"axes"`
	Cells   []MatrixCell `json:"cells"` // of all combinations, those of the last axis next to each other
	Dir     string       `json:"dir"`   // where the state is
}

// MatrixFormat is the version of the JSON.
const MatrixFormat = 1

// MaxCells is how many a matrix has at most.
const MaxCells = 2048

// A MatrixAxis is one thing that differs from cell to cell.
type MatrixAxis struct {
	Name   string        `json:"name"` // kernel, image, cmdline …
	Noun   string        `json:"-"`    // as people say it: boot option
	Phrase string        `json:"-"`    // how a sentence has a value: with %s
	Values []MatrixValue `json:"values"`
}

// A MatrixValue is one of an axis's.
type MatrixValue struct {
	Title string `json:"title"` // short, and no other of the axis has the same
	Value string `json:"value"` // as it was given
}

// A MatrixCell is what the test said with one value of each axis.
type MatrixCell struct {
	At      []int         `json:"at"` // of each axis the index of its value
	Verdict string        `json:"verdict"`
	Reason  string        `json:"reason"`
	Said    string        `json:"said,omitempty"` // the last line that the test wrote
	Good    int           `json:"good"`           // runs, by their verdicts
	Bad     int           `json:"bad"`
	Skip    int           `json:"skip"`
	Odd     bool          `json:"odd"`           // it differs from most of its row, or column
	Dir     string        `json:"dir,omitempty"` // what the run that is shown saw, below the matrix's
	Boot    time.Duration `json:"boot_ns"`       // that run's
	Test    time.Duration `json:"test_ns"`
	Run     Run           `json:"-"`
}

func (c MatrixCell) isJudged() bool { return c.Verdict == "good" || c.Verdict == "bad" }

// isFlaky tells of a cell whose test failed at times only.
func (c MatrixCell) isFlaky() bool { return c.Good > 0 && c.Bad > 0 }

// word is a cell in a word or two: bad 2/5 of a test that failed twice.
func (c MatrixCell) word() string {
	switch {
	case c.isFlaky():
		return fmt.Sprintf("bad %d/%d", c.Bad, c.Good+c.Bad)
	case c.Verdict == "good" && c.Skip > 0:
		return fmt.Sprintf("good %d/%d", c.Good, c.Good+c.Skip)
	}
	return c.Verdict
}

// title names a cell by the values of the axes that have several.
func (m Matrix) title(c MatrixCell) string {
	var words []string
	for i, a := range m.Axes {
		if len(a.Values) > 1 {
			words = append(words, a.Values[c.At[i]].Title)
		}
	}
	if len(words) == 0 {
		return m.Axes[0].Values[0].Title
	}
	return strings.Join(words, " · ")
}

// shape is what there is: 2 kernels x 3 images = 6 cells.
func (m Matrix) shape() string {
	var words []string
	for _, a := range m.Axes {
		words = append(words, plural(len(a.Values), a.Noun))
	}
	return strings.Join(words, " × ") + " = " + plural(len(m.Cells), "cell")
}

// counts says how many cells came out how.
func (m Matrix) counts() string {
	n := map[string]int{}
	for _, c := range m.Cells {
		n[c.Verdict]++
	}
	var words []string
	for _, v := range []struct{ mark, word string }{{"good", "good"}, {"bad", "bad"}, {"skip", "not judged"}} {
		if n[v.mark] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[v.mark], v.word))
		}
	}
	return strings.Join(words, ", ")
}

// Tell finds out what stands out: Verdict, Says, and Odd of each cell.
func (m *Matrix) Tell() {
	m.Verdict = "good"
	for _, c := range m.Cells {
		if c.Verdict == "bad" || c.Verdict != "good" && m.Verdict == "good" {
			m.Verdict = c.Verdict
		}
	}
	m.Says = m.explain()
	m.grid().markOdd()
}

// plain makes plain text of bounded length of all that is told.
func (m Matrix) plain() Matrix {
	m.Says = each(m.Says, maxFew, func(s string) string {
		return clip(strings.Join(strings.Fields(plainText(s, 16*maxLine)), " "), 8*maxLine)
	})
	m.Test, m.Dir = each(m.Test, maxFew, oneLine), oneLine(m.Dir)
	m.Axes = slices.Clone(m.Axes)
	for i := range m.Axes {
		m.Axes[i].Values = each(m.Axes[i].Values, MaxCells, func(v MatrixValue) MatrixValue {
			return MatrixValue{Title: clip(oneLine(v.Title), 100), Value: oneLine(v.Value)}
		})
	}
	m.Cells = each(m.Cells, MaxCells, func(c MatrixCell) MatrixCell {
		if !c.isJudged() {
			c.Verdict = "skip"
		}
		c.Reason, c.Said, c.Dir = oneLine(c.Reason), oneLine(c.Said), oneLine(c.Dir)
		r := &c.Run
		for _, s := range []*string{&r.Stdout, &r.Stderr, &r.Syslog, &r.Audit, &r.Console} {
			*s = plainText(*s, pageOutput)
		}
		return c
	})
	return m
}

// A grid is how a matrix lies on paper: the values of one axis are its columns, and
// the combinations of all others its rows.
type grid struct {
	rows  []int // the axes that make the rows,
	col   int   // and the one that makes the columns; -1 for none
	lines [][]*MatrixCell
}

// grid lays a matrix out. An axis of one value is neither row nor column. The axis
// whose titles are shortest makes the columns.
func (m Matrix) grid() grid {
	g := grid{col: -1}
	shortest := 0
	for i, a := range m.Axes {
		if len(a.Values) < 2 {
			continue
		}
		g.rows = append(g.rows, i)
		width := 0
		for _, v := range a.Values {
			width += max(8, utf8.RuneCountInString(v.Title))
		}
		if g.col < 0 || width <= shortest {
			g.col, shortest = i, width
		}
	}
	switch len(g.rows) {
	case 0:
		g.rows, g.col = []int{0}, -1
	case 1:
		g.col = -1
	default:
		g.rows = slices.DeleteFunc(g.rows, func(i int) bool { return i == g.col })
	}
	at := map[string]int{} // of a row's values, the line
	for i := range m.Cells {
		c := &m.Cells[i]
		key := fmt.Sprint(pick(c.At, g.rows))
		if _, ok := at[key]; !ok {
			at[key] = len(g.lines)
			g.lines = append(g.lines, nil)
		}
		g.lines[at[key]] = append(g.lines[at[key]], c)
	}
	return g
}

func pick(at, axes []int) []int {
	var list []int
	for _, a := range axes {
		list = append(list, at[a])
	}
	return list
}

// markOdd marks the cells whose verdict few others have of their row, or column, or
// of both together where neither is long enough to tell.
func (g grid) markOdd() {
	for y, line := range g.lines {
		for x, c := range line {
			var column []*MatrixCell
			cross := slices.Clone(line)
			for i, l := range g.lines {
				column = append(column, l[x])
				if i != y {
					cross = append(cross, l[x])
				}
			}
			short := len(line) < 3 && len(column) < 3
			c.Odd = c.isJudged() && (isRare(c, line) || isRare(c, column) || short && isRare(c, cross))
		}
	}
}

// isRare tells whether less than half of three cells or more are as one of them is.
func isRare(c *MatrixCell, among []*MatrixCell) bool {
	judged, same := 0, 0
	for _, o := range among {
		if o.isJudged() {
			judged++
			if o.Verdict == c.Verdict {
				same++
			}
		}
	}
	return judged > 2 && 2*same < judged
}

// RenderMatrix writes a matrix in one of the forms text, json, junit, html and md.
func RenderMatrix(m Matrix, form string) ([]byte, error) {
	m = m.plain()
	switch form {
	case FormText:
		return []byte(m.Text(false)), nil
	case FormMarkdown:
		return m.markdown(), nil
	case FormHTML:
		return m.html()
	case FormJSON:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(m); err != nil {
			return nil, fmt.Errorf("encode matrix: %w", err)
		}
		return escape(b.Bytes()), nil
	case FormJUnit:
		return m.junit()
	}
	return nil, fmt.Errorf("matrix form %q is none of %s", form, strings.Join(MatrixForms, ", "))
}

// MatrixForms are those of RenderMatrix.
var MatrixForms = []string{FormText, FormJSON, FormJUnit, FormHTML, FormMarkdown}
