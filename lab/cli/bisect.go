package cli

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func bisectCommand() *cli.Command {
	return &cli.Command{
		Name:      "bisect",
		Usage:     "find the first bad commit",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: `Checks first that the good end is good and the bad end is bad, then tests the
commits that halve what is left, skipping those that do not build or boot, until
one commit remains; tests it and its parents once more; and writes a bundle with
which anyone can see it break again. Kernels are built in lab's own work tree.

A commit that changes nothing of what a build reads makes the same kernel: it is
neither built nor booted, and its verdict says so. The commits to test are chosen
from the others. The answer itself is always built and booted; --audit sees to
some of the rest.

The state is kept in --dir, one line an event. Stopped at any instant, the same
command goes on where it was.

EXAMPLE
   lab bisect --repo ~/linux --good v6.1.150 --bad v6.1.153 --config container \
       --image rootfs:app.tar --bundle bundle.tar -- /test`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringSliceFlag{Name: "good", Usage: "`REV` does not show the symptom; may be repeated", Category: catKernel},
			&cli.StringFlag{Name: "bad", Usage: "`REV` shows the symptom", Value: "HEAD", Category: catKernel},
			&cli.StringFlag{Name: "dir", Usage: "keep the bisect's state in `DIR`", DefaultText: "a folder of $XDG_STATE_HOME/lab/bisects named by what is bisected", Category: catOutput},
			&cli.IntFlag{Name: "audit", Usage: "at the end, build and boot `N` of the commits that were taken for others' kernels, and take the answer back if one is not", Category: catVerdict},
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "write the bundle to `FILE`", Category: catOutput},
			jsonFlag(),
		}, kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			s, err := spec(c)
			if err != nil {
				return err
			}
			o := lab.BisectOptions{Spec: s, Good: c.StringSlice("good"), Bad: c.String("bad"), Dir: c.String("dir"), Audit: c.Int("audit")}
			switch {
			case o.Audit < 0:
				return usagef("--audit %d: there cannot be fewer than none", o.Audit)
			case s.Kernel.Repo == "":
				return usagef("no kernel tree: name one with --repo DIR")
			case len(o.Good) == 0:
				return usagef("no good commit: name one with --good REV")
			case s.Symptom.Kind == lab.SymptomBuild && c.String("bundle") != "":
				return usagef("--bundle: a kernel that does not build leaves nothing to boot again; its log stays in --dir")
			}
			if err := check(&o.Spec); err != nil {
				return err
			}
			return runBisect(c, o, c.String("bundle"))
		},
	}
}

func runBisect(c *cli.Context, o lab.BisectOptions, bundle string) error {
	l := theLab(c)
	b, err := l.Bisect(c.Context, o)
	if err != nil {
		return err
	}
	if bundle != "" && b.Culprit != nil {
		if err := l.WriteBundle(c.Context, b, o, bundle); err != nil {
			return err
		}
		if abs, err := filepath.Abs(bundle); err == nil {
			l.Progress.Say("bundle written: %s; rerun it with: lab reproduce %s", abs, bundle)
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, b)
	} else {
		_, err = fmt.Fprint(c.App.Writer, answer(b))
	}
	if err != nil {
		return err
	}
	if b.Culprit == nil {
		return result(ExitSkip)
	}
	return nil
}
