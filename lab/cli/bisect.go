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
		Usage:     "find the first bad commit, or the first bad of ready-made kernels",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: `Checks first that the good end is good and the bad end is bad, then tests the
commits that halve what is left, skipping those that do not build or boot, until
one commit remains; tests it and its parents once more; and writes a bundle with
which anyone can see it break again. Kernels are built in lab's own work tree.

A commit that changes nothing of what a build reads makes the same kernel: it is
neither built nor booted, and its verdict says so. The commits to test are chosen
from the others. The answer itself is always built and booted; --audit sees to
some of the rest.

With --kernels the candidates are ready made: packages (.deb, .rpm), bzImages,
unpacked packages, images, folders and patterns of them, in the order of their
releases and versions, or a file that lists them in its own order, one a line.
Neither git nor a compiler is needed. Good is then the first of them and bad the
last, unless said otherwise, by path, release or version. Where a distribution
has modules in packages of their own (linux-modules-…, kernel-modules-…), keep
these beside the kernel's.

The state is kept in --dir, one line an event. Stopped at any instant, the same
command goes on where it was.

EXAMPLES
   lab bisect --repo ~/linux --good v6.1.150 --bad v6.1.153 --config container \
       --image rootfs:app.tar --bundle bundle.tar -- /test
   lab bisect --kernels 'pool/*.deb' --image rootfs:app.tar -- /test`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringSliceFlag{Name: "good", Usage: "`REV` does not show the symptom; may be repeated", Category: catKernel},
			&cli.StringFlag{Name: "bad", Usage: "`REV` shows the symptom", DefaultText: "HEAD; of --kernels the last", Category: catKernel},
			&cli.StringSliceFlag{Name: "kernels", Usage: "bisect the ready-made kernels that `REF` names: a file, a folder, a quoted pattern, an image or a list file; may be repeated", Category: catKernel},
			moduleFlag(catKernel),
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
			s.Kernel.Modules = c.StringSlice("module")
			o := lab.BisectOptions{
				Spec: s, Good: c.StringSlice("good"), Bad: c.String("bad"), Kernels: c.StringSlice("kernels"),
				Dir: c.String("dir"), Audit: c.Int("audit"),
			}
			if err := checkCandidates(c, &o); err != nil {
				return err
			}
			if err := check(&o.Spec); err != nil {
				return err
			}
			return runBisect(c, o, c.String("bundle"))
		},
	}
}

// checkCandidates sees to it that the flags name commits or ready-made kernels,
// and not something of both.
func checkCandidates(c *cli.Context, o *lab.BisectOptions) error {
	s := o.Spec
	if len(o.Kernels) > 0 {
		for _, name := range []string{"repo", "config", "jobs", "audit"} {
			if c.IsSet(name) {
				return usagef("--kernels and --%s exclude each other: ready-made kernels are built already", name)
			}
		}
		if s.Symptom.Kind == lab.SymptomBuild {
			return usagef("--symptom build goes with --repo: ready-made kernels are built already")
		}
		return nil
	}
	if o.Bad == "" {
		o.Bad = "HEAD"
	}
	switch {
	case o.Audit < 0:
		return usagef("--audit %d: there cannot be fewer than none", o.Audit)
	case s.Kernel.Repo == "":
		return usagef("no kernels: name a tree with --repo DIR, or ready-made ones with --kernels REF")
	case len(s.Kernel.Modules) > 0:
		return usagef("--module goes with --kernels: name the option of %s in a file for --config", s.Kernel.Modules[0])
	case len(o.Good) == 0:
		return usagef("no good commit: name one with --good REV")
	case s.Symptom.Kind == lab.SymptomBuild && c.String("bundle") != "":
		return usagef("--bundle: a kernel that does not build leaves nothing to boot again; its log stays in --dir")
	}
	return nil
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
