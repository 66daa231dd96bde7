package kconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// longDependency is how many characters of an expression a line has room for.
const longDependency = 100

// Explain says why a symbol that was asked for has another value in the resolved
// configuration, or none: "it depends on NET && INET, and NET is not set". It
// gives "" where the Kconfig files do not tell.
func (t *Tree) Explain(d Difference, resolved Config) string {
	definitions := t.symbols[d.Symbol]
	if len(definitions) == 0 {
		return "this tree has no such symbol"
	}
	if forced := t.forcedBy(d, resolved); forced != "" {
		return forced
	}
	if d.Requested == "n" {
		if !slices.ContainsFunc(definitions, func(d definition) bool { return d.prompt }) {
			return "it cannot be chosen: its value follows from others"
		}
		return ""
	}
	want := yes
	if d.Requested == "m" {
		want = mod
	}
	var told []string
	tell := func(why string) {
		if why != "" && !slices.Contains(told, why) {
			told = append(told, why)
		}
	}
	for _, def := range definitions {
		tell(def.explain(t, d, resolved, want))
	}
	return strings.Join(told, "; or ")
}

// explain says what keeps one definition from giving a symbol its value.
func (d definition) explain(t *Tree, lost Difference, resolved Config, want truth) string {
	if failing := d.depends.blame(resolved, want); len(failing) > 0 {
		return dependency("it depends on", d.depends, failing)
	}
	if !d.prompt {
		return "it cannot be chosen: only another symbol's select, or its own default, turns it on"
	}
	if failing := d.visible.blame(resolved, want); len(failing) > 0 {
		return dependency("it can be chosen if", d.visible, failing)
	}
	if d.choice != 0 {
		for _, other := range slices.Sorted(maps.Keys(t.symbols)) {
			if other != lost.Symbol && resolved[other] == "y" && slices.ContainsFunc(t.symbols[other], func(o definition) bool { return o.choice == d.choice }) {
				return "of its choice " + other + " is taken"
			}
		}
	}
	if all := both(d.depends, d.visible); all.eval(resolved) == unknown {
		return dependency("it depends on", all, []string{"the compiler or the environment does not have that"})
	}
	return ""
}

// dependency words a condition and what of it fails. A condition of one part
// needs no repeating, and a long one is left out.
func dependency(verb string, e *expr, failing []string) string {
	failing = slices.Compact(failing)
	text := e.String()
	if e.op == "" || len(text) > longDependency {
		if e.op == "" {
			return verb + " " + text + ", and " + failing[0]
		}
		return "of what it depends on, " + strings.Join(failing, " and ")
	}
	return verb + " " + text + ", and " + strings.Join(failing, " and ")
}

// forcedBy names who selects a symbol that came out stronger than asked for.
func (t *Tree) forcedBy(d Difference, resolved Config) string {
	rank := map[string]int{"m": 1, "y": 2}
	if rank[d.Resolved] <= rank[d.Requested] || d.Requested != "n" && d.Requested != "m" {
		return ""
	}
	var by []string
	for _, s := range t.forced[d.Symbol] {
		if v := resolved[s.by]; (v == "y" || v == "m") && s.condition.eval(resolved) != no && !slices.Contains(by, s.by) {
			by = append(by, s.by)
		}
	}
	if len(by) == 0 {
		return ""
	}
	slices.Sort(by)
	if len(by) > 3 {
		by = append(by[:3], fmt.Sprintf("%d more", len(by)-3))
	}
	verb := "select"
	if len(by) == 1 {
		verb = "selects"
	}
	return strings.Join(by, ", ") + " " + verb + " it"
}
