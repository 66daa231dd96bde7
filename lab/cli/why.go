package cli

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "say which function of the kernel made the error that a system call got",
		ArgsUsage: "BUNDLE | -- COMMAND [ARG...]",
		Description: `Compares two kernels, or two of something else, as lab diff does: those of the flags, or
the good and the bad kernel of a bundle. Then it boots the second one once more, stops
at the first system call that was answered differently, follows the kernel through the
call one instruction after the other, and goes back from the answer to the instruction
that made the error: through registers, memory and the functions that returned it. An
error in netlink's acknowledgement of what was sent counts as the answer.

Functions are named by the System.map of a kernel that lab built, which bundles have,
and for others by the kernel itself (/proc/kallsyms). With a bundle and --repo the
kernel is built once more with debug information, and lines of the source are named;
--vmlinux FILE takes what you have. The guest has one CPU, no address randomization, and
never KVM.

EXAMPLES
   lab why bundle.tar
   lab why --repo ~/linux bundle.tar
   lab why --repo ~/linux --commits v6.1,v6.6 --image oci:./layout:app -- su -c true
   lab why --kernels old.deb,new.deb --vmlinux vmlinux-new --image rootfs:app.tar -- /test
   lab why --json bundle.tar | jq -r '.at[0].function, .chain[].function'`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "vmlinux", Usage: "take the symbols of the second kernel from `FILE`, a vmlinux or System.map", DefaultText: "what lab built with it, or the bundle has", Category: catKernel},
		}, compareFlags()...),
		Action: func(c *cli.Context) error {
			explain, err := explanation(c)
			if err != nil {
				return err
			}
			w, err := explain()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, w)
			}
			if _, err = fmt.Fprint(c.App.Writer, w.Text()); err != nil {
				return fmt.Errorf("print explanation: %w", err)
			}
			return nil
		},
	}
}

// explanation finds what is to be explained.
func explanation(c *cli.Context) (func() (lab.Why, error), error) {
	l, vmlinux := theLab(c), c.String("vmlinux")
	switch named := beforeDashes(c); {
	case c.IsSet("trace"):
		return nil, usagef("--trace goes without saying: both are traced")
	case len(named) == 0 && c.NumFlags() > 0:
		o, err := liveOptions(c)
		return func() (lab.Why, error) { return l.WhyLive(c.Context, o, vmlinux) }, err
	case len(named) == 1 && c.NArg() == 1:
		if err := only(c, "a bundle", slices.Concat(bundleFlags, []string{"vmlinux", "repo", "runs", "out", "qemu"})...); err != nil {
			return nil, err
		}
		o, err := endsOptions(c)
		if err != nil {
			return nil, err
		}
		from, err := bundleSource(c, named[0])
		return func() (lab.Why, error) {
			return l.WhyEnds(c.Context, from, o, lab.Symbols{Vmlinux: vmlinux, Repo: c.String("repo")})
		}, err
	}
	return nil, usagef("one bundle, or flags of lab diff and a command behind -- are wanted; there are %d arguments", c.NArg())
}
