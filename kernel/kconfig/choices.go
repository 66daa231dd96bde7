package kconfig

import (
	"cmp"
	"maps"
	"slices"
)

// A Choice is a symbol that somebody chose otherwise in one resolved configuration
// than in another.
type Choice struct {
	Change
	Prompt string // what Kconfig calls it; empty where that is not known
	// Needs are the indexes of the choices without which this one cannot be made.
	Needs []int
}

// Choices lists what was chosen otherwise in the configuration bad than in good,
// both resolved in this tree, in the order of the Kconfig files: what belongs
// together stands together. Symbols that nobody can choose, since their values
// follow from others, are not in it, nor are numbers and strings that only one of
// the two has.
//
// Needs are what the Kconfig files show of it: a choice needs each one without
// which, all else being as in bad, Kconfig would not let it have its value, and
// each one that, all else being as in good, could not stay as it is beside it.
// Options of one "choice" need each other. Where one of several others is enough,
// that is not seen. A nil Tree knows of no needs, and takes all symbols for ones
// that can be chosen.
func (t *Tree) Choices(good, bad Config) []Choice {
	drift := Drift(good, bad)
	if t != nil {
		slices.SortStableFunc(drift, func(a, b Change) int { return cmp.Compare(t.order[a.Symbol], t.order[b.Symbol]) })
	}
	var list []Choice
	at := map[string]int{}
	for _, c := range drift {
		if !t.CanChoose(c.Symbol) || c.Was == "" && !isSwitch(c.Is) || c.Is == "" && !isSwitch(c.Was) {
			continue
		}
		at[c.Symbol] = len(list)
		list = append(list, Choice{Change: c, Prompt: t.title(c.Symbol)})
	}
	if t == nil {
		return list
	}
	needs := t.needs(good, bad, drift)
	for i := range list {
		list[i].Needs = indexes(needs, list[i].Symbol, at)
	}
	return list
}

// indexes are those of the choices that a symbol needs, also by way of symbols
// that nobody can choose.
func indexes(needs map[string][]string, symbol string, at map[string]int) []int {
	seen := map[string]bool{symbol: true}
	var found []int
	for queue := []string{symbol}; len(queue) > 0; {
		next := queue[0]
		queue = queue[1:]
		for _, n := range needs[next] {
			if seen[n] {
				continue
			}
			seen[n] = true
			if i, ok := at[n]; ok {
				found = append(found, i)
			} else {
				queue = append(queue, n)
			}
		}
	}
	slices.Sort(found)
	return found
}

// needs finds which of the changes need which others, by symbol.
func (t *Tree) needs(good, bad Config, drift []Change) map[string][]string {
	good, bad = maps.Clone(good), maps.Clone(bad)
	differs := map[string]bool{}
	for _, c := range drift {
		differs[c.Symbol] = true
	}
	needs := map[string][]string{}
	add := func(symbol, other string) {
		if !slices.Contains(needs[symbol], other) {
			needs[symbol] = append(needs[symbol], other)
		}
	}
	inChoice := map[int]string{}
	for _, c := range drift {
		x := c.Symbol
		for _, y := range t.mentioned(x) {
			switch {
			case y == x || !differs[y]:
				continue
			case t.prevents(bad, y, good[y], x):
				add(x, y)
			}
			if t.prevents(good, y, bad[y], x) {
				add(y, x)
			}
		}
		for _, d := range t.symbols[x] {
			if d.choice == 0 {
				continue
			}
			if first, ok := inChoice[d.choice]; ok {
				add(first, x)
				add(x, first)
			}
			inChoice[d.choice] = cmp.Or(inChoice[d.choice], x)
		}
	}
	return needs
}

// prevents tells whether a symbol x could not stay as it is in a configuration if
// y had that value. Where the Kconfig files do not explain why x is as it is, they
// do not tell.
func (t *Tree) prevents(c Config, y, value, x string) bool {
	if !t.possible(c, x) {
		return false
	}
	was, there := c[y]
	c[y] = value
	still := t.possible(c, x)
	if c[y] = was; !there {
		delete(c, y)
	}
	return !still
}

// possible tells whether Kconfig would let a symbol be on, or off, as it is in a
// configuration. What it cannot tell is taken for possible.
func (t *Tree) possible(c Config, symbol string) bool {
	value := c[symbol]
	on := value == "y" || value == "m"
	if !on && value != "n" && value != "" {
		return true
	}
	for _, s := range t.forced[symbol] {
		switch worse((&expr{word: s.by}).eval(c), s.condition.eval(c)) {
		case unknown:
			return true
		case yes, mod:
			return on
		}
	}
	isOn := false
	for _, d := range t.symbols[symbol] {
		depends := d.depends.eval(c)
		if d.prompt && worse(depends, d.visible.eval(c)) != no {
			return true
		}
		for _, v := range d.values {
			holds := worse(depends, v.condition.eval(c))
			is := worse(holds, v.value.eval(c))
			if is == unknown {
				return true
			}
			isOn = isOn || is != no
			if holds != no {
				break
			}
		}
	}
	return isOn == on
}

// mentioned are the symbols that a symbol's value may rest on.
func (t *Tree) mentioned(symbol string) []string {
	var names []string
	var walk func(e *expr)
	walk = func(e *expr) {
		if e == nil {
			return
		}
		if e.op == "" && !e.quoted && !slices.Contains(names, e.word) {
			names = append(names, e.word)
		}
		walk(e.left)
		walk(e.right)
	}
	for _, d := range t.symbols[symbol] {
		walk(d.depends)
		walk(d.visible)
		for _, v := range d.values {
			walk(v.value)
			walk(v.condition)
		}
	}
	for _, s := range t.forced[symbol] {
		walk(&expr{word: s.by})
		walk(s.condition)
	}
	return names
}

// CanChoose tells whether a symbol has a prompt. One that the Kconfig files do not
// have may have one.
func (t *Tree) CanChoose(symbol string) bool {
	return t == nil || len(t.symbols[symbol]) == 0 ||
		slices.ContainsFunc(t.symbols[symbol], func(d definition) bool { return d.prompt })
}

func (t *Tree) title(symbol string) string {
	if t != nil {
		for _, d := range t.symbols[symbol] {
			if d.prompt {
				return d.title
			}
		}
	}
	return ""
}

// isSwitch tells a value of a symbol that is on or off from a number or a string.
func isSwitch(value string) bool { return value == "y" || value == "m" || value == "n" }

// Mix is the configuration good with some of the choices made as in bad: a
// request, a whole .config, which Kconfig has to resolve. With none of them it is
// good itself, with all of them bad. What is named in one of the two only has there
// been no occasion to choose in the other: a switch is off there, and a number is
// what it is where it is known.
func Mix(good, bad Config, choices []Choice, made func(i int) bool) Config {
	count := 0
	mix := maps.Clone(good)
	for symbol, value := range bad {
		if _, ok := good[symbol]; !ok {
			if mix[symbol] = value; isSwitch(value) {
				mix[symbol] = "n"
			}
		}
	}
	for i, c := range choices {
		if made(i) {
			count++
			mix[c.Symbol] = cmp.Or(bad[c.Symbol], "n")
		}
	}
	switch count {
	case 0:
		return maps.Clone(good)
	case len(choices):
		return maps.Clone(bad)
	}
	return mix
}

// File is a configuration as a whole .config: a request that leaves nothing open
// but what it does not name.
func (c Config) File(name string) Fragment {
	return Fragment{Name: name, Data: append([]byte("# Automatically generated file; DO NOT EDIT.\n"), c.Bytes()...)}
}
