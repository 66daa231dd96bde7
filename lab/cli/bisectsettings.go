package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

// settingHelp is what lab bisect's help says of settings.
const settingHelp = `With --cmdline-good and --cmdline-bad, --caps-good and --caps-bad, --container-good and
--container-bad kernel, image and test stay, and what differs between two settings around
them is searched: boot options, the container's capabilities, what else a container has,
or all of it. A privileged container is the sum of its parts: the answer is the capability
or the filter that it takes. What both containers have is given with --seccomp, --userns
and so on. The answer is the smallest set of differences
that flips the verdict, found by delta debugging: halves of them are tried, then
quarters, alone and left out. A boot option that was added, removed, or that has another
value or place is one difference; what all have in common is given with --cmdline. At
the end the answer is checked both ways: the good setting with this set is bad, and the
bad one without it is good.

With --config-good and --config-bad it is the options of the kernel's configuration, on
--commit of --repo: two .configs, or fragments as --config takes them, on top of what
both have in common, --config. Kconfig resolves both, and what somebody chose otherwise in
the one than in the other is searched; what depends on an option is made together with
it, and a set that Kconfig does not allow is skipped, with the reason, before anything is
compiled. Each set is a kernel, built on from the one before; two that Kconfig makes the
same of are one. What the other flags of settings name may differ at the same time.`

// settingFlags name good and bad settings.
func settingFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "config-good", Usage: "built with the config `FRAGMENT` the symptom is not there: as --config, on top of which it lies; may be repeated", Category: catKernel},
		&cli.StringSliceFlag{Name: "config-bad", Usage: "built with the config `FRAGMENT` it is: find which of the differing options it takes; may be repeated", Category: catKernel},
		&cli.StringFlag{Name: "cmdline-good", Usage: "with the boot options `ARGS` the symptom is not there", DefaultText: "none", Category: catMachine},
		&cli.StringFlag{Name: "cmdline-bad", Usage: "with the boot options `ARGS` it is: find which of the differences it takes", DefaultText: "none", Category: catMachine},
		&cli.StringFlag{Name: "caps-good", Usage: "with the capabilities `LIST` the symptom is not there: names between commas, in front of them ALL, none or docker to begin with, then -NAME drops one; or privileged", DefaultText: "docker", Category: catTest},
		&cli.StringFlag{Name: "caps-bad", Usage: "with the capabilities `LIST` it is", DefaultText: "docker", Category: catTest},
		&cli.StringFlag{Name: "container-good", Usage: "in a container with `WORDS` the symptom is not there: between commas seccomp=PROFILE, userns, cgroup=VERSION, devices, unmasked, writable, selinux-fs=MODE, as lab run's flags, or privileged", Category: catTest},
		&cli.StringFlag{Name: "container-bad", Usage: "in a container with `WORDS` it is", Category: catTest},
	}
}

// setSettings puts them into the options, where there are any.
func setSettings(c *cli.Context, o *lab.BisectOptions) {
	ends := func(what string) *lab.SettingEnds {
		if !c.IsSet(what+"-good") && !c.IsSet(what+"-bad") {
			return nil
		}
		if o.Settings == nil {
			o.Settings = &lab.Settings{}
		}
		return &lab.SettingEnds{Good: c.String(what + "-good"), Bad: c.String(what + "-bad")}
	}
	if e := ends("config"); e != nil {
		o.Settings.Config = &lab.ConfigEnds{Good: c.StringSlice("config-good"), Bad: c.StringSlice("config-bad")}
	}
	if e := ends("cmdline"); e != nil {
		o.Settings.Cmdline = e
	}
	if e := ends("caps"); e != nil {
		o.Settings.Caps = e
	}
	if e := ends("container"); e != nil {
		o.Settings.Container = e
	}
}

// notOfSettings are the flags that say nothing where settings are bisected, and why.
var notOfSettings = []struct{ name, why string }{
	{"good", "the good end is a setting"},
	{"bad", "the bad end is a setting"},
	{"first-parent", "there are no commits to choose from"},
	{"hunks", "there is no commit to part"},
	{"path", "there are no commits to choose from"},
	{"fix", "swap the two: what then flips the verdict is what repairs it"},
	{"term-good", "settings are good or bad"},
	{"term-bad", "settings are good or bad"},
	{"run", "there is no kernel in it"},
	{"replay", "git has no log of what is no commit"},
	{"kernels", "the kernel stays: --kernel FILE"},
	{"images", "the image stays: --image REF"},
	{"layers", "the image stays: --image REF"},
	{"audit", "no verdict is inferred there"},
	{"confidence", "each setting is tested once, and the answer both ways"},
	{"max-runs", "each setting is tested once, and the answer both ways"},
	{"snapshots", "each setting is tested once, and the answer both ways"},
	{"steady", "each setting is tested once, and the answer both ways"},
	{"no-proof", "the answer is tested both ways in any case"},
}

// checkSettings is checkCandidates where settings are bisected.
func checkSettings(c *cli.Context, o *lab.BisectOptions) error {
	for _, f := range notOfSettings {
		if c.IsSet(f.name) {
			return usagef("--%s does not go with two settings (--config-bad, --cmdline-bad, --caps-bad, --container-bad): %s", f.name, f.why)
		}
	}
	for _, name := range []string{"cap-add", "cap-drop", "privileged"} {
		if (o.Settings.Caps != nil || o.Settings.IsPrivileged()) && c.IsSet(name) {
			return usagef("--%s does not go with --caps-bad or privileged: name all capabilities with --caps-bad, as in docker,NET_ADMIN", name)
		}
	}
	if o.Settings.Container != nil && c.Bool("privileged") {
		return usagef("--privileged does not go with --container-bad: it is a word there")
	}
	config := o.Settings.Config
	for _, name := range []string{"bundle", "with-source", "with-vmlinux"} {
		switch {
		case !c.IsSet(name):
		case config == nil || o.Settings.Cmdline != nil || o.Settings.Caps != nil || o.Settings.Container != nil:
			return usagef("--%s goes with --config-bad alone: a bundle holds two kernels, and one setting of all else", name)
		case o.Spec.Symptom.Kind == lab.SymptomBuild:
			return usagef("--%s: a kernel that does not build leaves nothing to boot again; its log stays in --dir", name)
		case name != "bundle":
			return usagef("--%s goes with commits", name)
		}
	}
	if k := o.Spec.Symptom.Kind; k == lab.SymptomAsk || k == lab.SymptomBuild && config == nil {
		return usagef("--symptom %s goes with --repo alone: here the kernel stays, and is booted", k)
	}
	switch {
	case config == nil:
	case c.String("kernel") != "" || c.String("repo") == "":
		return usagef("--config-bad goes with --repo DIR [--commit REV]: a kernel is built for each set of options")
	case len(o.Spec.Kernel.Config) == 0 && (len(config.Good) == 0 || len(config.Bad) == 0):
		return usagef("of --config-good and --config-bad both are needed, or --config with what they have in common")
	case o.Spec.Symptom.Kind == lab.SymptomBuild && (o.Settings.Cmdline != nil || o.Settings.Caps != nil || o.Settings.Container != nil):
		return usagef("--symptom build goes with --config-bad alone: nothing is booted")
	}
	if len(o.Spec.Images) == 0 && o.Spec.Symptom.Kind != lab.SymptomBuild {
		return usagef("no image: name the container to test with --image REF")
	}
	if err := checkKernel(c, o); err != nil {
		return err
	}
	if err := o.Settings.Validate(o.Spec); err != nil {
		return usagef("%v", err)
	}
	return nil
}

// checkKernel sees to it that the flags name the one kernel of a bisect over
// something else.
func checkKernel(c *cli.Context, o *lab.BisectOptions) error {
	s := &o.Spec
	s.Kernel.File = c.String("kernel")
	switch {
	case s.Kernel.File == "" && s.Kernel.Repo == "":
		return usagef("no kernel: name one with --kernel FILE, or --repo DIR [--commit REV]")
	case s.Kernel.File != "" && s.Kernel.Repo != "":
		return usagef("--kernel and --repo exclude each other")
	case s.Kernel.Repo == "" && (c.IsSet("pick") || c.IsSet("patch")):
		return usagef("--pick and --patch go with --repo: a kernel FILE is built already")
	case s.Kernel.Repo != "" && len(s.Kernel.Modules) > 0:
		return usagef("--module goes with --kernel: name the option of %s in a file for --config", s.Kernel.Modules[0])
	}
	if s.Kernel.Repo != "" {
		s.Kernel.Commit = c.String("commit")
	}
	return nil
}

// settingAnswer tells the smallest set of differences that flips the verdict, and
// how it was checked.
func settingAnswer(s *strings.Builder, b lab.Bisection) {
	f := b.Flip
	if len(f.Minimal) == 1 {
		fmt.Fprintf(s, "the verdict flips with: %s\n", described(f.Minimal[0]))
	} else {
		fmt.Fprintf(s, "the verdict flips with these %d together, of %d differences:\n", len(f.Minimal), len(f.Differences))
		for _, d := range f.Minimal {
			note := ""
			switch {
			case slices.Contains(f.Needed, d):
				note = " (others of them need it, and it may be here for that alone)"
			case slices.Contains(f.Unsure, d):
				note = " (without it the rest could not be judged)"
			}
			fmt.Fprintf(s, "  %s%s\n", described(d), note)
		}
	}
	if f.With != nil && len(f.With.Along) > 0 {
		fmt.Fprintf(s, "  what Kconfig makes of it: %s\n", strings.Join(f.With.Along, ", "))
	}
	if f.With != nil {
		fmt.Fprintf(s, "  the good setting with it, tested again, is %s: %s\n", f.With.Mark, f.With.Reason)
	}
	if f.Without != nil {
		fmt.Fprintf(s, "  the bad setting without it is %s: %s\n", f.Without.Mark, f.Without.Reason)
	}
}

// described says a difference in words.
func described(d lab.Difference) string {
	title := ""
	if d.Title != "" {
		title = fmt.Sprintf(" (%q)", d.Title)
	}
	return change(d) + title
}

func change(d lab.Difference) string {
	switch {
	case d.Good == "":
		return "+" + d.Bad
	case d.Bad == "":
		return "-" + d.Good
	case d.Good == d.Bad:
		return d.Bad + ", at another place"
	}
	return fmt.Sprintf("%s in the place of %s", d.Bad, d.Good)
}
