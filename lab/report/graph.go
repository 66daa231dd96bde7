package report

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// States of a commit in a graph, beside good, bad and skip.
const (
	StateFirst   = "first bad" // the answer
	StateSuspect = "?"         // may be the first bad one
	StateGood    = "(good)"    // a good one is built upon it
	StateBad     = "(bad)"     // it is built upon a bad one
	StateOut     = "(out)"     // a bad one is not built upon it
)

// A Node is a commit of a graph, which has the newest first.
type Node struct {
	Hash    string `json:"hash"`
	Title   string `json:"title"`
	State   string `json:"state"`             // good, bad, skip, or one of State…
	End     bool   `json:"end,omitempty"`     // the user gave it
	ByHand  bool   `json:"by_hand,omitempty"` // its verdict was given by hand
	Parents []int  `json:"parents,omitempty"` // what it is built upon, by its place in the graph
	// Hidden is how many commits are left out between it and its parents, and
	// Suspects how many of them may be the first bad one.
	Hidden   int `json:"hidden,omitempty"`
	Suspects int `json:"suspects,omitempty"`
}

// The most that is drawn of a graph.
const (
	maxNodes   = 2000
	maxLanes   = 24 // what lies further right shares the last one
	maxParents = 64 // of one commit
)

// plainGraph is the graph with plain text, and with parents that there are and that
// come behind it.
func plainGraph(nodes []Node) []Node {
	nodes = nodes[:min(len(nodes), maxList)]
	out := make([]Node, len(nodes))
	for i, n := range nodes {
		n.Hash, n.Title, n.State = oneLine(n.Hash), oneLine(n.Title), oneLine(n.State)
		n.Hidden, n.Suspects = max(0, n.Hidden), max(0, n.Suspects)
		var parents []int
		for _, p := range n.Parents {
			if p > i && p < len(nodes) && !slices.Contains(parents, p) && len(parents) < maxParents {
				parents = append(parents, p)
			}
		}
		n.Parents = parents
		out[i] = n
	}
	return out
}

// An edge leads from a commit down its lane to one that it is built upon.
type edge struct{ from, to, lane int }

// layout gives each node a lane, a column of the drawing, and the edges theirs. A
// lane leads down to one commit at a time, and is free below it.
func layout(nodes []Node) (column []int, edges []edge) {
	const free = -1
	var lanes []int // what each leads to
	column = make([]int, len(nodes))
	take := func(to int) int {
		i := slices.Index(lanes, free)
		if i < 0 && len(lanes) < maxLanes {
			lanes = append(lanes, to)
			return len(lanes) - 1
		}
		if i < 0 {
			i = len(lanes) - 1
		}
		lanes[i] = to
		return i
	}
	for v, n := range nodes {
		at := slices.Index(lanes, v)
		for i := range lanes {
			if lanes[i] == v {
				lanes[i] = free
			}
		}
		if at < 0 {
			at = take(free)
		}
		column[v] = at
		for i, p := range n.Parents {
			if p >= len(nodes) {
				continue
			}
			lane := slices.Index(lanes, p)
			switch {
			case i == 0: // straight on, also where others lead there too
				lane = at
				lanes[at] = p
			case lane < 0:
				lane = take(p)
			}
			edges = append(edges, edge{v, p, lane})
		}
	}
	return column, edges
}

// Sizes of the drawing, in pixels.
const (
	laneWide = 18
	rowHigh  = 30
	gapHigh  = 24 // of the line that says how many commits are left out
	margin   = 14
	charWide = 7.9 // of the monospaced font at the most
)

//go:embed graph.css
var graphStyle string

// SVG writes the graph as a drawing that stands alone: light or dark, as its viewer
// is set. axis is what the nodes are ("commit"), words what good and bad are called
// where they are not that.
func SVG(w io.Writer, nodes []Node, axis string, words map[string]string) error {
	d := Document{Words: words}
	_, err := io.WriteString(w, drawGraph(plainGraph(nodes), axis, d.word, maxNodes, true, nil)+"\n")
	return err
}

// drawGraph draws at most so many nodes. link gives the address of what there is to
// read on one, or "".
func drawGraph(nodes []Node, axis string, word func(string) string, most int, alone bool, link func(Node) string) string {
	left := len(nodes) - min(len(nodes), most)
	nodes = nodes[:len(nodes)-left]
	column, edges := layout(nodes)
	wide := 1
	for _, c := range column {
		wide = max(wide, c+1)
	}
	for _, e := range edges {
		wide = max(wide, e.lane+1)
	}
	x := func(lane int) int { return margin + lane*laneWide }
	top, rows := margin, make([]int, len(nodes))
	for i, n := range nodes {
		rows[i] = top + rowHigh/2
		if top += rowHigh; n.Hidden > 0 {
			top += gapHigh
		}
	}
	text := x(wide-1) + 18
	pill := 0
	longest := 0
	for _, n := range nodes {
		pill = max(pill, len([]rune(stateWords(n.State, word))))
		longest = max(longest, len([]rune(graphTitle(n))))
	}
	pillWide := int(float64(pill)*charWide) + 16
	titleAt := text + pillWide + 10
	width := titleAt + int(float64(13+longest)*charWide) + margin
	if left > 0 {
		top += rowHigh
	}
	height := top + margin

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="graph" role="img" aria-label="%s" width="%d" height="%d" viewBox="0 0 %d %d">`,
		html.EscapeString("the "+axis+"s, the newest first, with their verdicts"), width, height, width, height)
	if alone {
		fmt.Fprintf(&b, "\n<style>%s</style>\n<rect class=\"ground\" width=\"100%%\" height=\"100%%\"/>", graphStyle)
	}
	for _, e := range edges {
		class := "edge"
		if nodes[e.from].Hidden > 0 {
			class = "edge hidden"
		}
		fmt.Fprintf(&b, "\n<path class=\"%s\" d=\"%s\"/>", class, curve(x(column[e.from]), rows[e.from], x(e.lane), x(column[e.to]), rows[e.to]))
	}
	for i, n := range nodes {
		kind := stateClass(n.State)
		y := rows[i]
		fmt.Fprintf(&b, "\n<g class=\"node %s\">", kind)
		if n.State == StateFirst {
			fmt.Fprintf(&b, `<circle class="ring" cx="%d" cy="%d" r="10"/>`, x(column[i]), y)
		}
		fmt.Fprintf(&b, `<circle class="dot" cx="%d" cy="%d" r="6"/>`, x(column[i]), y)
		fmt.Fprintf(&b, `<rect class="pill" x="%d" y="%d" width="%d" height="20" rx="10"/>`, text, y-10, pillWide)
		fmt.Fprintf(&b, `<text class="state" x="%d" y="%d" text-anchor="middle">%s</text>`, text+pillWide/2, y+4, html.EscapeString(stateWords(n.State, word)))
		to := ""
		if link != nil {
			to = link(n)
		}
		if to != "" {
			fmt.Fprintf(&b, `<a href="%s">`, html.EscapeString(to))
		}
		title := html.EscapeString(graphTitle(n))
		if !strings.HasPrefix(n.Hash, "sha256:") {
			title = fmt.Sprintf(`<tspan class="hash">%s</tspan> %s`, html.EscapeString(abbreviate(n.Hash)), title)
		}
		fmt.Fprintf(&b, `<text class="title" x="%d" y="%d">%s</text>`, titleAt, y+4, title)
		if to != "" {
			b.WriteString("</a>")
		}
		fmt.Fprintf(&b, "<title>%s</title></g>", html.EscapeString(clip(n.Hash, 80)+" "+clip(n.Title, 80)))
		if n.Hidden > 0 {
			fmt.Fprintf(&b, "\n<text class=\"gap\" x=\"%d\" y=\"%d\">%s</text>", text+8, y+rowHigh/2+gapHigh/2+4, html.EscapeString(hiddenWords(n, axis, word)))
		}
	}
	if left > 0 {
		fmt.Fprintf(&b, "\n<text class=\"gap\" x=\"%d\" y=\"%d\">%s older ones are not drawn</text>", text+8, height-margin-rowHigh/2+4, plural(left, axis))
	}
	b.WriteString("\n</svg>")
	return b.String()
}

// curve leads from one node to another by a lane.
func curve(x1, y1, lane, x2, y2 int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "M%d %d", x1, y1)
	y := y1
	if lane != x1 {
		y = min(y1+rowHigh, y2)
		fmt.Fprintf(&b, " C%d %d %d %d %d %d", x1, (y1+y)/2, lane, (y1+y)/2, lane, y)
	}
	if x2 != lane {
		down := max(y, y2-rowHigh)
		if down > y {
			fmt.Fprintf(&b, " V%d", down)
		}
		fmt.Fprintf(&b, " C%d %d %d %d %d %d", lane, (down+y2)/2, x2, (down+y2)/2, x2, y2)
	} else if y2 > y {
		fmt.Fprintf(&b, " V%d", y2)
	}
	return b.String()
}

// graphTitle is the title as it is drawn.
func graphTitle(n Node) string {
	title := clip(n.Title, 64)
	if n.End {
		title += "  [end]"
	}
	if n.ByHand {
		title += "  [by hand]"
	}
	return title
}

// stateClass is a state as the style sheet knows it.
func stateClass(state string) string {
	switch state {
	case "good", "bad", "skip":
		return state
	case StateFirst:
		return "bad first"
	case StateGood:
		return "good implied"
	case StateBad:
		return "bad implied"
	case StateSuspect:
		return "suspect"
	}
	return "out"
}

// stateWords says a state in the bisect's words.
func stateWords(state string, word func(string) string) string {
	switch state {
	case "good", "bad":
		return word(state)
	case StateFirst:
		return "first " + word("bad")
	case StateGood:
		return "(" + word("good") + ")"
	case StateBad:
		return "(" + word("bad") + ")"
	}
	return clip(state, 12)
}

// hiddenWords tells of the commits that are left out below a node.
func hiddenWords(n Node, axis string, word func(string) string) string {
	s := plural(n.Hidden, axis)
	switch {
	case n.Suspects == 0:
	case n.Suspects >= n.Hidden:
		s += ", any of which may be the first " + word("bad") + " one"
	default:
		s += fmt.Sprintf(", %d of which may be the first %s one", n.Suspects, word("bad"))
	}
	return s
}
