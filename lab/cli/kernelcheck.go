package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/kernel/kconfig"
)

func kernelCheckCommand() *cli.Command {
	return &cli.Command{
		Name:  "check",
		Usage: "say what a kernel lacks for lab's guest and for containers",
		Description: `Goes through a kernel's configuration feature by feature: what lab's guest needs,
namespaces, control groups, seccomp, what an engine (Docker, Podman) needs for its
usual network and storage, audit, security modules. FILE is a .config, also
compressed by gzip as /proc/config.gz is; a bzImage or vmlinux built with
CONFIG_IKCONFIG; or a distribution's package. A symbol that this version of Linux
does not know yet, or no more, is not missed.

  required  lab's guest, or any container, cannot run without it: exit status 1
  engine    a container engine cannot, with its usual network and storage: exit
            status 1 with --engine, when a test brings an engine of its own
  optional  some containers or some tests ask for it

Built as a module (m) a feature is there for an engine in a system of its own. Lab's
guest loads only its disk's and its ports' modules, from the kernel's package.

EXAMPLES
   lab kernel check /boot/config-$(uname -r)
   lab kernel check linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb
   lab kernel check --json bzImage | jq -r '.findings[] | select(.state == "missing") | .symbol'`,
		ArgsUsage: "FILE",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "engine", Usage: "what an engine needs is required too", Category: catVerdict},
			&cli.BoolFlag{Name: "missing", Usage: "show only what is missing", Category: catOutput},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("one FILE is wanted: a .config, a bzImage or a kernel's package")
			}
			r, err := kernel.CheckFile(c.Context, theLab(c).Cache, c.Args().First())
			if err != nil {
				return err
			}
			missing := len(r.Lacking(kconfig.Required))
			if c.Bool("engine") {
				missing += len(r.Lacking(kconfig.Engine))
			}
			if c.Bool("json") {
				err = printJSON(c.App.Writer, r)
			} else {
				_, err = fmt.Fprint(c.App.Writer, checkText(r, c.Bool("missing")))
			}
			if err == nil && missing > 0 {
				err = result(ExitBad)
			}
			return err
		},
	}
}

// checkText is a check for people: a line a feature, and one that sums up.
func checkText(r kernel.Check, missing bool) string {
	var s strings.Builder
	group := ""
	for _, f := range r.Findings {
		if missing && !f.Lacking() {
			continue
		}
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&s, "%s\n", group)
		}
		state := map[kconfig.State]string{kconfig.BuiltIn: "y", kconfig.Module: "m", kconfig.NotThere: "-"}[f.State]
		note := f.Why
		switch f.State {
		case kconfig.Missing:
			state = "missing"
			note += " (" + string(f.Level) + ")"
		case kconfig.Unloadable:
			state = "missing"
			note += " (" + string(f.Level) + "; a module that the guest has nothing to load from)"
		case kconfig.NotThere:
			note += " (not in this version of Linux)"
		}
		fmt.Fprintf(&s, "  %-7s  %-28s  %s\n", state, f.Symbol, note)
	}
	what := "a kernel"
	if r.Release != "" {
		what = "Linux " + r.Release
	}
	lacks := map[kconfig.Level]string{}
	for _, l := range []kconfig.Level{kconfig.Required, kconfig.Engine, kconfig.Optional} {
		var names []string
		for _, f := range r.Lacking(l) {
			names = append(names, f.Symbol)
		}
		lacks[l] = strings.Join(slices.Compact(names), ", ")
	}
	switch {
	case lacks[kconfig.Required] != "":
		fmt.Fprintf(&s, "%s cannot run lab's guest and containers in it: it lacks %s\n", what, lacks[kconfig.Required])
	case lacks[kconfig.Engine] != "":
		fmt.Fprintf(&s, "%s runs lab's guest and containers in it, but no engine with its usual network and storage: it lacks %s\n", what, lacks[kconfig.Engine])
	default:
		fmt.Fprintf(&s, "%s runs lab's guest, containers and engines\n", what)
	}
	return s.String()
}
