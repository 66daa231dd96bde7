package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/lab"
	"lab/lab/report"
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
		Action: withSaved(func(c *cli.Context, s *lab.Saved) error {
			if c.Bool("json") {
				data, err := s.Events()
				if err == nil {
					_, err = c.App.Writer.Write(data)
				}
				return err
			}
			log := s.Log()
			if log == "" {
				return fmt.Errorf("git has no log but of commits: see lab bisect status, or lab bisect log --json")
			}
			_, err := io.WriteString(c.App.Writer, log)
			return err
		}),
	}
}

// maxLog is how long a bisect log may be, in bytes.
const maxLog = 16 << 20

// replayFile reads what git bisect log printed.
func replayFile(name string) (*lab.Replay, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read bisect log: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxLog+1))
	if err != nil {
		return nil, fmt.Errorf("read bisect log: %w", err)
	}
	r, err := lab.ParseReplay(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func bisectReplayCommand() *cli.Command {
	return &cli.Command{
		Name:      "replay",
		Usage:     "take the verdicts of a git bisect log",
		ArgsUsage: "FILE",
		Description: `Gives the commits of a bisect the verdicts that git bisect log, or lab bisect log, printed,
as if said by hand: they are not tested again. Commits that are not between the bisect's ends
are left out. The same log counts once; lab bisect undo takes it back as a whole. To begin a
bisect with the ends of a log, too: lab bisect --replay FILE.` + whichBisect + `

EXAMPLE
   git bisect log > bisect.log; lab bisect replay bisect.log`,
		Flags: []cli.Flag{dirFlag(), jsonFlag()},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("name one file that git bisect log printed")
			}
			r, err := replayFile(c.Args().First())
			if err != nil {
				return err
			}
			s, err := edited(c)
			if err != nil {
				return err
			}
			defer s.Close()
			change, err := s.Replay(r, func(rev string) (kernel.Commit, error) {
				found, err := theLab(c).Find(c.Context, s, rev)
				if err != nil {
					return kernel.Commit{}, err
				}
				return found[0], nil
			})
			if err != nil {
				return err
			}
			if len(change.Given) == 0 {
				theLab(c).Progress.Say("nothing new: no verdict of %s is of a commit between the ends, or they count already", c.Args().First())
				return nil
			}
			return tellChange(c, s, change)
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
verdict, and those that are left where these are few; --all shows every one. --svg draws
the same as a picture that any browser shows, light or dark.` + whichBisect + `

EXAMPLES
   lab bisect visualize --all | less
   lab bisect visualize --svg bisect.svg`,
		Flags: []cli.Flag{
			dirFlag(), &cli.BoolFlag{Name: "all", Usage: "leave nothing out"},
			&cli.StringFlag{Name: "svg", Usage: "write the picture to `FILE`, as SVG"}, jsonFlag(),
		},
		Action: withSaved(func(c *cli.Context, s *lab.Saved) error {
			if name := c.String("svg"); name != "" {
				if c.Bool("json") {
					return usagef("--svg and --json exclude each other")
				}
				return writeSVG(name, s, c.Bool("all"))
			}
			rows := s.Picture(c.Bool("all"))
			if c.Bool("json") {
				return printJSON(c.App.Writer, rows)
			}
			_, err := io.WriteString(c.App.Writer, drawn(rows, s.Begun))
			return err
		}),
	}
}

// writeSVG draws a bisect into a file.
func writeSVG(name string, s *lab.Saved, all bool) error {
	var b bytes.Buffer
	words := map[string]string{"good": s.Terms.Word(lab.Good), "bad": s.Terms.Word(lab.Bad)}
	if err := report.SVG(&b, s.Graph(all), s.Axis, words); err != nil {
		return err
	}
	if err := renameio.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write picture: %w", err)
	}
	return nil
}

// drawn renders a picture.
func drawn(rows []lab.Row, b lab.Begun) string {
	var s strings.Builder
	wide, state := 0, 9
	for _, r := range rows {
		wide, state = max(wide, len(r.Graph)), max(state, len(inTerms(b, r.State)))
	}
	for _, r := range rows {
		switch {
		case r.Commit == nil && r.Hidden == 0:
			s.WriteString(r.Graph)
		case r.Commit == nil:
			fmt.Fprintf(&s, "%-*s  %s", wide, r.Graph, plural(r.Hidden, b.Axis))
			switch {
			case r.Suspects == r.Hidden:
				s.WriteString(", any of which may be the first bad one")
			case r.Suspects > 0:
				fmt.Fprintf(&s, ", %d of which may be the first bad one", r.Suspects)
			}
		default:
			fmt.Fprintf(&s, "%-*s  %-*s  %s", wide, r.Graph, state, inTerms(b, r.State), called(r.Commit.Hash, r.Commit.Title))
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

// inTerms says a row's state in the bisect's words.
func inTerms(b lab.Begun, state string) string {
	good, bad := b.Terms.Word(lab.Good), b.Terms.Word(lab.Bad)
	switch state {
	case string(lab.Good):
		return good
	case string(lab.Bad):
		return bad
	case lab.StateGood:
		return "(" + good + ")"
	case lab.StateBad:
		return "(" + bad + ")"
	case lab.StateFirst:
		return "first " + bad
	}
	return state
}
