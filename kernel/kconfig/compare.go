package kconfig

import (
	"fmt"
	"maps"
	"slices"
)

// Difference is a symbol that did not survive.
type Difference struct {
	Symbol    string `json:"symbol"`        // without CONFIG_
	Requested string `json:"requested"`     // as in Config
	Resolved  string `json:"resolved"`      // "" when the resolved configuration does not mention it
	Why       string `json:"why,omitempty"` // as Tree.Explain tells
}

// String says it in one line: "CONFIG_AUDIT: asked for y, is absent: it depends
// on NET, and NET is not set".
func (d Difference) String() string {
	resolved := d.Resolved
	if resolved == "" {
		resolved = "absent"
	}
	s := fmt.Sprintf("CONFIG_%s: asked for %s, is %s", d.Symbol, d.Requested, resolved)
	if d.Why != "" {
		s += ": " + d.Why
	}
	return s
}

// Compare names every symbol of a request that has another value, or none, in
// the configuration that Kconfig made of it, sorted by name. What the request
// does not mention is Kconfig's to choose. A symbol asked to be off, or to be
// an empty string, may as well be absent.
func Compare(requested, resolved Config) []Difference {
	var lost []Difference
	for _, symbol := range slices.Sorted(maps.Keys(requested)) {
		want, got := requested[symbol], resolved[symbol]
		if want == got || got == "" && (want == "n" || want == `""`) {
			continue
		}
		lost = append(lost, Difference{Symbol: symbol, Requested: want, Resolved: got})
	}
	return lost
}
