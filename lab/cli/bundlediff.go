package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func bundleDiffCommand() *cli.Command {
	return &cli.Command{
		Name:  "diff",
		Usage: "say what differs between two bundles",
		Description: `Verifies both bundles and compares them: the manifest and all JSON field by field,
configurations option by option, texts by their first differing line without what
changes from run to run (times, addresses, process numbers), all else by digest.

A line begins with - for what only A has, with + for what only B has and with ~ for
what differs. What was measured may differ between two bisects of the same answers:
how long things took, consoles, build logs, the host, and who signed. One line says
so for each member; --all lists it too.

Exits with 0 where the bundles are the same, or only measurements differ, and with 1
where something else does.

` + bundlePlaces + `

EXAMPLES
   lab bundle diff monday.tar tuesday.tar
   lab bundle diff --json a.tar b.tar | jq -r '.differences[] | select(.measured | not) | .member'`,
		ArgsUsage: "A B",
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "all", Usage: "list what was measured, too"},
			jsonFlag(),
		}, sourceFlags()...),
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("two bundles are wanted, there are %d arguments", c.NArg())
			}
			a, err := bundleSource(c, c.Args().Get(0))
			if err != nil {
				return err
			}
			b := a
			b.Place = c.Args().Get(1)
			if a.Place == "-" && b.Place == "-" {
				return usagef("standard input can be one of the bundles only")
			}
			d, err := theLab(c).DiffBundles(c.Context, a, b)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = printJSON(c.App.Writer, d)
			} else {
				err = printBundleDiff(c.App.Writer, d, c.Bool("all"))
			}
			if err == nil && d.Outcome == lab.Different {
				err = result(ExitBad)
			}
			return err
		},
	}
}

func printBundleDiff(w io.Writer, d lab.BundleDiff, all bool) error {
	var members []string
	measured := map[string][]string{}
	for _, f := range d.Differences {
		if !f.Measured || all {
			fmt.Fprintln(w, differenceText(f))
			continue
		}
		if measured[f.Member] == nil {
			members = append(members, f.Member)
		}
		field := f.Field[strings.LastIndexByte(f.Field, '.')+1:]
		measured[f.Member] = append(measured[f.Member], field)
	}
	for _, m := range members {
		fields := measured[m]
		n := len(fields)
		slices.Sort(fields)
		fields = slices.Compact(fields)
		switch {
		case fields[len(fields)-1] == "":
			fmt.Fprintf(w, "measured: %s\n", m)
		case n == 1:
			fmt.Fprintf(w, "measured: %s: %s\n", m, fields[0])
		default:
			fmt.Fprintf(w, "measured: %s: %s (%d values)\n", m, strings.Join(fields, ", "), n)
		}
	}
	_, err := fmt.Fprintln(w, d.Outcome)
	return err
}

// differenceText is a difference as a line for people.
func differenceText(f lab.BundleChange) string {
	where := f.Member
	if f.Field != "" {
		where += ": " + plainText(f.Field)
	}
	switch {
	case f.Field == "" && f.Is == "":
		return "- " + where + " (" + f.Was + ")"
	case f.Field == "" && f.Was == "":
		return "+ " + where + " (" + f.Is + ")"
	}
	said := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("~ %s: was %s, is %s", where, said(f.Was), said(f.Is))
}
