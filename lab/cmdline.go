package lab

import (
	"fmt"
	"strings"

	"lab/kernel/qemu"
)

// option is one option of a command line made of two: in both, or of one
// difference between them.
type option struct {
	text       string
	difference int // -1 for none
	isBad      bool
}

// cmdlineKnob compares two command lines. A difference is an option that was
// added or removed, or that has another value or place: the k-th option of a name
// that is gone and the k-th that came. Each command line that is made of some of
// the differences keeps the order of both.
func cmdlineKnob(e SettingEnds) (knob, error) {
	good, err := splitCmdline(e.Good)
	if err != nil {
		return knob{}, fmt.Errorf("good command line: %w", err)
	}
	bad, err := splitCmdline(e.Bad)
	if err != nil {
		return knob{}, fmt.Errorf("bad command line: %w", err)
	}
	k := knob{kind: "cmdline"}
	merged := mergeOptions(good, bad)
	for i := range merged {
		o := &merged[i]
		if o.difference < 0 {
			continue
		}
		name := optionName(o.text)
		o.difference = -1
		for n, d := range k.list {
			if d.Name == name && (d.Bad == "" && o.isBad || d.Good == "" && !o.isBad) {
				o.difference = n
				break
			}
		}
		if o.difference < 0 {
			o.difference = len(k.list)
			k.list = append(k.list, Difference{Kind: k.kind, Name: name})
		}
		if d := &k.list[o.difference]; o.isBad {
			d.Bad = o.text
		} else {
			d.Good = o.text
		}
	}
	k.apply = func(s *setup, has func(int) bool) {
		var words []string
		if common := strings.TrimSpace(s.Machine.Cmdline); common != "" {
			words = append(words, common)
		}
		for _, o := range merged {
			if o.difference < 0 || has(o.difference) == o.isBad {
				words = append(words, o.text)
			}
		}
		s.Machine.Cmdline = strings.Join(words, " ")
	}
	return k, nil
}

// splitCmdline parts a command line into options as the kernel does (next_arg in
// lib/cmdline.c): at spaces that are in no double quotes. What is behind "--" is
// init's, and stays together.
func splitCmdline(text string) ([]string, error) {
	if len(text) > qemu.MaxCmdline {
		return nil, fmt.Errorf("%d bytes, and the kernel takes %d", len(text), qemu.MaxCmdline)
	}
	var list []string
	var word strings.Builder
	quoted := false
	for _, r := range text + " " {
		switch {
		case r == '"':
			quoted = !quoted
		case r < ' ' && r != '\t' && r != '\n', r == 0x7f:
			return nil, fmt.Errorf("%q is no character of a command line", r)
		case !quoted && (r == ' ' || r == '\t' || r == '\n'):
			if word.Len() > 0 {
				list = append(list, word.String())
				word.Reset()
			}
			continue
		}
		word.WriteRune(r)
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed in %s", text)
	}
	for i, o := range list {
		if o == "--" {
			return append(list[:i:i], strings.Join(list[i:], " ")), nil
		}
	}
	return list, nil
}

// optionName is what stands before the value. The kernel takes - and _ in it for
// the same (parameq in kernel/params.c).
func optionName(text string) string {
	if strings.HasPrefix(text, "-- ") || text == "--" {
		return "--"
	}
	name, _, _ := strings.Cut(text, "=")
	return strings.ReplaceAll(strings.Trim(name, `"`), "-", "_")
}

// mergeOptions gives all options of both, in the order of both, with as many as
// can be in common (a longest common subsequence). Where the two part, what is
// gone stands before what came.
func mergeOptions(good, bad []string) []option {
	length := make([][]int, len(good)+1) // of what good[i:] and bad[j:] have in common
	for i := range length {
		length[i] = make([]int, len(bad)+1)
	}
	for i := len(good) - 1; i >= 0; i-- {
		for j := len(bad) - 1; j >= 0; j-- {
			length[i][j] = max(length[i+1][j], length[i][j+1])
			if good[i] == bad[j] {
				length[i][j] = length[i+1][j+1] + 1
			}
		}
	}
	var merged []option
	i, j := 0, 0
	for i < len(good) || j < len(bad) {
		switch {
		case i < len(good) && j < len(bad) && good[i] == bad[j]:
			merged = append(merged, option{text: good[i], difference: -1})
			i, j = i+1, j+1
		case j == len(bad) || i < len(good) && length[i+1][j] >= length[i][j+1]:
			merged = append(merged, option{text: good[i]})
			i++
		default:
			merged = append(merged, option{text: bad[j], isBad: true})
			j++
		}
	}
	return merged
}
