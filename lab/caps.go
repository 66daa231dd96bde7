package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"lab/oci"
	"lab/probe"
)

// privileged stands in a list of capabilities for a container that has them all,
// and what probe.Spec.Privileged gives beside them.
const privileged = "privileged"

// capsKnob compares two lists of capabilities, as parseCaps reads them. A
// difference is a capability that one has and the other has not, and what a
// privileged container has beside all of them: it goes before any of them does,
// and comes when all are there.
func capsKnob(e SettingEnds) (knob, error) {
	good, goodFree, err := parseCaps(e.Good)
	if err != nil {
		return knob{}, fmt.Errorf("good capabilities: %w", err)
	}
	bad, badFree, err := parseCaps(e.Bad)
	if err != nil {
		return knob{}, fmt.Errorf("bad capabilities: %w", err)
	}
	k := knob{kind: "caps", needs: map[int][]int{}}
	at := map[string]int{}
	for _, name := range slices.Sorted(slices.Values(slices.Concat(good, bad))) {
		if _, ok := at[name]; ok || slices.Contains(good, name) == slices.Contains(bad, name) {
			continue
		}
		d := Difference{Kind: k.kind, Name: name, Bad: name}
		if slices.Contains(good, name) {
			d.Good, d.Bad = name, ""
		}
		at[name] = len(k.list)
		k.list = append(k.list, d)
	}
	if n := len(k.list); goodFree != badFree {
		d := Difference{Kind: k.kind, Name: privileged, Bad: privileged}
		if goodFree {
			d.Good, d.Bad = privileged, ""
		}
		k.list = append(k.list, d)
		for i := range n {
			if goodFree {
				k.needs[i] = []int{n}
			} else {
				k.needs[n] = append(k.needs[n], i)
			}
		}
	}
	k.apply = func(s *setup, has func(int) bool) {
		changed := func(name string) bool {
			i, ok := at[name]
			return ok && has(i)
		}
		s.Test.CapDrop, s.Test.CapAdd = []string{"ALL"}, nil
		for _, name := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(good, bad)))) {
			if slices.Contains(good, name) != changed(name) {
				s.Test.CapAdd = append(s.Test.CapAdd, name)
			}
		}
		s.Test.Privileged = goodFree
		if goodFree != badFree && has(len(k.list)-1) {
			s.Test.Privileged = badFree
		}
	}
	return k, nil
}

// parseCaps reads a list of capabilities: names, with or without CAP_ and in any
// case, between commas. In front may stand what it begins with: ALL, none, or
// docker, which is what a container has when nobody says otherwise; then NAME or
// +NAME adds one and -NAME drops it. Nothing at all is docker. It tells whether
// the container is privileged.
func parseCaps(text string) (names []string, free bool, err error) {
	list := strings.Split(text, ",")
	if strings.TrimSpace(text) == "" {
		list = []string{"docker"}
	}
	has := map[capability.Cap]bool{}
	for i, word := range list {
		word = strings.TrimSpace(word)
		start := true
		switch strings.ToLower(word) {
		case "docker":
			for _, name := range oci.DefaultCapabilities() {
				c, err := probe.ParseCap(name)
				if err != nil {
					return nil, false, err
				}
				has[c] = true
			}
		case "all", privileged:
			free = strings.EqualFold(word, privileged)
			for _, c := range capability.ListKnown() {
				has[c] = true
			}
		case "none":
		default:
			start = false
		}
		if start {
			if i > 0 {
				return nil, false, fmt.Errorf("%s is what a list can begin with, and stands behind %s", word, list[0])
			}
			continue
		}
		if free {
			return nil, false, fmt.Errorf("a privileged container has all capabilities: %s changes nothing", word)
		}
		name, drop := strings.CutPrefix(word, "-")
		c, err := probe.ParseCap(strings.TrimPrefix(name, "+"))
		if err != nil {
			return nil, false, err
		}
		has[c] = !drop
	}
	for _, c := range capability.ListKnown() {
		if has[c] {
			names = append(names, strings.ToUpper(c.String()))
		}
	}
	return names, free, nil
}
