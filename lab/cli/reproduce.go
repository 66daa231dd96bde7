package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func reproduceCommand() *cli.Command {
	return &cli.Command{
		Name:      "reproduce",
		Usage:     "rerun a bundle and compare with what it recorded",
		ArgsUsage: bundleArg,
		Description: `Verifies every byte of the bundle before it uses any, and with --verify who signed it;
boots its good and its bad kernel with its disk and test, and says whether they do what
was recorded: same (0), different (1), could not run (125). A failure that comes at times
is looked for as often as its rate asks for.

` + bundlePlaces + `

With --kernel, or --repo and --commit, the test runs on that kernel as well: is it fixed
(0) or not fixed (1)? A commit is built with the configuration of the bundle's bad kernel,
unless --config names another, and with the --pick and --patch on top.

With --replay the recordings are played back which lab bisect --record put into the bundle:
the very executions that its maker saw, instruction for instruction. What the guest writes
must be the same, byte for byte. It takes QEMU of the recording's version as a rule; what
another makes of it is said.

Nothing of the bundle runs outside the virtual machine, which has no network and, unless
--allow-kvm is given, no KVM. QEMU runs sandboxed, within limits, and where lab is root as
nobody.

EXAMPLES
   lab reproduce bundle.tar
   lab reproduce --verify allowed_signers https://example.org/bundle.tar
   lab reproduce docker://127.0.0.1:5000/bundles:audit
   lab reproduce --kernel arch/x86/boot/bzImage bundle.tar
   lab reproduce --replay bundle.tar
   lab reproduce --repo . --commit HEAD --patch fix.patch bundle.tar`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, Usage: "run the test on the kernel `FILE` too, as lab run takes it", Category: catKernel},
			&cli.StringFlag{Name: "commit", Usage: "build revision `REV` of --repo and run the test on it", Value: "HEAD", Category: catKernel},
		}, kernelFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "replay", Usage: "play back the bundle's recordings, and boot nothing else", Category: catMachine},
			allowKVMFlag(catMachine),
			&cli.BoolFlag{Name: "exact", Usage: "the runs must be the recorded ones byte by byte, which lab bisect --exact recorded", Category: catMachine},
			&cli.StringFlag{Name: "qemu", Usage: "run this QEMU `BINARY`", DefaultText: "qemu-system-ARCH", Category: catMachine},
			jsonFlag(),
		}, sourceFlags()),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one bundle is wanted: lab reproduce bundle.tar")
			}
			o := lab.ReproduceOptions{QEMU: c.String("qemu"), AllowKVM: c.Bool("allow-kvm"), Exact: c.Bool("exact"), Replay: c.Bool("replay")}
			for _, name := range []string{"allow-kvm", "exact", "kernel", "repo"} {
				if o.Replay && c.IsSet(name) {
					return usagef("--replay and --%s exclude each other: a recording is of its kernel, on TCG", name)
				}
			}
			switch file, repo := c.String("kernel"), c.String("repo"); {
			case file != "" && repo != "":
				return usagef("--kernel and --repo exclude each other")
			case repo == "":
				for _, name := range append([]string{"commit", "config", "toolchain", "make-jobs"}, onTop...) {
					if c.IsSet(name) {
						return usagef("--%s goes with --repo", name)
					}
				}
				if file != "" {
					o.Kernel = &lab.KernelSpec{File: file}
				}
			default:
				k := commitSpec(c)
				o.Kernel = &k
			}
			from, err := bundleSource(c, c.Args().First())
			if err != nil {
				return err
			}
			return runReproduce(c, from, o)
		},
	}
}

func runReproduce(c *cli.Context, from lab.BundleSource, o lab.ReproduceOptions) error {
	r, err := theLab(c).Reproduce(c.Context, from, o)
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
	return result(outcomeCode(r.Outcome))
}

func outcomeCode(outcome string) int {
	switch outcome {
	case lab.Same, lab.Fixed:
		return ExitGood
	case lab.Different, lab.NotFixed:
		return ExitBad
	}
	return ExitSkip
}

func printReproduction(w io.Writer, r lab.Reproduction) error {
	runs := r.Runs
	if r.Tried != nil {
		runs = append(slices.Clone(runs), *r.Tried)
	}
	for _, run := range runs {
		often := ""
		if run.Runs > 1 {
			often = fmt.Sprintf(" in run %d", run.Runs)
		}
		fmt.Fprintf(w, "%-5s %s: %s (%s)%s; %s\n", run.Role, plainText(run.Kernel), run.Mark, run.Reason, often, run.Outcome)
		if run.Identical {
			fmt.Fprintf(w, "      identical, byte by byte: %s\n", run.Trial.Exact)
		}
		for _, d := range run.Differences {
			fmt.Fprintf(w, "      %s\n", d)
		}
		for _, d := range run.Diffs {
			for line := range strings.Lines(d) {
				fmt.Fprintf(w, "      %s", line)
			}
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	_, err := fmt.Fprintln(w, r.Outcome)
	return err
}
