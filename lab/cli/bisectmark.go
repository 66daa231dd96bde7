package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// markHelp is what the three commands that give a verdict have in common.
const markHelp = `

REV is whatever names a commit of the bisect's repository, or of ready-made kernels a
path, a release or a version. The verdict overrules what was tested of it, and tests that
it says cannot be: lab tells which, and lab bisect undo takes it back. One that contradicts
the ends, or another one given by hand, is refused. Good is without the symptom and bad with
it, whatever the bisect calls them, and where it hunts for the repair, too.

A lab that is at work on the bisect sees it before its next step; else the bisect's own
command goes on with it.` + whichBisect

func bisectMarkCommand(mark lab.Mark) *cli.Command {
	c := &cli.Command{
		Name:      string(mark),
		ArgsUsage: "REV...",
		Flags: []cli.Flag{
			dirFlag(),
			&cli.StringFlag{Name: "reason", Aliases: []string{"r"}, Usage: "keep `TEXT` as the evidence"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error { return runMark(c, mark) },
	}
	switch mark {
	case lab.Good:
		c.Usage = "say that commits are good"
		c.Description = `Gives a verdict by hand: these commits, and all that they are built upon, do not have
the symptom.` + markHelp + `

EXAMPLE
   lab bisect good --reason 'ran for a week on host7' v6.1.151`
	case lab.Bad:
		c.Usage = "say that commits are bad"
		c.Description = `Gives a verdict by hand: the first bad commit is one of these, or one that they are built
upon.` + markHelp + `

EXAMPLE
   lab bisect bad 1a2b3c4d5e6f`
	default:
		c.Usage = "say that commits cannot be judged"
		c.Description = `Gives a verdict by hand: these commits are not to be tested. A..B is all that B is built
upon and A is not.` + markHelp + `

EXAMPLES
   lab bisect skip --reason 'the wrong driver' 1a2b3c4d5e6f
   lab bisect skip v6.1.151..v6.1.152`
	}
	return c
}

func runMark(c *cli.Context, mark lab.Mark) error {
	if !c.Args().Present() {
		return usagef("%s what? Name a commit", mark)
	}
	s, err := edited(c)
	if err != nil {
		return err
	}
	defer s.Close()
	var marks []lab.Tested
	for _, rev := range c.Args().Slice() {
		if strings.Contains(rev, "..") && mark != lab.Skip && len(s.Packages) == 0 {
			return usagef("%s %s: only skip takes a range", mark, rev)
		}
		commits, err := theLab(c).Find(c.Context, s, rev)
		if err != nil {
			return err
		}
		for _, commit := range commits {
			t := lab.Tested{Commit: commit, Verdict: lab.Verdict{Mark: s.Terms.Turn(mark), Reason: "by hand"}}
			if r := c.String("reason"); r != "" {
				t.Reason = "by hand: " + plainText(r)
			}
			marks = append(marks, t)
		}
	}
	change, err := s.Mark(marks, "")
	if err != nil {
		return err
	}
	return tellChange(c, s, change)
}

func bisectUndoCommand() *cli.Command {
	return &cli.Command{
		Name:      "undo",
		Usage:     "take back the last verdicts",
		ArgsUsage: "[N]",
		Description: `Takes back the last N verdicts that count, by default one, tested or given by hand, and
the answer with them. The bisect goes on from before them and tests again. What was given by
hand in one go is taken back in one; tests that it had overruled count again. The journal
keeps all of it: see lab bisect log --json.` + whichBisect + `

EXAMPLES
   lab bisect undo
   lab bisect undo 3`,
		Flags: []cli.Flag{dirFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			n := 1
			if c.NArg() > 1 {
				return usagef("unexpected argument %q", c.Args().Get(1))
			}
			if c.NArg() == 1 {
				var err error
				if n, err = strconv.Atoi(c.Args().First()); err != nil || n < 1 {
					return usagef("undo %s: a number of verdicts is wanted", c.Args().First())
				}
			}
			s, err := edited(c)
			if err != nil {
				return err
			}
			defer s.Close()
			change, err := s.Undo(n)
			if err != nil {
				return err
			}
			return tellChange(c, s, change)
		},
	}
}

// tellChange says what a verdict by hand, or one taken back, did.
func tellChange(c *cli.Context, s *lab.Saved, change lab.Change) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, change)
	}
	var b strings.Builder
	for _, list := range []struct {
		what  string
		tests []lab.Tested
	}{
		{"now", change.Given}, {"taken back:", change.Back},
		{"contradicts, and overrules:", change.Aside}, {"counts again:", change.Again},
	} {
		for _, t := range list.tests {
			fmt.Fprintf(&b, "%s %s: %s (%s)\n", list.what, s.Terms.Word(t.Mark), called(t.Commit.Hash, t.Commit.Title), plainText(t.Reason))
		}
	}
	if len(change.Aside) > 0 {
		b.WriteString("to have these count again: lab bisect undo\n")
	}
	if !s.OfSets() {
		fmt.Fprintf(&b, "%s left, %d before\n", plural(change.Left, s.Axis), change.Was)
	}
	if change.Running {
		b.WriteString("the lab at work on it sees this before its next step\n")
	} else {
		fmt.Fprintf(&b, "to go on: %s\n", goOn(s.Begun))
	}
	_, err := io.WriteString(c.App.Writer, b.String())
	return err
}
