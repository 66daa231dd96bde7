package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "say what is the first thing in which two runs of a test differ",
		ArgsUsage: "RUN RUN | BUNDLE",
		Description: `Compares two runs: two kernels, two boot options, two images. A RUN is a folder of
lab run --out, or a file with what lab run --json printed. Of a bundle the good run (A)
is compared with the bad one (B), after all of its bytes were verified.

What is seen at once comes first: how the test ended, the syslog, reports on the console,
stdout and stderr, without times, addresses and process numbers. Where both runs have a
trace of their system calls (a file trace in the folder, as strace -f writes it), the
calls are aligned, process by process, and the first one that the kernel answered
differently is shown in both runs, with the calls around it.

Exits with 0 where nothing differs, and with 1 where something does.

EXAMPLES
   lab run --kernel old.deb --image rootfs:app.tar --out a -- /test
   lab run --kernel new.deb --image rootfs:app.tar --out b -- /test
   lab diff a b
   lab diff bundle.tar
   lab diff --json a b | jq .call.a,.call.b`,
		Flags: append([]cli.Flag{jsonFlag()}, sourceFlags()...),
		Action: func(c *cli.Context) (err error) {
			var d lab.RunDiff
			switch c.NArg() {
			case 1:
				from, failed := bundleSource(c, c.Args().First())
				if failed != nil {
					return failed
				}
				d, err = theLab(c).DiffEnds(c.Context, from)
			case 2:
				if c.IsSet("verify") {
					return usagef("--verify goes with a bundle, not with two runs")
				}
				d, err = theLab(c).DiffRuns(c.Args().Get(0), c.Args().Get(1))
			default:
				return usagef("two runs or one bundle are wanted, there are %d arguments", c.NArg())
			}
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = printJSON(c.App.Writer, d)
			} else if _, err = fmt.Fprint(c.App.Writer, d.Text()); err != nil {
				err = fmt.Errorf("print difference: %w", err)
			}
			if err == nil && d.Outcome == lab.Different {
				err = result(ExitBad)
			}
			return err
		},
	}
}
