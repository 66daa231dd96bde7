package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func bisectLogCommand() *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "print a bisect as git bisect log does",
		Description: `Prints what git bisect log would: git bisect replay takes it and goes on from there.
With --json it is the journal itself, an event a line, with those that no longer count.` + whichBisect + `

EXAMPLES
   lab bisect log > bisect.log; git bisect replay bisect.log
   lab bisect log --json | jq -r 'select(.tested) | .tested.verdict'`,
		Flags: []cli.Flag{dirFlag(), &cli.BoolFlag{Name: "json", Usage: "print the journal's events, a JSON object a line"}},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unexpected argument %q", c.Args().First())
			}
			s, err := saved(c)
			if err != nil {
				return err
			}
			defer s.Close()
			if c.Bool("json") {
				data, err := s.Events()
				if err == nil {
					_, err = c.App.Writer.Write(data)
				}
				return err
			}
			log := s.Log()
			if log == "" {
				return fmt.Errorf("git has no log of ready-made kernels: see lab bisect status, or lab bisect log --json")
			}
			_, err = io.WriteString(c.App.Writer, log)
			return err
		},
	}
}

func bisectVisualizeCommand() *cli.Command {
	return &cli.Command{
		Name:  "visualize",
		Usage: "draw a bisect's commits with what is known of each",
		Description: `Draws the commits between the ends as git log --graph does, the newest first, each
with its verdict: good, bad, skip; (good) and (bad), which follow from others; ? for those
that may be the first bad one. The picture is shortened to the ends, the commits with a
verdict, and those that are left where these are few; --all shows every one.` + whichBisect + `

EXAMPLE
   lab bisect visualize --all | less`,
		Flags: []cli.Flag{dirFlag(), &cli.BoolFlag{Name: "all", Usage: "leave nothing out"}, jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unexpected argument %q", c.Args().First())
			}
			s, err := saved(c)
			if err != nil {
				return err
			}
			defer s.Close()
			rows := s.Picture(c.Bool("all"))
			if c.Bool("json") {
				return printJSON(c.App.Writer, rows)
			}
			_, err = io.WriteString(c.App.Writer, drawn(rows, s.Axis))
			return err
		},
	}
}

// drawn renders a picture.
func drawn(rows []lab.Row, axis string) string {
	var s strings.Builder
	wide := 0
	for _, r := range rows {
		wide = max(wide, len(r.Graph))
	}
	for _, r := range rows {
		switch {
		case r.Commit == nil && r.Hidden == 0:
			s.WriteString(r.Graph)
		case r.Commit == nil:
			fmt.Fprintf(&s, "%-*s  %s", wide, r.Graph, plural(r.Hidden, axis))
			switch {
			case r.Suspects == r.Hidden:
				s.WriteString(", any of which may be the first bad one")
			case r.Suspects > 0:
				fmt.Fprintf(&s, ", %d of which may be the first bad one", r.Suspects)
			}
		default:
			fmt.Fprintf(&s, "%-*s  %-9s  %s", wide, r.Graph, r.State, called(r.Commit.Hash, r.Commit.Title))
			if r.End {
				s.WriteString("  [end]")
			}
			if r.Tested != nil && r.Tested.ByHand {
				s.WriteString("  [by hand]")
			}
		}
		s.WriteString("\n")
	}
	return s.String()
}
