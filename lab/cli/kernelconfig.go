package cli

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/lab"
)

func kernelConfigCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "resolve config fragments at a commit, by Kconfig itself",
		Description: `Writes the .config that a build of the commit with these fragments has, and names
every symbol that was asked for and did not survive, with the dependency that stopped
it. What no fragment names is off; when one of them is a whole .config, it has the
tree's default.

Fragments are files of CONFIG_ lines, a whole .config, or one of these:

  container    what containers and lab's guest need (the default)
  tiny         the least that runs a container test, for quick builds
  selinux      SELinux, on top of container
  debug        KASAN, lock checking and the like, on top of container or tiny
  host         the running kernel's configuration; host:FILE that of a package
               or of anything else that lab kernel check takes. Give container
               behind it: lab builds no modules. Keys, debug information and
               what else makes no two builds the same are left out.

EXIT STATUS 1 says that something was lost; the file is written all the same.

EXAMPLES
   lab kernel config --repo ~/linux --commit v6.1.150 --config container --config selinux -o lab.config
   lab run --repo ~/linux --commit v6.1.150 --config lab.config --image rootfs:app.tar -- /test
   lab kernel config --config host:linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb --config container -o lab.config`,
		Flags: append(commitFlags(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the .config to `FILE`; - is stdout", Category: catOutput},
			jsonFlag(),
		),
		Action: func(c *cli.Context) error {
			out := c.String("output")
			switch {
			case c.Args().Present():
				return usagef("unexpected argument %q", c.Args().First())
			case out == "":
				return usagef("no output: name a file with --output FILE")
			case out == "-" && c.Bool("json"):
				return usagef("--json and -o - both want stdout")
			}
			return runKernelConfig(c, commitSpec(c), out)
		},
	}
}

// commitFlags say which commit, configured how.
func commitFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "repo", Usage: "the Linux git tree `DIR-OR-URL`, as for lab run", Value: ".", Category: catKernel},
		&cli.StringFlag{Name: "commit", Usage: "revision `REV` of --repo", Value: "HEAD", Category: catKernel},
	}
	for _, f := range kernelFlags() {
		if name := f.Names()[0]; name == "config" || name == "toolchain" || slices.Contains(onTop, name) {
			flags = append(flags, f)
		}
	}
	return flags
}

func makeJobsFlag() cli.Flag {
	return &cli.IntFlag{Name: "make-jobs", Aliases: []string{"j"}, Usage: "run `N` compilers at a time", DefaultText: "one for each core", Category: catKernel}
}

func commitSpec(c *cli.Context) lab.KernelSpec {
	return lab.KernelSpec{Repo: c.String("repo"), Commit: c.String("commit"), Config: c.StringSlice("config"), Toolchain: c.String("toolchain"), Jobs: c.Int("make-jobs"), Picks: c.StringSlice("pick"), Patches: c.StringSlice("patch")}
}

// configResult is the JSON of lab kernel config.
type configResult struct {
	kernel.Resolution
	Path    string          `json:"path,omitempty"` // where the .config is
	Lacks   []string        `json:"lacks"`          // what lab's guest needs and it has not
	Failure *kernel.Failure `json:"failure,omitempty"`
}

func runKernelConfig(c *cli.Context, k lab.KernelSpec, out string) error {
	l := theLab(c)
	r, failure, err := l.Configure(c.Context, k)
	if err != nil {
		return err
	}
	res := configResult{Resolution: r, Failure: failure, Lacks: []string{}}
	if res.Lost == nil {
		res.Lost = []kconfig.Difference{}
	}
	if failure != nil {
		l.Progress.Say("%.12s does not configure: %s%s", r.Commit, failure.Line, logLine(failure))
		if c.Bool("json") {
			if err := printJSON(c.App.Writer, res); err != nil {
				return err
			}
		}
		return result(ExitSkip)
	}
	resolved, err := kconfig.Parse(bytes.NewReader(r.Config))
	if err != nil {
		return fmt.Errorf("read the resolved configuration: %w", err)
	}
	res.Lacks = append(res.Lacks, kconfig.Guest(resolved)...)
	if out == "-" {
		_, err = c.App.Writer.Write(r.Config)
	} else {
		res.Path = out
		err = renameio.WriteFile(out, r.Config, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	switch {
	case c.Bool("json"):
		err = printJSON(c.App.Writer, res)
	case out == "-":
		for _, d := range r.Lost {
			l.Progress.Say("%s", d)
		}
	default:
		for _, d := range r.Lost {
			if _, err = fmt.Fprintln(c.App.Writer, d); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(c.App.Writer, "%s: Linux %s at %.12s, %d symbols set, %d lost\n", out, kconfig.Fragment{Data: r.Config}.Release(), r.Commit, set(resolved), len(r.Lost))
	}
	for _, lack := range res.Lacks {
		l.Progress.Say("lab's guest cannot run in it: %s", lack)
	}
	if err == nil && len(r.Lost) > 0 {
		err = result(ExitBad)
	}
	return err
}

// set counts the symbols that are not off.
func set(c kconfig.Config) int {
	n := 0
	for _, value := range c {
		if value != "n" {
			n++
		}
	}
	return n
}
