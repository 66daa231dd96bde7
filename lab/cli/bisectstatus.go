package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/lab"
)

func bisectStatusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "where a bisect stands",
		Description: `Tells what is bisected, whether a lab is at work on it and what it tests, every
verdict that counts, between which commits the first bad one lies, how many tests are to
be expected, and how the bisect goes on. Nothing is changed.` + whichBisect + `

EXAMPLES
   lab bisect status
   lab bisect status --dir ~/hunt --json`,
		Flags: []cli.Flag{dirFlag(), jsonFlag()},
		Action: withSaved(func(c *cli.Context, s *lab.Saved) error {
			st, err := s.Status()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, st)
			}
			_, err = io.WriteString(c.App.Writer, statusText(st))
			return err
		}),
	}
}

func statusText(st lab.Status) string {
	var s strings.Builder
	fmt.Fprintf(&s, "bisect in %s\n", st.Dir)
	of := ""
	if st.Repo != "" {
		of = " of " + st.Repo
	}
	what := st.Axis
	if what == "setting" {
		what = "difference"
	}
	fmt.Fprintf(&s, "  %s%s\n", plural(st.Range, what), of)
	for _, c := range st.Good {
		fmt.Fprintf(&s, "  %s: %s\n", st.Terms.Word(lab.Good), called(c.Hash, c.Title))
	}
	fmt.Fprintf(&s, "  %-5s %s\n", st.Terms.Word(lab.Bad)+":", called(st.Bad.Hash, st.Bad.Title))
	fmt.Fprintf(&s, "  %s\n", sought(st.Begun))
	switch {
	case st.Running == nil && !st.Ended:
		fmt.Fprintf(&s, "not running; last touched %s\n", ago(st.Touched))
	case st.Running != nil:
		fmt.Fprintf(&s, "running: %s\n", st.Running)
		if t := st.Running.Testing; t != "" {
			fmt.Fprintf(&s, "  at work on %.12s, begun %s\n", strings.TrimPrefix(t, "sha256:"), ago(st.Running.Began))
			for _, t := range st.Running.Beside {
				fmt.Fprintf(&s, "  and on %.12s, begun before\n", strings.TrimPrefix(t, "sha256:"))
			}
		}
	}
	verdicts(&s, st)
	window(&s, st)
	switch {
	case st.Culprit != nil && st.OfSets():
		fmt.Fprintf(&s, "the verdict flips with: %s\n", plainText(st.Culprit.Title))
	case st.Culprit != nil:
		fmt.Fprintf(&s, "%s is the first %s %s\n", called(st.Culprit.Hash, st.Culprit.Title), st.Terms.Word(lab.Bad), st.Axis)
		if st.Pair != nil {
			for _, line := range st.Pair.Text(st.Terms) {
				fmt.Fprintf(&s, "  %s\n", line)
			}
		}
	case st.Ended:
		fmt.Fprintf(&s, "no answer: %s\n", st.Unclear)
		for _, c := range st.Suspects {
			fmt.Fprintf(&s, "  %s\n", called(c.Hash, c.Title))
		}
	}
	if st.Running == nil {
		what := "to go on"
		if st.Ended {
			what = "to see the answer again"
		}
		fmt.Fprintf(&s, "%s: %s\n", what, goOn(st.Begun))
	}
	return s.String()
}

// sought says what is hunted for.
func sought(b lab.Begun) string {
	what := "the image's own command"
	if len(b.Test) > 0 {
		what = shellWords(b.Test)
	}
	switch b.Symptom.Kind {
	case lab.SymptomBuild:
		return "hunting: it does not build"
	case lab.SymptomAsk:
		return "hunting: what you say of it"
	case lab.SymptomBoot:
		return "hunting: it does not boot"
	case lab.SymptomCrash:
		return "hunting: a crash while this runs: " + what
	}
	return "test: " + what
}

func verdicts(s *strings.Builder, st lab.Status) {
	fmt.Fprintf(s, "%s", plural(len(st.Tested), "verdict"))
	if st.Aside > 0 {
		fmt.Fprintf(s, " (%d more taken back or overruled)", st.Aside)
	}
	s.WriteString("\n")
	for i, t := range st.Tested {
		fmt.Fprintf(s, "  %3d. %-7s %-4s  %s: %s\n", i+1, t.Role, st.Terms.Word(t.Mark), called(t.Commit.Hash, t.Commit.Title), plainText(t.Reason))
	}
}

// window says what is left in the place of what was, as mozregression does.
func window(s *strings.Builder, st lab.Status) {
	if st.Culprit != nil || st.OfSets() {
		return // sets are in no order
	}
	left := plural(st.Left, st.Axis)
	if st.Left == 0 {
		fmt.Fprintf(s, "the verdicts contradict each other: see lab bisect visualize, and lab bisect undo\n")
		return
	}
	if st.Before == st.Left {
		fmt.Fprintf(s, "%s left of %d", left, st.Range)
	} else {
		fmt.Fprintf(s, "narrowed from %s to %d", plural(st.Before, st.Axis), st.Left)
	}
	if !st.Ended {
		fmt.Fprintf(s, ", about %s to go", plural(st.Steps, "test"))
	}
	s.WriteString("\n")
	if st.Before != st.Left {
		fmt.Fprintf(s, "  was: (%s, %s]\n", names(st.Was.Good), names(st.Was.Bad))
	}
	fmt.Fprintf(s, "  newest %s: %s\n", st.Terms.Word(lab.Good), strings.Join(longNames(st.Window.Good), "\n               "))
	fmt.Fprintf(s, "  oldest %-5s %s\n", st.Terms.Word(lab.Bad)+":", strings.Join(longNames(st.Window.Bad), "\n               "))
}

func names(list []kernel.Commit) string {
	short := make([]string, len(list))
	for i, c := range list {
		short[i] = c.Title
		if !strings.HasPrefix(c.Hash, "sha256:") {
			short[i] = fmt.Sprintf("%.12s", c.Hash)
		}
	}
	return strings.Join(short, " ")
}

func longNames(list []kernel.Commit) []string {
	long := make([]string, len(list))
	for i, c := range list {
		long[i] = called(c.Hash, c.Title)
	}
	return long
}
