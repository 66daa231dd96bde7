package kconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Change is a symbol that has another value in one resolved configuration than
// in another.
type Change struct {
	Symbol string `json:"symbol"` // without CONFIG_
	Was    string `json:"was"`    // "" for absent or off
	Is     string `json:"is"`     // likewise
}

// String says it in a few characters: "AUDIT n -> y".
func (c Change) String() string {
	off := func(value string) string {
		if value == "" {
			return "n"
		}
		return value
	}
	return c.Symbol + " " + off(c.Was) + " -> " + off(c.Is)
}

// Drift names, sorted, the symbols that differ between two resolved
// configurations of the same request: what another commit's Kconfig makes of it.
// A symbol that is off and one that is not there are the same to whatever is
// compiled, so that symbols that come and go without being set are no drift.
func Drift(pin, is Config) []Change {
	var changes []Change
	on := func(value string) string {
		if value == "n" {
			return ""
		}
		return value
	}
	symbols := maps.Clone(pin)
	if symbols == nil {
		symbols = Config{}
	}
	maps.Copy(symbols, is)
	for _, symbol := range slices.Sorted(maps.Keys(symbols)) {
		if c := (Change{symbol, on(pin[symbol]), on(is[symbol])}); c.Was != c.Is {
			changes = append(changes, c)
		}
	}
	return changes
}

// Brief says a drift in one line: those that were on and are off first, since
// they are what a test may miss, then those that have another value, then new
// ones; no more than most of them.
func Brief(drift []Change, most int) string {
	rank := func(c Change) int {
		switch {
		case c.Is == "":
			return 0
		case c.Was != "":
			return 1
		}
		return 2
	}
	ordered := slices.Clone(drift)
	slices.SortStableFunc(ordered, func(a, b Change) int { return rank(a) - rank(b) })
	var parts []string
	for _, c := range ordered[:min(most, len(ordered))] {
		parts = append(parts, c.String())
	}
	if more := len(ordered) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
