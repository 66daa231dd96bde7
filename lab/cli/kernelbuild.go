package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/lab"
)

func kernelBuildCommand() *cli.Command {
	return &cli.Command{
		Name:  "build",
		Usage: "build a commit's kernel",
		Description: `Builds a kernel as lab run and lab bisect do, in lab's own work tree, or finds it in
the cache. A commit that does not build is told by the first line of its log that
says why, with exit status 125.

With --pick REPAIRED that commit's change is put on top where it is missing and
needed; with --patch FILE a patch is, everywhere. A pick is

   there       where the commit has it, or a copy of it that says so in its
               message, or its change
   not needed  where the commit has not what it repairs: BROKEN of
               --pick BROKEN..REPAIRED, or else the commits that its lines
               "Fixes: HASH" name; and where it has none of the files
   applied     everywhere else, merged as git cherry-pick does; where nothing
               tells what it repairs, wherever it is missing

One that does not apply keeps the commit from being built. The cache goes by the
tree that comes out: a pick that changes nothing builds nothing.

Of a failure that is known, as those of old trees with new tools, it says what it
is, since when it is repaired and what to do.

With --verify it is then built twice more, each time from nothing and in another
directory, and bzImage and vmlinux are compared byte for byte: exit status 1, and
the first section that differs, when they are not the same.

The compiler is an input. Without --toolchain it is gcc, where that is known to build
kernels of the commit's age, else the newest installed gcc-N that is, and a line says so.
An image is unpacked once and entered in namespaces, without docker and without root:
read-only, with no network, seeing the work tree and nothing else of the host. --json says what the
kernel was built with.

EXAMPLES
   lab kernel build --repo ~/linux --commit v6.1.150 --config tiny -o out/
   lab kernel build --repo ~/linux --commit v5.4 --toolchain gcc-9 -o out/
   lab kernel build --repo ~/linux --commit v3.14 --toolchain docker://docker.io/library/gcc:4.9 -o out/
   lab kernel build --repo ~/linux --toolchain rootfs:bullseye.tar --verify
   lab kernel build --repo ~/linux --config container --config debug --verify
   lab kernel build --repo ~/linux --commit v3.14 --pick b3bee1e7c3f2 --patch printk.patch`,
		Flags: append(append(commitFlags(), makeJobsFlag()),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "put bzImage, config, System.map and build.log into `DIR`", DefaultText: "they stay in the cache", Category: catOutput},
			&cli.BoolFlag{Name: "verify", Usage: "build twice more, from nothing, and compare", Category: catVerdict},
			jsonFlag(),
		),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unexpected argument %q", c.Args().First())
			}
			return runKernelBuild(c, commitSpec(c))
		},
	}
}

func runKernelBuild(c *cli.Context, k lab.KernelSpec) error {
	l := theLab(c)
	b, err := l.BuildKernel(c.Context, k, c.String("output"))
	if err != nil {
		return err
	}
	exit := ExitGood
	switch {
	case b.Failure != nil:
		exit = ExitSkip
	case c.Bool("verify"):
		v, err := l.VerifyKernel(c.Context, k, b.Commit)
		if err != nil {
			return err
		}
		if b.Verify = &v; !v.Same {
			exit = ExitBad
		}
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, b)
	} else {
		_, err = fmt.Fprint(c.App.Writer, buildText(b))
	}
	if err != nil {
		return err
	}
	return result(exit)
}

// logLine names a failed build's log on a line of its own, and says what is known
// of it on another. A build that never began has no log.
func logLine(f *kernel.Failure) string {
	s := ""
	if f.Hint != nil {
		s += "\n  known: " + f.Hint.String()
	}
	if f.Log != "" {
		s += "\n  log: " + f.Log
	}
	return s
}

// onTopText says what became of the picks and patches.
func onTopText(k kernel.Kernel) string {
	var s strings.Builder
	for _, a := range k.OnTop {
		s.WriteString("  " + a.State + ": " + a.String())
		if a.Why != "" {
			s.WriteString(": " + a.Why)
		}
		s.WriteString("\n")
	}
	return s.String()
}

// knownText says which breakages are known of a kernel that is built.
func knownText(k kernel.Kernel) string {
	var s strings.Builder
	for _, b := range k.Known {
		s.WriteString("  known: " + b.String() + "\n")
	}
	return s.String()
}

// buildText is a build for people.
func buildText(b lab.Build) string {
	if b.Failure != nil {
		s := fmt.Sprintf("%.12s does not build: %s%s\n", b.Commit.Hash, b.Failure.Line, logLine(b.Failure))
		return s + onTopText(b.Kernel) + knownText(b.Kernel)
	}
	how := "built in " + b.Build.Round(100*time.Millisecond).String()
	if b.Cached {
		how = "cached"
	}
	s := fmt.Sprintf("%s\n  Linux %s of %.12s, %s, %s\n", b.Kernel.Image, b.Kernel.Release, b.Commit.Hash, b.Kernel.Digest, how)
	s += onTopText(b.Kernel) + knownText(b.Kernel) + "  log: " + b.Kernel.Log + "\n"
	switch v := b.Verify; {
	case v == nil:
	case v.Failure != nil:
		s += "  built again it fails: " + v.Failure.Line + "\n"
	case !v.Same:
		s += "  built twice, it is not the same: " + v.Differs + "\n"
	case v.Image != b.Kernel.Digest:
		s += "  built twice, it is the same: " + v.Image + ", but not that of the cache\n"
	default:
		s += "  built twice more, in other places: the same bzImage and vmlinux\n"
	}
	return s
}
