package cli

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func reproduceCommand() *cli.Command {
	return &cli.Command{
		Name:      "reproduce",
		Usage:     "rerun a bundle and compare with what it recorded",
		ArgsUsage: "BUNDLE",
		Description: `Verifies every byte of the bundle before it uses any, boots its good and its
bad kernel with its disk and test, and says whether they do what was recorded:
same (0), different (1), could not run (125). Nothing of the bundle runs outside
the virtual machine, which has no network and, unless asked for, no KVM.

EXAMPLE
   lab reproduce bundle.tar`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "accel", Usage: "kvm or tcg", Value: "tcg", Category: catMachine},
			&cli.StringFlag{Name: "qemu", Usage: "run this QEMU `BINARY`", DefaultText: "qemu-system-ARCH", Category: catMachine},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one bundle is wanted: lab reproduce bundle.tar")
			}
			a := c.String("accel")
			if a != "kvm" && a != "tcg" {
				return usagef("accelerator %q is not kvm or tcg", a)
			}
			return runReproduce(c, c.Args().First(), lab.ReproduceOptions{QEMU: c.String("qemu"), Accel: a})
		},
	}
}

func runReproduce(c *cli.Context, bundle string, o lab.ReproduceOptions) error {
	r, err := theLab(c).Reproduce(c.Context, bundle, o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, r)
	} else {
		err = printReproduction(c.App.Writer, r)
	}
	if err != nil {
		return err
	}
	switch r.Outcome {
	case lab.Same:
		return nil
	case lab.Different:
		return result(ExitBad)
	}
	return result(ExitSkip)
}

func printReproduction(w io.Writer, r lab.Reproduction) error {
	for _, run := range r.Runs {
		fmt.Fprintf(w, "%-4s  %s: %s (%s); %s\n", run.Role, run.Kernel, run.Mark, run.Reason, run.Outcome)
		for _, d := range run.Differences {
			fmt.Fprintf(w, "      %s\n", d)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	_, err := fmt.Fprintln(w, r.Outcome)
	return err
}
