package cli

import (
	"fmt"
	"strings"

	"lab/kernel"
	"lab/lab"
)

// answer is what lab bisect prints at its end.
func answer(b lab.Bisection) string {
	var s strings.Builder
	what := b.Axis
	switch {
	case b.Culprit != nil && b.Flip != nil:
		settingAnswer(&s, b)
	case b.FirstBad() != nil:
		packageAnswer(&s, b)
	case b.Culprit != nil && what != "commit":
		imageAnswer(&s, b)
	case b.Culprit != nil:
		c := b.Culprit
		fmt.Fprintf(&s, "%s is the first %s commit\n", c.Hash, b.Terms.Word(lab.Bad))
		fmt.Fprintf(&s, "  %s\n  %s, %s\n", c.Title, c.Author, c.Date.UTC().Format("2006-01-02"))
		for _, t := range b.Evidence() {
			fmt.Fprintf(&s, "  %s %s: %s\n", t.Commit.Hash[:12], b.Terms.Word(t.Mark), t.Reason)
		}
		for _, line := range b.Proof.Text(b.Terms) {
			fmt.Fprintf(&s, "  %s\n", line)
		}
		mergeAnswer(&s, b)
		if b.Hunks != nil {
			hunkAnswer(&s, b)
		}
	case len(b.Suspects) > 0:
		fmt.Fprintf(&s, "%s:\n", b.Unclear)
		for _, c := range b.Suspects {
			if what != "commit" {
				fmt.Fprintf(&s, "  %s\n", c.Title)
				continue
			}
			fmt.Fprintf(&s, "  %s %s\n", c.Hash, c.Title)
		}
	default:
		fmt.Fprintf(&s, "no answer: %s\n", b.Unclear)
	}
	if sure := b.Sure(); sure != "" {
		fmt.Fprintln(&s, sure)
	}
	if restored := b.FromSnapshots(); restored != "" {
		fmt.Fprintln(&s, restored)
	}
	for _, line := range b.Table() {
		fmt.Fprintln(&s, line)
	}
	booted, inferred, audited, said, hand := 0, 0, 0, 0, 0
	for _, t := range b.Tested {
		if t.ByHand {
			hand++
		}
		if t.Role == lab.RoleHand {
			said++
		}
		if t.Boot > 0 {
			booted++
		}
		if t.Unbuilt {
			inferred++
		}
		if t.Role == lab.RoleAudit {
			audited++
		}
	}
	if inferred > 0 {
		fmt.Fprintf(&s, "inferred, for commits that change nothing that is compiled: %s", plural(inferred, "verdict"))
		if audited > 0 {
			fmt.Fprintf(&s, "; audited: %d", audited)
		}
		s.WriteString("\n")
	}
	onTopCount(&s, b.Tested)
	if hand > 0 {
		fmt.Fprintf(&s, "given by hand: %s\n", plural(hand, "verdict"))
	}
	if n := len(b.Walked); n > 0 {
		fmt.Fprintf(&s, "a %s commit to begin with was found in %s\n", b.Terms.Word(lab.Good), plural(n, "test"))
	}
	if b.Command != "" {
		commandCount(&s, b)
		return s.String()
	}
	if b.Flip != nil {
		fmt.Fprintf(&s, "%s, %s, %s; state in %s\n", plural(len(b.Tested)-said, "test"), plural(booted, "boot"), plural(b.Range, "difference"), b.Dir)
		return s.String()
	}
	fmt.Fprintf(&s, "%s, %s, %s in the range; state in %s\n", plural(len(b.Tested)-said, "test"), plural(booted, "boot"), plural(b.Range, what), b.Dir)
	return s.String()
}

// imageAnswer tells the first bad image, or layer.
func imageAnswer(s *strings.Builder, b lab.Bisection) {
	fmt.Fprintf(s, "%s is the first bad %s\n", b.Culprit.Title, b.Axis)
	for _, t := range b.Evidence() {
		fmt.Fprintf(s, "  %s %s: %s\n  %*s%s\n", t.Commit.Title, t.Mark, t.Reason, len("  "), "", t.Image)
	}
	fmt.Fprintf(s, "what to do next:\n")
	for _, line := range b.Next() {
		fmt.Fprintf(s, "  - %s\n", line)
	}
}

// commandCount sums up a bisect without kernels.
func commandCount(s *strings.Builder, b lab.Bisection) {
	run := 0
	for _, t := range b.Tested {
		if t.Inferred == "" {
			run++
		}
	}
	s.WriteString(plural(len(b.Tested), "test"))
	if run < len(b.Tested) {
		fmt.Fprintf(s, " (%d of commits with the files of another one: not run again)", len(b.Tested)-run)
	}
	fmt.Fprintf(s, ", %s in the range; state in %s\n", plural(b.Range, "commit"), b.Dir)
}

// onTopCount tells at how many of the tested commits each pick and patch was
// applied.
func onTopCount(s *strings.Builder, tested []lab.Tested) {
	var names []string
	applied, at := map[string]int{}, map[string]int{}
	seen := map[string]bool{}
	for _, t := range tested {
		if seen[t.Commit.Hash] {
			continue // tested again
		}
		seen[t.Commit.Hash] = true
		for _, a := range t.OnTop {
			name := a.String()
			if at[name]++; at[name] == 1 {
				names = append(names, name)
			}
			if a.State == kernel.Applied {
				applied[name]++
			}
		}
	}
	for _, name := range names {
		fmt.Fprintf(s, "on top: %s, applied at %d of %d commits\n", name, applied[name], at[name])
	}
}

// packageAnswer tells the first bad of ready-made kernels.
func packageAnswer(s *strings.Builder, b lab.Bisection) {
	bad := b.FirstBad()
	fmt.Fprintf(s, "%s is the first bad kernel\n", bad)
	for _, p := range []struct {
		label string
		*lab.Package
	}{{"first bad", bad}, {"last good", b.LastGood()}} {
		if p.Package != nil {
			fmt.Fprintf(s, "  %s: %s, Linux %s, %s\n             %s\n", p.label, p.Package, p.Release, p.Reference, p.Digest)
		}
	}
	for _, t := range b.Evidence() {
		fmt.Fprintf(s, "  %s %s: %s\n", t.Commit.Title, t.Mark, t.Reason)
	}
	fmt.Fprintf(s, "what to do next:\n")
	for _, line := range b.Next() {
		fmt.Fprintf(s, "  - %s\n", line)
	}
}
