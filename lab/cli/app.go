// Package cli is lab's command line: flags to options, results to stdout,
// progress to stderr, errors to exit codes. What the commands do is in the
// packages below.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Main runs lab with the process's arguments and gives its exit code.
func Main(args []string) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		cancel(&interrupt{s})
		s = <-signals // a second one does not wait; QEMU and make die with us
		if n, ok := s.(syscall.Signal); ok {
			os.Exit(128 + int(n))
		}
	}()
	return run(ctx, args, os.Stdout, os.Stderr)
}

// run is Main with its surroundings as arguments.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := newApp(args, stdout, stderr)
	args = flagsFirst(app, args)
	n, text := code(ctx, app.RunContext(ctx, args))
	if text != "" {
		fmt.Fprintf(stderr, "lab: %s\n", text)
		if n == ExitUsage {
			fmt.Fprintln(stderr, "Run 'lab help' or 'lab COMMAND --help' to see what it takes.")
		}
	}
	return n
}

func newApp(args []string, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:  "lab",
		Usage: "find the kernel change that broke a container",
		Description: `lab builds a guest disk from container images, builds and boots candidate
kernels in QEMU, runs a container test in each, finds the change that broke it,
and writes one file with which anyone can see it break again.

Begin with:  lab doctor            what this machine has and lacks
             lab demo              a real regression, found and rerun
             lab run --help        one kernel, one test, one verdict

` + exitStatus,
		Version:                   version(),
		Metadata:                  map[string]any{rawArgs: args},
		Writer:                    stdout,
		ErrWriter:                 stderr,
		EnableBashCompletion:      true,
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // codes are mapped in one place: see code
		OnUsageError:              onUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "cache", Usage: "keep images, disks, trees and kernels in `DIR`", EnvVars: []string{"LAB_CACHE"}, DefaultText: "$XDG_CACHE_HOME/lab"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress, only results and errors"},
			&cli.BoolFlag{Name: "debug", Usage: "say more, and log what libraries log"},
		},
		Before: setup,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unknown command %q", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
		Commands: []*cli.Command{
			runCommand(), shellCommand(), debugCommand(), bisectCommand(), matrixCommand(), diffCommand(), whyCommand(), reproduceCommand(), reportCommand(), bundleCommand(), imageCommand(), kernelCommand(), doctorCommand(), demoCommand(), completionCommand(), trialCommand(),
		},
	}
	for _, c := range app.Commands {
		closeTraps(c)
	}
	hideBehindDashes(app, args)
	return app
}

// hideBehindDashes takes the subcommands from a command whose first argument
// stands behind "--". That is what it is to run: urfave would take the program
// "log" for the subcommand.
func hideBehindDashes(app *cli.App, args []string) {
	rest, dashed := firstArgument(app.Flags, args[min(1, len(args)):])
	if len(rest) == 0 || dashed {
		return
	}
	if c := app.Command(rest[0]); c != nil {
		if _, dashed := firstArgument(c.Flags, rest[1:]); dashed {
			c.Subcommands, c.HideHelpCommand = nil, true
		}
	}
}

// flagsFirst has the flags of commands that take a bundle stand before it, wherever they
// were given. A "--" comes to stand before it, too.
func flagsFirst(app *cli.App, args []string) []string {
	rest, dashed := firstArgument(app.Flags, args[min(1, len(args)):])
	if len(rest) == 0 || dashed || !slices.Contains([]string{"report", "shell", "debug", "diff", "why"}, rest[0]) {
		return args
	}
	command := app.Command(rest[0])
	done := len(args) - len(rest) + 1
	flags, others := slices.Clone(args[:done]), []string(nil)
	for rest = args[done:]; len(rest) > 0; {
		at, dashed := firstArgument(command.Flags, rest)
		flags = append(flags, rest[:len(rest)-len(at)]...)
		if len(at) == 0 {
			break
		}
		if dashed {
			flags = flags[:len(flags)-1]
			others = append(others, at...)
			return slices.Concat(flags, []string{"--"}, others)
		}
		others = append(others, at[0])
		rest = at[1:]
	}
	return slices.Concat(flags, others)
}

// firstArgument finds the first argument that is no flag, nor the value of one,
// and whether it stands behind "--".
func firstArgument(flags []cli.Flag, args []string) (rest []string, dashed bool) {
	takesValue := map[string]bool{}
	for _, f := range flags {
		if _, isBool := f.(*cli.BoolFlag); !isBool {
			for _, name := range f.Names() {
				takesValue[name] = true
			}
		}
	}
	for len(args) > 0 {
		switch a := args[0]; {
		case a == "--":
			return args[1:], true
		case a == "-" || !strings.HasPrefix(a, "-"):
			return args, false
		case takesValue[strings.TrimLeft(a, "-")]:
			args = args[min(2, len(args)):]
		default:
			args = args[1:]
		}
	}
	return nil, false
}

// closeTraps shuts urfave's traps for a command and its subcommands: usage errors
// are ours, and so is the end of every help text.
func closeTraps(c *cli.Command) {
	c.OnUsageError = onUsageError
	c.Description = strings.TrimSpace(c.Description + "\n\n" + exitStatus)
	if len(c.Subcommands) == 0 {
		c.Before = rejectFlags
		return
	}
	if action := c.Action; action != nil { // it is a command itself, too
		c.Action = func(ctx *cli.Context) error {
			if err := rejectFlags(ctx); err != nil {
				return err
			}
			return action(ctx)
		}
	} else {
		c.Action = func(ctx *cli.Context) error {
			if ctx.Args().Present() {
				return usagef("unknown command \"%s %s\"", c.Name, ctx.Args().First())
			}
			return cli.ShowSubcommandHelp(ctx)
		}
	}
	for _, sub := range c.Subcommands {
		closeTraps(sub)
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return &usageError{err.Error()} }

// rejectFlags refuses a flag that stands behind an argument, where Go's flag
// parser would take it for an argument without a word.
func rejectFlags(c *cli.Context) error {
	for _, a := range beforeDashes(c) {
		if strings.HasPrefix(a, "-") && a != "-" {
			return usagef("flag %s comes after an argument: put flags first, and a command to run behind --", a)
		}
	}
	return nil
}

// beforeDashes gives the positional arguments that stand before "--".
func beforeDashes(c *cli.Context) []string {
	args := c.Args().Slice()
	raw, _ := c.App.Metadata[rawArgs].([]string)
	i := slices.Index(raw, "--")
	if i < 0 {
		return args
	}
	return args[:max(0, len(args)-len(raw[i+1:]))]
}

const rawArgs = "args"

// version is the module's version, with the commit it was built from where Go
// recorded one.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && !strings.Contains(v, s.Value[:min(12, len(s.Value))]) {
			v += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}
