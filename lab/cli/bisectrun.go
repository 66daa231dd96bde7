package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// runFlags are those of a bisect with a command of the user's.
func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "run", Usage: "no kernels: run `CMD` (a line for /bin/sh, or -- and a program with its arguments) for each commit of the git repository --repo, by default the one around this folder", Category: catTest},
		&cli.BoolFlag{Name: "no-checkout", Usage: "run it in this folder, with nothing checked out: LAB_COMMIT is all that it needs", Category: catTest},
	}
}

// notKernels are the flags that go with --run; the others are of kernels.
var notKernels = []string{
	"run", "no-checkout", "repo", "good", "bad", "first-parent", "hunks", "path", "fix", "term-good", "term-bad", "prompt", "replay", "timeout", "good-match", "bad-match", "spec", "dir", "json", "confidence", "max-runs", "steady", "no-proof", "jobs", "launcher",
}

// commandSpec turns the Spec of --run into one without a kernel.
func commandSpec(c *cli.Context, s lab.Spec) (lab.Spec, error) {
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !c.IsSet(name) || slices.Contains(notKernels, name) || name == "help" {
			continue
		}
		switch name {
		case "bundle":
			return s, usagef("--bundle goes with kernels: with --run there is nothing to boot again; what each test said stays in --dir")
		case "symptom":
			return s, usagef("--symptom goes with kernels: with --run the command judges by its exit status, --good-match and --bad-match")
		}
		return s, usagef("--%s goes with kernels, and --run tests commits of any repository without one", name)
	}
	command := lab.Command{NoCheckout: c.Bool("no-checkout")}
	switch line := c.String("run"); {
	case line == "--" && len(s.Test.Command) > 0: // it has swallowed what ends the flags
		command.Args = s.Test.Command
	case line == "--" || line == "":
		return s, usagef("--run: no command; --run 'make && ./test' or --run -- make test is wanted")
	case len(s.Test.Command) > 0:
		return s, usagef("--run: the command is given twice: as %q and behind --", line)
	default:
		command.Shell = line
	}
	if c.IsSet("timeout") {
		command.Timeout = c.Duration("timeout")
		if command.Timeout == 0 {
			return s, usagef("--timeout 0s: leave it out where the command may take as long as it likes")
		}
	}
	repo := s.Kernel.Repo
	if repo == "" {
		repo = "."
	}
	if command.NoCheckout {
		dir, err := os.Getwd()
		if err != nil {
			return s, fmt.Errorf("find this folder: %w", err)
		}
		command.Dir = dir
	}
	return lab.Spec{Kernel: lab.KernelSpec{Repo: repo}, Symptom: s.Symptom, Command: &command}, nil
}
