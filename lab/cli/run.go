package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "boot one kernel, run one container test, say good or bad",
		ArgsUsage: "-- COMMAND [ARG...]",
		Description: `Boots a kernel in QEMU with the image's root file system on its disk, runs
COMMAND in a container (pid, mount, uts, ipc, network and cgroup namespaces,
Docker's default capabilities and seccomp profile, no network device), and judges
what it saw.
Without COMMAND the image's own entrypoint and command run. One line on stdout
says the verdict; the exit code suits git bisect run.

With --record QEMU keeps a log of the run. With --replay and the same flags the very
same execution is played back by it, instruction for instruction, and what the guest
writes is compared with what it wrote, byte for byte: identical (0), different (1), or
QEMU, another version perhaps, cannot play it back (125).

EXAMPLES
   lab run --kernel bzImage --image docker://127.0.0.1:5000/app:1 -- sh -c 'su -c true'
   lab run --kernel linux-image-6.1.0-40-cloud-amd64_6.1.153-1_amd64.deb --image rootfs:app.tar -- /test
   lab run --repo ~/linux --commit v6.1.150 --config container --image oci:./layout:app -- /test
   lab run --kernel bzImage --image app:1 --base rootfs:base.tar --runtime crun -- /test
   lab run --repo ~/linux --patch printk.patch --image rootfs:app.tar -- /test
   lab run --kernel bzImage --image rootfs:app.tar --record seen -- /test
   lab run --kernel bzImage --image rootfs:app.tar --replay seen -- /test
   git bisect run lab run --repo . --config container --image oci:./layout:app -- /test`,
		Flags: slices.Concat(oneKernelFlags(), []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "keep all that the trial saw in `DIR`", Category: catOutput},
			&cli.StringFlag{Name: "record", Usage: "as --out, and keep a recording of the run in `DIR` (with tcg, in about twice the time)", Category: catOutput},
			&cli.StringFlag{Name: "replay", Usage: "play back the recording in `DIR`, which --record made, and compare", Category: catOutput},
			jsonFlag(),
		}, kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			s, err := runSpec(c)
			if err != nil {
				return err
			}
			if err := checkRecord(c, &s); err != nil {
				return err
			}
			if dir := c.String("replay"); dir != "" {
				return runReplay(c, s, dir)
			}
			return runRun(c, s)
		},
	}
}

// oneKernelFlags name the kernel of a command that boots one.
func oneKernelFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, Usage: "boot `FILE`: a bzImage, a vmlinux, a distribution's .deb or .rpm, a folder with the content of one, or an image that has a kernel (docker://, oci:…)", Category: catKernel},
		moduleFlag(catKernel),
		&cli.StringFlag{Name: "commit", Usage: "build revision `REV` of --repo", Value: "HEAD", Category: catKernel},
	}
}

// runSpec is the spec of a command that boots one kernel.
func runSpec(c *cli.Context) (lab.Spec, error) {
	s, err := spec(c)
	if err != nil {
		return s, err
	}
	s.Kernel.File, s.Kernel.Modules = c.String("kernel"), c.StringSlice("module")
	switch {
	case s.Kernel.File == "" && s.Kernel.Repo == "":
		return s, usagef("no kernel: name one with --kernel FILE, or --repo DIR [--commit REV]")
	case s.Kernel.File != "" && s.Kernel.Repo != "":
		return s, usagef("--kernel and --repo exclude each other")
	case s.Kernel.Repo == "" && (c.IsSet("commit") || c.IsSet("config") || c.IsSet("toolchain")):
		return s, usagef("--commit, --config and --toolchain go with --repo: a kernel FILE is built already")
	case s.Kernel.Repo == "" && (c.IsSet("pick") || c.IsSet("patch")):
		return s, usagef("--pick and --patch go with --repo: a kernel FILE is built already")
	case s.Kernel.Repo != "" && len(s.Kernel.Modules) > 0:
		return s, usagef("--module goes with --kernel: name the option of %s in a file for --config", s.Kernel.Modules[0])
	}
	if s.Kernel.Repo != "" {
		s.Kernel.Commit = c.String("commit")
	}
	return s, check(&s)
}

func runRun(c *cli.Context, s lab.Spec) error {
	l, out := theLab(c), c.String("out")
	try := l.Run
	if dir := c.String("record"); dir != "" {
		try = func(ctx context.Context, s lab.Spec) (lab.Trial, lab.Verdict, error) { return l.Record(ctx, s, dir) }
	}
	t, v, err := try(c.Context, s)
	if err != nil {
		return err
	}
	if out != "" {
		if err := t.Save(out); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, runResult{v, t})
	} else {
		showOutput(l, t, v)
		if k := t.Result.Container; k != nil && k.Made() != "" {
			l.Progress.Say("container by %s", k.Made())
		}
		if t.Exact != "" {
			l.Progress.Say("exact: %s", t.Exact)
		}
		_, err = fmt.Fprintf(c.App.Writer, "%s: %s%s\n", v.Mark, v.Reason, took(t))
	}
	if err != nil {
		return err
	}
	return result(markCode(v.Mark))
}

// checkRecord sees to it that the machine can be recorded, where it is to be.
func checkRecord(c *cli.Context, s *lab.Spec) error {
	record, replay := c.String("record"), c.String("replay")
	switch {
	case record == "" && replay == "":
		return nil
	case record != "" && replay != "":
		return usagef("--record and --replay exclude each other")
	case replay != "" && c.IsSet("out"):
		return usagef("--out does not go with --replay: what the run saw is in %s", replay)
	}
	if err := s.Recordable(); err != nil {
		return usagef("%v", err)
	}
	return nil
}

// runReplay plays back a recording.
func runReplay(c *cli.Context, s lab.Spec, dir string) error {
	p, err := theLab(c).PlayBack(c.Context, s, dir)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, p)
	} else {
		for _, d := range p.Differences {
			fmt.Fprintf(c.App.Writer, "%s\n", d)
		}
		_, err = fmt.Fprintln(c.App.Writer, p)
	}
	if err != nil {
		return err
	}
	return result(outcomeCode(p.Outcome))
}

// runResult is the JSON of lab run.
type runResult struct {
	lab.Verdict
	Trial lab.Trial `json:"trial"`
}

func markCode(m lab.Mark) int {
	switch m {
	case lab.Good:
		return ExitGood
	case lab.Bad:
		return ExitBad
	}
	return ExitSkip
}

// showOutput tells on stderr what the test or the kernel said last, where the
// verdict makes one ask.
func showOutput(l *lab.Lab, t lab.Trial, v lab.Verdict) {
	show := func(what string, data []byte) {
		for _, line := range lastLines(data, 20) {
			l.Progress.Say("%s: %s", what, line)
		}
	}
	show("stdout", t.Result.Stdout)
	show("stderr", t.Result.Stderr)
	if v.Mark == lab.Good {
		return
	}
	show("syslog", t.Result.Syslog)
	show("audit", t.Result.Audit)
	if t.End == lab.EndBoot || t.End == lab.EndCrash {
		show("console", t.Console)
	}
	if t.Failure != nil {
		if t.Failure.Log != "" {
			l.Progress.Say("build log: %s", t.Failure.Log)
		}
	}
}

// lastLines gives the last few lines of a guest's text, fit to be printed.
func lastLines(data []byte, most int) []string {
	text := strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\r\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	if cut := len(lines) - most; cut > 0 {
		lines = append([]string{fmt.Sprintf("[%d lines before]", cut)}, lines[cut:]...)
	}
	for i, line := range lines {
		lines[i] = strings.TrimRight(strings.Map(func(r rune) rune {
			if r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
				return -1
			}
			return r
		}, line), " ")
	}
	return lines
}

// took says where the time went, in parentheses.
func took(t lab.Trial) string {
	var parts []string
	if t.Kernel.Release != "" {
		parts = append(parts, "Linux "+t.Kernel.Release)
	}
	add := func(what string, d time.Duration) {
		if d > 0 {
			parts = append(parts, fmt.Sprintf("%s in %.1f s", what, d.Seconds()))
		}
	}
	if t.Cached {
		parts = append(parts, "kernel cached")
	} else {
		add("built", t.Build)
	}
	if t.End != lab.EndBoot {
		add("booted", t.Boot)
	}
	add("tested", t.Test)
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
