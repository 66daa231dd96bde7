package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"lab/lab"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "say what is the first thing in which two runs of a test differ",
		ArgsUsage: "RUN RUN | BUNDLE | -- COMMAND [ARG...]",
		Description: `Compares two runs of a test, A and B, down to the first system call that the kernel
answered differently.

With a COMMAND both are booted now, and traced. All flags are those of lab run, and one of
those of lab matrix has two values: --kernels A,B, --commits, --images, --cmdlines, --caps,
--containers or --runtimes. Each is run twice, or --runs N times: what differs between runs
of the same is noise, and is left out. The runs are kept: the same command compares at once
what is on record, and --out says where.

A RUN is a folder of lab run --out, a file with what lab run --json printed, or a folder
of such folders: runs of the same. Those with --trace have the system calls.

Of a BUNDLE the recorded good run (A) is compared with the bad one (B), after all of its
bytes were verified. With --trace both kernels are booted again, confined as lab reproduce
has them, unless the recorded runs have a trace.

What is seen at once comes first: how the test ended, the syslog, reports on the console,
stdout and stderr, without times, addresses and process numbers. Then the calls are
aligned, process by process, and the first one that was answered differently is shown in
both runs, with the calls around it.

Exits with 0 where nothing differs, and with 1 where something does.

EXAMPLES
   lab diff --kernels old.deb,new.deb --image rootfs:app.tar -- /test
   lab diff --repo ~/linux --commits v6.1,v6.6 --image oci:./layout:app -- su -c true
   lab diff --kernel linux.deb --image rootfs:app.tar --cmdlines '' --cmdlines security=selinux -- /test
   lab diff --trace bundle.tar
   lab run --trace --kernel old.deb --image rootfs:app.tar --out a -- /test
   lab run --trace --kernel new.deb --image rootfs:app.tar --out b -- /test
   lab diff a b
   lab diff --json a b | jq .call.a,.call.b`,
		Flags: append([]cli.Flag{allowKVMFlag(catBundle)}, compareFlags()...),
		Action: func(c *cli.Context) error {
			compare, err := comparison(c)
			if err != nil {
				return err
			}
			d, err := compare()
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = printJSON(c.App.Writer, d)
			} else if _, err = fmt.Fprint(c.App.Writer, d.Text(isTerminal(c.App.Writer), width(c.App.Writer))); err != nil {
				err = fmt.Errorf("print difference: %w", err)
			}
			if err == nil && d.Outcome == lab.Different {
				err = result(ExitBad)
			}
			return err
		},
	}
}

// compareFlags say what two are compared, and how.
func compareFlags() []cli.Flag {
	return slices.Concat(oneKernelFlags(), axisFlags(), []cli.Flag{
		&cli.IntFlag{Name: "runs", Usage: "run each of the two `N` times", Value: 2, Category: catVerdict},
		&cli.IntFlag{Name: "jobs", Usage: "boot `N` guests at the same time", Value: 1, Category: catMachine},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "keep the runs in `DIR`, and go on with those that it has", DefaultText: "a folder of $XDG_STATE_HOME/lab/matrices named by the test", Category: catOutput},
		verifyFlag(), jsonFlag(),
	}, kernelFlags(), testFlags())
}

// bundleFlags are those of compareFlags that any bundle takes.
var bundleFlags = []string{"verify", "registry-mirror", "plain-http", "json"}

// comparison finds what is to be compared.
func comparison(c *cli.Context) (func() (lab.RunDiff, error), error) {
	l := theLab(c)
	switch named := beforeDashes(c); {
	case len(named) == 0 && c.NumFlags() > 0:
		o, err := liveOptions(c)
		return func() (lab.RunDiff, error) { return l.DiffLive(c.Context, o) }, err
	case len(named) == 1 && c.NArg() == 1:
		names := append(slices.Clone(bundleFlags), "trace")
		if c.Bool("trace") {
			names = append(names, "runs", "out", "qemu", "allow-kvm")
		}
		if err := only(c, "a bundle that is not run again (--trace)", names...); err != nil {
			return nil, err
		}
		o, err := endsOptions(c)
		if err != nil {
			return nil, err
		}
		from, err := bundleSource(c, named[0])
		return func() (lab.RunDiff, error) { return l.DiffEnds(c.Context, from, o) }, err
	case len(named) == 2 && c.NArg() == 2:
		return func() (lab.RunDiff, error) { return l.DiffRuns(named[0], named[1]) }, only(c, "two saved runs", "json")
	}
	return nil, usagef("two runs, one bundle, or flags of lab run and a command behind -- are wanted; there are %d arguments", c.NArg())
}

// endsOptions say how the kernels of a bundle are compared.
func endsOptions(c *cli.Context) (lab.EndsOptions, error) {
	o := lab.EndsOptions{Trace: c.Bool("trace"), Runs: c.Int("runs"), Dir: c.String("out"), QEMU: c.String("qemu"), AllowKVM: c.Bool("allow-kvm")}
	if o.Runs < 1 || o.Runs > mostRuns {
		return o, usagef("--runs %d is not between 1 and %d", o.Runs, mostRuns)
	}
	return o, nil
}

// only refuses flags that mean nothing here.
func only(c *cli.Context, what string, names ...string) error {
	for _, f := range c.Command.Flags {
		if name := f.Names()[0]; c.IsSet(name) && !slices.Contains(names, name) {
			return usagef("--%s does not go with %s", name, what)
		}
	}
	return nil
}

// liveOptions are what is to be booted.
func liveOptions(c *cli.Context) (lab.MatrixOptions, error) {
	for _, name := range []string{"verify", "allow-kvm"} {
		if c.IsSet(name) {
			return lab.MatrixOptions{}, usagef("--%s goes with a bundle", name)
		}
	}
	s, err := spec(c)
	if err != nil {
		return lab.MatrixOptions{}, err
	}
	if !c.IsSet("trace") {
		s.Test.Trace = true
	}
	o, err := matrixOptions(c, s)
	o.Dir = c.String("out")
	return o, err
}

// width is how many characters a line of the terminal has; 0 of what is none.
func width(w any) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil {
			return n
		}
	}
	return 0
}
