package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"lab/lab"
	"lab/lab/bundle"
)

// mostBreaks is how many breakpoints an x86 CPU has (debug registers DR0 to DR3).
const mostBreaks = 4

func debugCommand() *cli.Command {
	return &cli.Command{
		Name:      "debug",
		Usage:     "run a bundle's kernel and test under gdb",
		ArgsUsage: "BUNDLE --good|--bad",
		Description: `Boots a kernel of a bundle, with its disk, machine and test, stopped before its first
instruction, and runs gdb on it, with the kernel's symbols, until you leave gdb. It is
verified and confined as by lab reproduce, and has one CPU, nokaslr and never KVM.

The symbols and lines of the source are those of --vmlinux FILE; or of a build with
debug information of the recorded commit and configuration, from your --repo, which is
kept for the next time; or the vmlinux that the bundle has (lab bisect
--with-vmlinux). In any case all that the kernel loads has to be the same, byte by
byte, or it is refused.

--break PLACE stops there, as gdb's hbreak does, from the first instruction on. --ex runs
a command of gdb behind those; with --batch gdb ends after them, and says the rest on
stdout.

With --replay the recorded run (lab bisect --record) is played back, the same in every
session, to the last instruction; with its own command line, so without nokaslr. gdb goes
backwards too (reverse-continue, reverse-step, watch), for which lab plays the run again.

--print prints gdb's command and leaves running it to you: in another terminal, or in
an editor. The guest lives until it ends, or you interrupt lab.

The exit status is gdb's.

EXAMPLES
   lab debug bundle.tar --bad --repo ~/linux --break 'kernel/audit.c:752 if err != 0'
   lab debug bundle.tar --bad --break audit_receive_msg --batch --ex continue --ex bt
   lab debug bundle.tar --bad --replay --break netlink_ack
   lab debug bundle.tar --bad --print`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: bundle.RoleGood, Usage: "boot the good kernel", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleBad, Usage: "boot the bad kernel", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleCulprit, Usage: "boot the kernel of the first bad commit, where it is another one", Category: catBundle},
			&cli.BoolFlag{Name: bundle.RoleParent, Usage: "boot the kernel of that one's parent, where it is another one", Category: catBundle},
			&cli.BoolFlag{Name: "replay", Usage: "play the recorded run back", Category: catBundle},
			verifyFlag(), mirrorFlag(catBundle), plainHTTPFlag(catBundle),
			&cli.StringFlag{Name: "repo", Usage: "build the kernel with debug information from the repository `DIR`, or at a URL", Category: catKernel},
			&cli.StringFlag{Name: "vmlinux", Usage: "take symbols and lines from `FILE`", Category: catKernel},
			&cli.StringSliceFlag{Name: "break", Usage: "stop at `PLACE`, as gdb has it; may be repeated", Category: catTest},
			&cli.StringSliceFlag{Name: "ex", Usage: "then run gdb's `COMMAND`; may be repeated", Category: catTest},
			&cli.BoolFlag{Name: "batch", Usage: "end gdb after these commands", Category: catTest},
			&cli.BoolFlag{Name: "console", Usage: "show what the kernel says, on stderr", Category: catOutput},
			&cli.BoolFlag{Name: "print", Usage: "print the command of gdb, and do not run it", Category: catOutput},
			&cli.StringFlag{Name: "qemu", Usage: "run this QEMU `BINARY`", DefaultText: "qemu-system-ARCH", Category: catMachine},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one bundle is wanted, there are %d arguments", c.NArg())
			}
			role, err := oneRole(c)
			if err != nil {
				return err
			}
			o := lab.DebugOptions{
				Role: role, Symbols: lab.Symbols{Vmlinux: c.String("vmlinux"), Repo: c.String("repo")},
				Breaks: c.StringSlice("break"), Commands: c.StringSlice("ex"), Replay: c.Bool("replay"), QEMU: c.String("qemu"),
			}
			switch {
			case len(o.Breaks) > mostBreaks:
				return usagef("--break is there %d times, and a CPU has %d breakpoints", len(o.Breaks), mostBreaks)
			case o.Vmlinux != "" && o.Repo != "":
				return usagef("--vmlinux and --repo exclude each other")
			case c.Bool("batch") && c.Bool("print"):
				return usagef("--batch and --print exclude each other")
			}
			for _, command := range slices.Concat(o.Breaks, o.Commands) {
				if strings.ContainsAny(command, "\r\n") {
					return usagef("%q is more than one command", command)
				}
			}
			from, err := bundleSource(c, c.Args().First())
			if err != nil {
				return err
			}
			status := 0
			if c.Bool("console") {
				o.Console = c.App.ErrWriter
			}
			o.GDB = func(ctx context.Context, args []string, over <-chan struct{}) (err error) {
				if c.Bool("print") {
					return printGDB(ctx, c, args, over)
				}
				if c.Bool("batch") {
					args = append([]string{"-batch"}, args...)
				}
				status, err = runGDB(ctx, c, args)
				return err
			}
			if _, err := exec.LookPath("gdb"); err != nil && !c.Bool("print") {
				return fmt.Errorf("gdb is not installed: lab doctor --install, or --print its command for another machine's: %w", err)
			}
			l := theLab(c)
			t, err := l.Debug(c.Context, from, o)
			if err != nil {
				return err
			}
			switch {
			case t.End == lab.EndTest:
				l.Progress.Say("the test ended: exit status %d", t.Result.Exit)
			case len(t.Reports) > 0: // and not because gdb ended it
				l.Progress.Say("%s: %s", t.End, t.Detail)
			}
			return result(status)
		},
	}
}

// oneRole is the kernel of the bundle that one flag of roles names.
func oneRole(c *cli.Context) (string, error) {
	found := ""
	for _, role := range roles {
		switch {
		case !c.Bool(role):
		case found != "":
			return "", usagef("--%s and --%s exclude each other", found, role)
		default:
			found = role
		}
	}
	if found == "" {
		return "", usagef("which of the bundle's kernels? --good or --bad")
	}
	return found, nil
}

// printGDB prints gdb's command for a shell, and waits until the guest is over.
func printGDB(ctx context.Context, c *cli.Context, args []string, over <-chan struct{}) error {
	quoted := []string{"gdb"}
	for _, a := range args {
		quoted = append(quoted, bundle.Word(a))
	}
	if _, err := fmt.Fprintln(c.App.Writer, strings.Join(quoted, " ")); err != nil {
		return fmt.Errorf("print command: %w", err)
	}
	theLab(c).Progress.Say("the guest waits for it; interrupt lab to end it")
	select {
	case <-over:
	case <-ctx.Done():
	}
	return nil
}

// runGDB runs gdb, on the terminal if there is one: in the foreground, so that Ctrl-C is
// gdb's alone.
func runGDB(ctx context.Context, c *cli.Context, args []string) (status int, err error) {
	cmd := exec.CommandContext(ctx, "gdb", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, c.App.Writer, c.App.ErrWriter
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Foreground: true, Ctty: in}
		// Who takes the terminal back from the background gets this signal.
		signal.Ignore(unix.SIGTTOU)
		defer func() {
			_ = unix.IoctlSetPointerInt(in, unix.TIOCSPGRP, unix.Getpgrp())
			signal.Reset(unix.SIGTTOU)
		}()
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run gdb: %w", err)
	}
	return 0, nil
}
