package cli

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// endFlags say, of a bisect over commits, which are looked at.
func endFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "first-parent", Usage: "look of each merge only at the branch that was merged into", Category: catKernel},
		&cli.BoolFlag{Name: "fix", Usage: "find what repaired it: --bad is the older end, with the symptom, and --good the newer one, by default HEAD, without it", Category: catVerdict},
		&cli.StringFlag{Name: "term-good", Usage: "call `WORD` what does not show the symptom, as in --term-good fast --term-bad slow", DefaultText: "good; with --fix fixed", Category: catVerdict},
		&cli.StringFlag{Name: "term-bad", Usage: "call `WORD` what does", DefaultText: "bad; with --fix broken", Category: catVerdict},
		&cli.BoolFlag{Name: "hunks", Usage: "at the end, find which hunks of the commit that is found it takes", Category: catVerdict},
		&cli.StringSliceFlag{Name: "path", Usage: "look first at commits that change `PATH`, named from the root of the repository; may be repeated", Category: catKernel},
	}
}

// setEnds puts them and the bad ends into the options.
func setEnds(c *cli.Context, o *lab.BisectOptions) error {
	o.Terms = lab.Terms{Good: c.String("term-good"), Bad: c.String("term-bad"), Fix: c.Bool("fix")}
	if _, err := o.Terms.AsGiven(); err != nil {
		return usagef("%v", err)
	}
	older, newer := c.StringSlice("good"), c.StringSlice("bad")
	if o.Terms.Fix {
		older, newer = newer, older
		if c.String("bundle") != "" {
			return usagef("--bundle goes with what broke it: with --fix there is nothing to see break")
		}
	}
	o.Good = older
	if len(newer) > 0 {
		o.Bad, o.AlsoBad = newer[0], newer[1:]
	}
	o.FirstParent, o.Hunks, o.Paths = c.Bool("first-parent"), c.Bool("hunks"), c.StringSlice("path")
	if len(o.Kernels) == 0 && len(o.Images) == 0 && o.Layers == "" {
		return nil
	}
	for _, name := range []string{"first-parent", "hunks", "path", "fix", "term-good", "term-bad"} {
		if c.IsSet(name) {
			return usagef("--%s goes with commits, which --kernels, --images and --layers have none of", name)
		}
	}
	if len(o.AlsoBad) > 0 {
		return usagef("--bad is given twice: in a row of kernels or images the first bad one is before both")
	}
	return nil
}

// mergeAnswer says of a merge what it means that it is the answer: what of that which
// it brings together does not go together, or, where only the first parent was looked
// at, how to go on.
func mergeAnswer(s *strings.Builder, b lab.Bisection) {
	if b.Pair != nil {
		fmt.Fprintf(s, "  it is a merge of %d commits, each of them %s\n", len(b.Parents), b.Terms.Word(lab.Good))
		for _, line := range b.Pair.Text(b.Terms) {
			fmt.Fprintf(s, "  %s\n", line)
		}
	}
	if len(b.Merged) == 0 {
		return
	}
	fmt.Fprintf(s, "  it is a merge; which of the commits that it brings in it was: lab bisect --good %s --bad %s, without --first-parent\n",
		b.Culprit.Parents[0][:12], b.Culprit.Hash[:12])
}

// hunkAnswer tells which hunks of the commit that was found are enough.
func hunkAnswer(s *strings.Builder, b lab.Bisection) {
	h := b.Hunks
	if h.Culprit == nil {
		fmt.Fprintf(s, "of its hunks: no answer: %s\n", h.Unclear)
		return
	}
	fmt.Fprintf(s, "of its %s %d %s enough:\n", plural(h.Range, "hunk"), len(h.Flip.Minimal), map[bool]string{true: "is", false: "are"}[len(h.Flip.Minimal) == 1])
	const most = 60
	for i, line := range strings.Split(strings.TrimSuffix(h.Flip.Patch, "\n"), "\n") {
		if i == most {
			fmt.Fprintf(s, "  … and %d more lines, in --json as hunks.flip.patch\n", strings.Count(h.Flip.Patch, "\n")-most)
			break
		}
		fmt.Fprintf(s, "  %s\n", line)
	}
	fmt.Fprintf(s, "  its parent with %s is %s: %s\n", them(h), b.Terms.Word(h.Flip.With.Mark), h.Flip.With.Reason)
	fmt.Fprintf(s, "  the commit without %s is %s: %s\n", them(h), b.Terms.Word(h.Flip.Without.Mark), h.Flip.Without.Reason)
	fmt.Fprintf(s, "  %s of hunks; state in %s\n", plural(len(h.Tested), "test"), h.Dir)
}

func them(h *lab.Bisection) string {
	if len(h.Flip.Minimal) == 1 {
		return "it"
	}
	return "them"
}
