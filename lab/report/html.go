package report

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"

	"lab/kernel/console"
	"lab/lab/bundle"
)

// MaxHTML is how long a page is at most, in bytes: each of its parts has bounds of
// its own, counted as they are escaped.
const MaxHTML = 1 << 20

// What a page shows of each part at most.
const (
	pageSteps   = 120
	pageNodes   = 150
	pageLog     = 16 << 10
	pagePatch   = 80 << 10
	pageConsole = 80 << 10
	pageOutput  = 16 << 10
	patchLines  = 1000
	headLines   = 80  // of a console, from its beginning,
	tailLines   = 160 // at its end,
	reportLines = 120 // and of each report
	beforeLines = 8   // of an output before the first line that differs,
	afterLines  = 40  // and from there on
)

//go:embed page.html page.css matrix.html matrix.css
var files embed.FS

var (
	pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"short": abbreviate, "seconds": seconds, "plural": plural, "clip": clip,
		"date": func(t time.Time) string { return t.UTC().Format(time.DateOnly) },
	}).ParseFS(files, "page.html", "matrix.html"))
	pageStyle = mustRead("page.css") + graphStyle
)

func mustRead(name string) string {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// A pageLine is a line of a text on the page.
type pageLine struct {
	Number int    // from 1; 0 is a remark on what is left out
	Text   string // not escaped
	Class  string
	Anchor string // where a link leads
}

// A comparison shows one stream of both runs, side by side.
type comparison struct {
	Name      string
	First     int // the first line in which they differ, from 1; 0: they are the same
	Good, Bad []pageLine
}

// A shownConsole shows a console with its reports.
type shownConsole struct {
	Role    string
	Verdict string
	Lines   []pageLine
	Total   int
	Reports []pageReport
}

type pageReport struct {
	Kind, Title, Anchor string
	Fatal               bool
}

// page is a page of HTML that needs nothing but itself: no network, no script. Its
// policy allows the one style sheet that it has, by its digest.
func page(d Document) ([]byte, error) {
	m := &d.Manifest
	m.Images = each(m.Images, maxFew, func(i bundle.Image) bundle.Image {
		i.Reference = clip(i.Reference, maxLine)
		return i
	})
	m.Machine.Modules = m.Machine.Modules[:min(maxFew, len(m.Machine.Modules))]
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	sum := sha256.Sum256([]byte(pageStyle))
	inferred, byHand := d.counts()
	steps := map[string]int{}
	for i, s := range d.Steps {
		steps[s.Commit] = i + 1 // the last
	}
	axis := "commit"
	if bad.Package != nil {
		axis = "kernel"
	}
	view := struct {
		Document
		Policy              string
		Style               template.CSS
		Title, Since, What  string
		Options             []string
		GoodKernel          bundle.Kernel
		BadKernel           bundle.Kernel
		GoodRun, BadRun     bundle.Run
		Axis                string
		Command, Symptom    string
		OnTop               []string
		SVG                 template.HTML
		Compared            []comparison
		Timeline            []pageStep
		Inferred, ByHand    int
		Consoles            []shownConsole
		PatchLines          []pageLine
		HunkLines           []pageLine
		PairLines           []pageLine
		LogLines            []pageLine
		Stat                string
		GoodWord, BadWord   string
		GoodBoots, BadBoots []pageLine
	}{
		Document: d, Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
		Style: template.CSS(pageStyle), Title: d.title(), Since: d.since(), Options: d.options()[:min(maxFew, len(d.options()))], What: symptomWords(m.Symptom), GoodKernel: good, BadKernel: bad, GoodRun: goodRun, BadRun: badRun,
		Axis: axis, Command: command(*m), Symptom: symptom(m.Symptom), OnTop: each(onTopLines(*m), maxFew, oneLine),
		Inferred: inferred, ByHand: byHand, Timeline: timeline(d), GoodWord: d.word("good"), BadWord: d.word("bad"),
		PatchLines: patch(d.Patch, pagePatch), HunkLines: patch(d.Hunks, pageLog), PairLines: fit(numbered(d.Pair), pageLog), LogLines: fit(numbered(lines(d.Log)), pageLog), Stat: diffstat(d.Patch),
		GoodBoots: fit(numbered(lines(d.Good.Command)), pageLog), BadBoots: fit(numbered(lines(d.Bad.Command)), pageLog),
	}
	if len(d.Graph) > 0 {
		view.SVG = template.HTML(drawGraph(d.Graph, axis, d.word, pageNodes, false, func(n Node) string { //nolint:gosec // drawGraph escapes
			if i := steps[n.Hash]; i > 0 && i <= len(view.Timeline) {
				return fmt.Sprintf("#step-%d", i)
			}
			return ""
		}))
	}
	for i, s := range d.Good.streams() {
		if b := d.Bad.streams()[i]; s.text != "" || b.text != "" {
			view.Compared = append(view.Compared, compare(s.name, s.text, b.text))
		}
	}
	for _, c := range []struct {
		run bundle.Run
		Run
	}{{badRun, d.Bad}, {goodRun, d.Good}} {
		if c.Console != "" {
			view.Consoles = append(view.Consoles, consoleOf(c.run.Role, d.word(c.run.Verdict), c.Console, c.Reports))
		}
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, view); err != nil {
		return nil, fmt.Errorf("render HTML: %w", err)
	}
	return b.Bytes(), nil
}

// A pageStep is a step of the timeline.
type pageStep struct {
	Number int // 0 is a remark on what is left out
	Step
	Name, Word, Class, Why, How string
	Narrowed                    int // of a hundred, how much of the range was left
	Remark                      string
}

func timeline(d Document) []pageStep {
	var list []pageStep
	for i, s := range d.Steps {
		if len(d.Steps) > pageSteps && i >= pageSteps/2 && i < len(d.Steps)-pageSteps/2 {
			if i == pageSteps/2 {
				list = append(list, pageStep{Remark: fmt.Sprintf("%d more are in bisect/tested.jsonl of the bundle", len(d.Steps)-pageSteps)})
			}
			continue
		}
		s.Title, s.Reason = clip(s.Title, 120), clip(s.Reason, 200)
		p := pageStep{Number: i + 1, Step: s, Word: d.word(s.Verdict), Class: stateClass(s.Verdict), Why: s.why(), How: s.how()}
		if !strings.HasPrefix(s.Commit, "sha256:") {
			p.Name = abbreviate(s.Commit)
		}
		if d.Range > 0 && s.Left > 0 {
			p.Narrowed = min(100, max(1, 100*s.Left/d.Range))
		}
		list = append(list, p)
	}
	return list
}

// numbered makes lines of a page of a text's.
func numbered(list []string) []pageLine {
	out := make([]pageLine, len(list))
	for i, l := range list {
		out[i] = pageLine{Number: i + 1, Text: clip(l, 400)}
	}
	return out
}

// fit keeps of lines as many as take so many bytes on the page.
func fit(list []pageLine, most int) []pageLine {
	n := 0
	for i, l := range list {
		if n += len(html.EscapeString(l.Text)) + 64; n > most {
			return append(list[:i:i], pageLine{Text: plural(len(list)-i, "more line") + " in the bundle"})
		}
	}
	return list
}

// compare puts two outputs side by side, around the first line in which they
// differ.
func compare(name, good, bad string) comparison {
	g, b := lines(good), lines(bad)
	c := comparison{Name: name}
	at := 0
	for at < len(g) && at < len(b) && g[at] == b[at] {
		at++
	}
	if at < len(g) || at < len(b) {
		c.First = at + 1
	}
	side := func(list []string) []pageLine {
		from, to := max(0, at-beforeLines), min(len(list), at+afterLines)
		if c.First == 0 {
			from, to = max(0, len(list)-afterLines), len(list)
		}
		var out []pageLine
		if from > 0 {
			out = append(out, pageLine{Text: plural(from, "line") + " before, the same in both"})
		}
		if c.First == 0 && from > 0 {
			out[0].Text = plural(from, "line") + " before"
		}
		for i := from; i < to; i++ {
			l := pageLine{Number: i + 1, Text: clip(list[i], 400)}
			if i == at {
				l.Class = "first"
			}
			out = append(out, l)
		}
		if c.First > 0 && at >= len(list) {
			out = append(out, pageLine{Text: "nothing more", Class: "first"})
		}
		if to < len(list) {
			out = append(out, pageLine{Text: plural(len(list)-to, "more line") + " in the bundle"})
		}
		return fit(out, pageOutput)
	}
	c.Good, c.Bad = side(g), side(b)
	return c
}

// consoleOf shows the beginning of a console, its end, and every report on it.
func consoleOf(role, verdict, text string, reports []console.Report) shownConsole {
	list := numbered(each(lines(text), math.MaxInt, strings.TrimSpace))
	c := shownConsole{Role: role, Verdict: verdict, Total: len(list)}
	show := make([]bool, len(list))
	mark := func(from, to int) {
		for i := max(0, from); i < min(to, len(list)); i++ {
			show[i] = true
		}
	}
	mark(0, headLines)
	mark(len(list)-tailLines, len(list))
	next := 0
	for n, r := range reports[:min(maxFew, len(reports))] {
		at, end := findReport(list, lines(r.Text), next)
		if at < 0 {
			continue
		}
		next = end
		anchor := fmt.Sprintf("%s-report-%d", role, n+1)
		list[at].Anchor = anchor
		for i := at; i < end; i++ {
			list[i].Class = "report"
		}
		list[at].Class = "report begins"
		mark(at-beforeLines, min(end, at+reportLines)+beforeLines)
		c.Reports = append(c.Reports, pageReport{Kind: clip(r.Kind, 32), Title: clip(r.Title, 160), Anchor: anchor, Fatal: r.Fatal})
	}
	left := 0
	gap := func() {
		if left > 0 {
			c.Lines = append(c.Lines, pageLine{Text: plural(left, "line") + " left out: see console.log in the bundle"})
		}
		left = 0
	}
	for i, l := range list {
		if !show[i] {
			left++
			continue
		}
		gap()
		c.Lines = append(c.Lines, l)
	}
	gap()
	c.Lines = fit(c.Lines, pageConsole)
	// What did not fit cannot be led to.
	shown := map[string]bool{}
	for _, l := range c.Lines {
		shown[l.Anchor] = true
	}
	for i := range c.Reports {
		if !shown[c.Reports[i].Anchor] {
			c.Reports[i].Anchor = ""
		}
	}
	return c
}

// findReport finds the lines of a report on a console, from a line on: its first,
// and then the others as long as they come in its order, with no more than a few of
// others' between two.
func findReport(list []pageLine, report []string, from int) (at, end int) {
	if len(report) == 0 {
		return -1, 0
	}
	report = each(report, len(list), func(l string) string { return strings.TrimSpace(clip(l, 400)) })
	same := func(i, k int) bool { return report[k] != "" && strings.HasSuffix(list[i].Text, report[k]) }
	for at = from; at < len(list); at++ {
		if !same(at, 0) {
			continue
		}
		end = at + 1
		for i, k := at+1, 1; i < len(list) && k < len(report) && i < end+4; i++ {
			if same(i, k) {
				k++
				end = i + 1
			}
		}
		return at, end
	}
	return -1, 0
}

// patch shows a commit as it is mailed, or a diff.
func patch(text string, most int) []pageLine {
	list := lines(text)
	left := len(list) - min(len(list), patchLines)
	out := make([]pageLine, 0, len(list)-left)
	inDiff := false
	for i, l := range list[:len(list)-left] {
		p := pageLine{Number: i + 1, Text: clip(l, 400)}
		inDiff = inDiff || strings.HasPrefix(l, "diff --git ") || i == 0 && strings.HasPrefix(l, "--- ")
		switch {
		case !inDiff:
		case strings.HasPrefix(l, "diff --git "), strings.HasPrefix(l, "index "), strings.HasPrefix(l, "+++ "), strings.HasPrefix(l, "--- "):
			p.Class = "file"
		case strings.HasPrefix(l, "@@"):
			p.Class = "hunk"
		case strings.HasPrefix(l, "+"):
			p.Class = "add"
		case strings.HasPrefix(l, "-") && l != "-- ":
			p.Class = "del"
		}
		out = append(out, p)
	}
	if left > 0 {
		out = append(out, pageLine{Text: plural(left, "more line") + " in the bundle"})
	}
	return fit(out, most)
}

// diffstat says how much a patch changes.
func diffstat(text string) string {
	files, added, removed := 0, 0, 0
	inDiff := false
	for _, l := range lines(text) {
		switch {
		case strings.HasPrefix(l, "diff --git "):
			inDiff = true
			files++
		case !inDiff, strings.HasPrefix(l, "+++ "), strings.HasPrefix(l, "--- "), l == "-- ":
		case strings.HasPrefix(l, "+"):
			added++
		case strings.HasPrefix(l, "-"):
			removed++
		}
	}
	if files == 0 {
		return ""
	}
	return fmt.Sprintf("%s, +%d −%d", plural(files, "file"), added, removed)
}
