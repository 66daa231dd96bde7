package cli

import (
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// manyHelp is what lab bisect's help says of several tests at the same time.
const manyHelp = `With --jobs N as many candidates are tested at the same time, those that tell most
together: N divide what is left by N+1. A verdict that leaves others in vain ends
them. Kernels are built one after another, all processors at each, and boot side by
side; commands of --run each have a work tree of their own.

With --launcher CMD each of these tests runs where CMD takes it: lab runs CMD with a
command behind it, as in srun -c8 lab trial …, and waits. All machines must have lab,
its cache (--cache) and the repository under the same paths, and QEMU where kernels
are booted; kernels are built on this one. A CMD that fails says nothing of the
commit: the test is given out again, a few times at most.`

// manyFlags say how many tests are made at the same time, and where.
func manyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "jobs", Usage: "test `N` candidates at the same time", Value: 1, Category: catMachine},
		&cli.StringFlag{Name: "launcher", Usage: "run each test by `CMD`, a line for a shell to which a command is appended, as in 'srun -c8'", Category: catMachine},
	}
}

// mostJobs is more than a search of one history can use.
const mostJobs = 64

func setMany(c *cli.Context, o *lab.BisectOptions) error {
	o.Jobs, o.Launcher = c.Int("jobs"), strings.TrimSpace(c.String("launcher"))
	switch {
	case o.Jobs < 1 || o.Jobs > mostJobs:
		return usagef("--jobs %d is not between 1 and %d; how many compilers run at a time is --make-jobs", o.Jobs, mostJobs)
	case o.Jobs > 1 && c.Bool("prompt"):
		return usagef("--jobs %d does not go with --prompt: one is asked of one trial at a time", o.Jobs)
	case o.Jobs > 1 && o.Settings != nil:
		return usagef("--jobs %d does not go with two settings (--cmdline-bad, --caps-bad): their sets are tested one after another", o.Jobs)
	case c.IsSet("launcher") && o.Launcher == "":
		return usagef("--launcher: no command; 'srun -c8' or the like is wanted")
	case o.Launcher != "" && (o.Spec.Symptom.Kind == lab.SymptomBuild || o.Spec.Symptom.Kind == lab.SymptomAsk):
		return usagef("--launcher goes with tests that run or boot something: kernels are built on this machine")
	}
	return nil
}

// trialCommand is what a launcher runs on another machine.
func trialCommand() *cli.Command {
	return &cli.Command{
		Name: "trial", Hidden: true,
		Usage:     "carry out one test of a bisect with --launcher",
		ArgsUsage: "DIR",
		Description: `Does the test that errand.json in DIR asks for and leaves what came of it in
answer.json there. Status 0 says that there is an answer, good or bad as it may be.`,
		Action: func(c *cli.Context) error {
			if c.Args().Len() != 1 {
				return usagef("lab trial takes one folder")
			}
			return theLab(c).Answer(c.Context, c.Args().First())
		},
	}
}
