package cli

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"lab/lab"
	"lab/lab/bundle"
)

func bisectCommand() *cli.Command {
	return &cli.Command{
		Name:      "bisect",
		Usage:     "find the first bad commit, or the first bad of ready-made kernels",
		UsageText: "lab bisect [options] -- COMMAND [ARG...]\n   lab bisect status|visualize|log|good|bad|skip|undo|replay [options]",
		Description: `Checks first that the good end is good and the bad end is bad, then tests the
commits that halve what is left, skipping those that do not build or boot, until
one commit remains; tests it and its parents once more; and writes a bundle with
which anyone can see it break again. Kernels are built in lab's own work tree, all
with one toolchain: that of --toolchain, or the installed gcc that suits the ages of
both ends. Another one is another bisect.

A commit that changes nothing of what a build reads makes the same kernel: it is
neither built nor booted, and its verdict says so. The commits to test are chosen
from the others. The answer itself is always built and booted; --audit sees to
some of the rest. While a kernel boots, the one that is likely to be wanted next is
built already, with what the guest leaves of the processors.

A test may fail at times only. As long as no kernel has done both, each run decides.
At the end, and as soon as a kernel fails and passes, all runs are weighed: how likely
each commit is the first bad one, by the rate at which bad kernels are seen to fail;
and whatever tells most is run next, a kernel that was run before included, until one
commit has the --confidence. --steady spares the last few runs of a test that is
never wrong.

Then the change is tested by itself: taken back from the bad end, which should then
be good, and put on top of the good end, which should then be bad, where git can merge
it. That is two more kernels; --no-proof spares them. It never takes an answer back.

A range in which the kernel does not build is skipped, unless its repair is named:
--pick REPAIRED puts that commit on top of those that miss and need it, and
--patch FILE a patch on top of all. What became of them is on record with each
verdict, and they are in the bundle.

With --kernels the candidates are ready made: packages (.deb, .rpm), bzImages,
unpacked packages, images, folders and patterns of them, in the order of their
releases and versions, or a file that lists them in its own order, one a line.
Neither git nor a compiler is needed. Good is then the first of them and bad the
last, unless said otherwise, by path, release or version. Where a distribution
has modules in packages of their own (linux-modules-…, kernel-modules-…), keep
these beside the kernel's.

With --images the kernel stays, and the container's image changes: references from
the oldest to the newest, a range FROM..TO of a registry's tags, or a quoted
pattern of files. With --layers it is one image, to which its layers are added one
by one. The kernel is one that is ready, --kernel, or --commit of --repo.

` + settingHelp + `

Without --good, lab looks for a good commit to begin with: it goes back over the
tags of releases in strides that grow, or over the history where there are none.
Good and bad may be on different branches: then it is seen first what they part
from. With --path the commits that change one of these paths are looked at first.
With --fix it is found what repaired it. With --hunks the commit that is found is parted:
the smallest set of its hunks that, on top of its parent, is enough. When it is a merge of
commits that are good each, it is found which two commits of its sides do not go together.

With --run the candidates are the commits of any git repository, and the test is a
command on this host, as with git bisect run: status 0 is good, 125 cannot judge,
any other up to 127 is bad, 128 and above ends the bisect, which can go on later.
It runs in a work tree of lab's own in which the commit is checked out; yours is
not touched. What git ignores there stays from commit to commit, so that make
compiles only what changed. A commit with the same files as a tested one is not
run again. LAB_COMMIT is the commit's hash. There is no kernel, no image, no QEMU
and no bundle.

The state is kept in --dir, one line an event. Stopped at any instant, the same
command goes on where it was. From another terminal, or after it was stopped, the
commands below tell where it stands, give verdicts by hand and take verdicts back.

` + manyHelp + `

With --prompt lab asks for the verdict of each trial, and suggests what the test says.
Without an image nothing is booted by lab: it builds the kernel, names its file, and
asks what you saw of it on your own machine.

EXAMPLES
   lab bisect --repo ~/linux --good v6.1.150 --bad v6.1.153 --config container \
       --image rootfs:app.tar --bundle bundle.tar -- /test
   lab bisect --repo ~/linux --good v6.1.150 --bad v6.1.153 --pick 1d489151e9f9 --image rootfs:app.tar -- /test
   lab bisect --kernels 'pool/*.deb' --image rootfs:app.tar -- /test
   lab bisect --images app:1..app:20 --kernel bzImage -- /test
   lab bisect --layers app:20 --kernel bzImage --good 3 -- /test
   lab bisect --cmdline-good 'quiet' --cmdline-bad 'mitigations=off security=selinux' \
       --kernel bzImage --image app:20 -- /test
   lab bisect --config-good container --config-bad ./mine.config --repo ~/linux \
       --commit v6.1.150 --image app:20 -- /test
   lab bisect --caps-bad docker,-NET_RAW,-CHOWN --kernel bzImage --image app:20 -- /test
   lab bisect --good v1.0 --bad HEAD --run 'make && ./test'
   lab bisect --hunks --good v1.0 --bad HEAD --run 'make && ./test'
   lab bisect --fix --bad v1.0 --good HEAD --run 'make && ./test'
   lab bisect --good v1.0 --bad HEAD --jobs 4 --run 'make && ./test'
   lab bisect --good v1.0 --bad HEAD --jobs 8 --launcher 'srun -c8' --run 'make -j8 && ./test'
   lab bisect --good v1.0 --timeout 10m --bad-match 'segfault' --run -- make check
   lab bisect --repo ~/linux --good v6.1.150 --bad v6.1.153 --config host --prompt
   lab bisect --repo ~/linux --replay bisect.log --config container --image rootfs:app.tar -- /test
   lab bisect status`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringSliceFlag{Name: "good", Usage: "`REV` does not show the symptom; may be repeated", DefaultText: "of commits: found, going back over releases; of --kernels the first", Category: catKernel},
			&cli.StringSliceFlag{Name: "bad", Usage: "`REV` shows the symptom; may be repeated, where one cause is looked for", DefaultText: "HEAD; of --kernels the last", Category: catKernel},
			&cli.StringSliceFlag{Name: "kernels", Usage: "bisect the ready-made kernels that `REF` names: a file, a folder, a quoted pattern, an image or a list file; may be repeated", Category: catKernel},
			moduleFlag(catKernel),
			&cli.StringSliceFlag{Name: "images", Usage: "bisect the images `REF`, from the oldest to the newest: a reference, a range app:1..app:20 of tags, or a quoted pattern rootfs:build/*.tar; may be repeated", Category: catImage},
			&cli.StringFlag{Name: "layers", Usage: "bisect the layers of the image `REF`", Category: catImage},
			&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, Usage: "of --images, --layers and settings: the kernel `FILE`, as lab run takes it", Category: catKernel},
			&cli.StringFlag{Name: "commit", Usage: "of --images, --layers and settings: revision `REV` of --repo", Value: "HEAD", Category: catKernel},
			&cli.StringFlag{Name: "dir", Usage: "keep the bisect's state in `DIR`", DefaultText: "a folder of $XDG_STATE_HOME/lab/bisects named by what is bisected", Category: catOutput},
			&cli.IntFlag{Name: "audit", Usage: "at the end, build and boot `N` of the commits that were taken for others' kernels, and take the answer back if one is not", Category: catVerdict},
			&cli.Float64Flag{Name: "confidence", Usage: "repeat runs of a test that fails at times until the answer has the `PROBABILITY`", Value: .95, Category: catVerdict},
			&cli.IntFlag{Name: "max-runs", Usage: "run no kernel more than `N` times", DefaultText: "100, and the bad end 20 times until it fails", Category: catVerdict},
			&cli.BoolFlag{Name: "steady", Usage: "the test is never wrong: one run of a kernel decides", Category: catVerdict},
			&cli.BoolFlag{Name: "snapshots", Usage: "most repeated runs of a kernel go on from a snapshot of a boot: sooner done, but not for a test that fails by what the boot has settled", Category: catVerdict},
			&cli.BoolFlag{Name: "no-proof", Usage: "do not test the answer's change by itself at the end: taken back from the bad commit, and put on top of the good one", Category: catVerdict},
			&cli.StringFlag{Name: "replay", Usage: "begin with the ends and the verdicts of `FILE`, which git bisect log printed; --good and --bad win", Category: catKernel},
			&cli.BoolFlag{Name: "prompt", Usage: "ask on the terminal for each verdict", Category: catVerdict},
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "write the bundle to `FILE`", Category: catOutput},
			&cli.StringFlag{Name: "sign", Usage: "sign the bundle with the ssh key in `FILE`, or with ssh-agent's of the public key there", Category: catOutput},
			&cli.BoolFlag{Name: "slim", Usage: "leave out of the bundle the disk, which lab reproduce makes of its images again; reproduce.sh cannot", Category: catOutput},
			&cli.BoolFlag{Name: "with-vmlinux", Usage: "add both kernels with their symbols to the bundle, for gdb and scripts/decode_stacktrace.sh; they are built once more for it", Category: catOutput},
			&cli.BoolFlag{Name: "with-source", Usage: "add the commits that were searched to the bundle: git fetch takes them from inputs/source.bundle", Category: catOutput},
			&cli.BoolFlag{Name: "record", Usage: "add a recording of a run of each kernel to the bundle, which lab reproduce --replay plays back: the same execution, and not one like it; both kernels are booted once more for it", Category: catOutput},
			jsonFlag(),
		}, manyFlags(), endFlags(), settingFlags(), runFlags(), kernelFlags(), testFlags()),
		Action: func(c *cli.Context) error {
			s, err := spec(c)
			if err != nil {
				return err
			}
			s.Kernel.Modules = c.StringSlice("module")
			switch {
			case c.IsSet("run"):
				if s, err = commandSpec(c, s); err != nil {
					return err
				}
			case c.Bool("no-checkout"):
				return usagef("--no-checkout goes with --run")
			case c.Bool("prompt") && len(s.Images) == 0 && !c.IsSet("symptom") && !c.IsSet("images") && !c.IsSet("layers"):
				s.Symptom.Kind = lab.SymptomAsk
			}
			o := lab.BisectOptions{
				Spec: s, Kernels: c.StringSlice("kernels"),
				Images: c.StringSlice("images"), Layers: c.String("layers"),
				Dir: c.String("dir"), Audit: c.Int("audit"),
				Confidence: c.Float64("confidence"), MaxRuns: c.Int("max-runs"), Steady: c.Bool("steady"), Snapshots: c.Bool("snapshots"), Proof: !c.Bool("no-proof"),
			}
			setSettings(c, &o)
			if o.Confidence < .5 || o.Confidence > .9999 {
				return usagef("--confidence %v is not between 0.5 and 0.9999", o.Confidence)
			}
			if o.Snapshots && (o.Steady || s.Machine.Exact || o.Spec.Symptom.Kind == lab.SymptomBoot || o.Spec.Symptom.Kind == lab.SymptomBuild) {
				return usagef("--snapshots does not go with --steady, --exact and --symptom build, where no run is repeated, and with --symptom boot: it is the boot that is tested")
			}
			if o.MaxRuns < 0 {
				return usagef("--max-runs %d: there cannot be fewer than none", o.MaxRuns)
			}
			o.Command, _ = c.App.Metadata[rawArgs].([]string)
			for _, set := range []func(*cli.Context, *lab.BisectOptions) error{setEnds, readReplay, checkCandidates, setMany} {
				if err := set(c, &o); err != nil {
					return err
				}
			}
			if err := check(&o.Spec); err != nil {
				return err
			}
			if c.Bool("prompt") {
				p, err := newPrompter(theLab(c), c.App.ErrWriter)
				if err != nil {
					return err
				}
				o.Ask = p.ask
			}
			return runBisect(c, o, c.String("bundle"))
		},
		Subcommands: stateCommands(),
	}
}

// readReplay reads the log that --replay names, whose ends count where no others
// are given.
func readReplay(c *cli.Context, o *lab.BisectOptions) error {
	if c.String("replay") == "" {
		return nil
	}
	if len(o.Kernels)+len(o.Images) > 0 || o.Layers != "" {
		return usagef("--replay: git has no log of what is no commit")
	}
	var err error
	if o.Replay, err = replayFile(c.String("replay")); err != nil {
		return err
	}
	if len(o.Good) == 0 {
		o.Good = o.Replay.Good
	}
	if o.Bad == "" {
		o.Bad = o.Replay.Bad
	}
	return nil
}

// checkCandidates sees to it that the flags name commits or ready-made kernels,
// and not something of both.
func checkCandidates(c *cli.Context, o *lab.BisectOptions) error {
	if c.Bool("record") {
		s := o.Spec
		if c.String("bundle") == "" {
			return usagef("--record goes with --bundle FILE")
		}
		if err := s.Recordable(); err != nil { // known before the work is done
			return usagef("--record: %v", err)
		}
	}
	if o.Settings != nil {
		return checkSettings(c, o)
	}
	for _, name := range []string{"slim", "with-source", "with-vmlinux", "sign"} {
		if c.IsSet(name) && c.String("bundle") == "" {
			return usagef("--%s goes with --bundle FILE", name)
		}
	}
	s := o.Spec
	if len(o.Images) > 0 || o.Layers != "" {
		return checkImages(c, o)
	}
	for _, name := range []string{"kernel", "commit"} {
		if c.IsSet(name) {
			return usagef("--%s goes with --images, --layers, --cmdline-bad and --caps-bad, where the kernel stays, and with --config-bad; for several: --kernels REF, or --repo DIR", name)
		}
	}
	if s.Symptom.Kind == lab.SymptomAsk {
		switch {
		case c.String("bundle") != "":
			return usagef("--bundle needs a test that lab runs: name an image with --image")
		case len(s.Test.Command) > 0:
			return usagef("a command to run needs a container: name an image with --image")
		}
	}
	if len(o.Kernels) > 0 {
		for _, name := range append([]string{"repo", "config", "toolchain", "make-jobs", "audit", "with-source", "with-vmlinux"}, onTop...) {
			if c.IsSet(name) {
				return usagef("--kernels and --%s exclude each other: ready-made kernels are built already", name)
			}
		}
		if s.Symptom.Kind == lab.SymptomBuild {
			return usagef("--symptom build goes with --repo: ready-made kernels are built already")
		}
		return nil
	}
	if o.Bad == "" {
		o.Bad = "HEAD"
	}
	switch {
	case o.Hunks && c.Bool("no-checkout"):
		return usagef("--hunks and --no-checkout exclude each other: a commit with some of its hunks is in lab's own work tree alone")
	case o.Audit < 0:
		return usagef("--audit %d: there cannot be fewer than none", o.Audit)
	case s.Kernel.Repo == "":
		return usagef("no kernels: name a tree with --repo DIR, or ready-made ones with --kernels REF; for commits of anything else there is --run CMD")
	case len(s.Kernel.Modules) > 0:
		return usagef("--module goes with --kernels: name the option of %s in a file for --config", s.Kernel.Modules[0])
	case s.Symptom.Kind == lab.SymptomBuild && c.String("bundle") != "":
		return usagef("--bundle: a kernel that does not build leaves nothing to boot again; its log stays in --dir")
	}
	return nil
}

// checkImages is checkCandidates where images are bisected.
func checkImages(c *cli.Context, o *lab.BisectOptions) error {
	if len(o.Images) > 0 && o.Layers != "" {
		return usagef("--images and --layers exclude each other")
	}
	for _, name := range []string{"kernels", "image", "audit", "bundle"} {
		if c.IsSet(name) {
			return usagef("--%s does not go with --images and --layers: %s", name, map[string]string{
				"kernels": "the kernel stays: --kernel FILE",
				"image":   "they name the image under test",
				"audit":   "no verdict is inferred there",
				"bundle":  "a bundle holds one guest disk, and two kernels",
			}[name])
		}
	}
	if o.Spec.Symptom.Kind == lab.SymptomBuild {
		return usagef("--symptom build goes with --repo alone: here the kernel stays")
	}
	if err := checkKernel(c, o); err != nil {
		return err
	}
	s := &o.Spec
	reference := o.Layers
	if reference == "" {
		reference = o.Images[0]
	}
	s.Images = slices.Insert(s.Images, 0, lab.Load{Name: mainImage, Reference: reference})
	return nil
}

func runBisect(c *cli.Context, o lab.BisectOptions, file string) error {
	l := theLab(c)
	var key bundle.Key
	if c.String("sign") != "" { // what is wrong with it is known before the work is done
		var err error
		if key, err = readKey(c, c.String("sign")); err != nil {
			return err
		}
	}
	b, err := l.Bisect(c.Context, o)
	if err != nil {
		return err
	}
	if file != "" && b.Culprit != nil {
		if err := l.WriteBundle(c.Context, b, o, lab.BundleOptions{Slim: c.Bool("slim"), Vmlinux: c.Bool("with-vmlinux"), Source: c.Bool("with-source"), Record: c.Bool("record")}, file); err != nil {
			return err
		}
		signed := ""
		if key != nil {
			s, err := bundle.Sign(c.Context, file, file, key)
			if err != nil {
				return err
			}
			signed = ", signed by " + s.Fingerprint
		}
		if abs, err := filepath.Abs(file); err == nil {
			l.Progress.Say("bundle written: %s%s; rerun it with: lab reproduce %s", abs, signed, file)
		}
		if agent, err := l.Agent(); err == nil && namesFolders(agent) {
			l.Progress.Say("the agent in it is this lab, and names the folders where that was built; to leave them out, build lab with -trimpath")
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, b)
	} else {
		_, err = fmt.Fprint(c.App.Writer, answer(b))
	}
	if err != nil {
		return err
	}
	if b.Culprit == nil {
		return result(ExitSkip)
	}
	return nil
}
