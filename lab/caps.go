package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"

	"lab/oci"
	"lab/probe"
)

// capsKnob compares two lists of capabilities, as parseCaps reads them. A
// difference is a capability that one has and the other has not.
func capsKnob(e SettingEnds) (knob, error) {
	good, err := parseCaps(e.Good)
	if err != nil {
		return knob{}, fmt.Errorf("good capabilities: %w", err)
	}
	bad, err := parseCaps(e.Bad)
	if err != nil {
		return knob{}, fmt.Errorf("bad capabilities: %w", err)
	}
	k := knob{kind: "caps"}
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
	}
	return k, nil
}

// parseCaps reads a list of capabilities: names, with or without CAP_ and in any
// case, between commas. In front may stand what it begins with: ALL, none, or
// docker, which is what a container has when nobody says otherwise; then NAME or
// +NAME adds one and -NAME drops it. Nothing at all is docker.
func parseCaps(text string) (names []string, err error) {
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
					return nil, err
				}
				has[c] = true
			}
		case "all":
			for _, c := range capability.ListKnown() {
				has[c] = true
			}
		case "none":
		default:
			start = false
		}
		if start {
			if i > 0 {
				return nil, fmt.Errorf("%s is what a list can begin with, and stands behind %s", word, list[0])
			}
			continue
		}
		if strings.EqualFold(word, privileged) {
			return nil, fmt.Errorf("a privileged container has all capabilities: %s stands alone", privileged)
		}
		name, drop := strings.CutPrefix(word, "-")
		c, err := probe.ParseCap(strings.TrimPrefix(name, "+"))
		if err != nil {
			return nil, err
		}
		has[c] = !drop
	}
	for _, c := range capability.ListKnown() {
		if has[c] {
			names = append(names, strings.ToUpper(c.String()))
		}
	}
	return names, nil
}
