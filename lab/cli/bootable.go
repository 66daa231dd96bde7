package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"lab/lab"
)

const catBoot = "Booting by itself"

// bootFlags are what lab image build takes for an image that boots by itself.
func bootFlags() []cli.Flag {
	return slices.Concat([]cli.Flag{
		&cli.BoolFlag{Name: "bootable", Usage: "make the image boot without lab, under UEFI firmware", Category: catBoot},
		&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, Usage: "boot `FILE`: a bzImage with an EFI stub or a distribution's .deb or .rpm, whose disk drivers come along", Category: catBoot},
		moduleFlag(catBoot),
		&cli.StringFlag{Name: "run", Usage: "run the container `NAME`", DefaultText: "the only one", Category: catBoot},
		&cli.BoolFlag{Name: "stay", Usage: "leave the machine on when the container has ended", Category: catBoot},
		&cli.StringFlag{Name: "cmdline", Usage: "append `ARGS` to the kernel's command line", Category: catBoot},
		&cli.StringFlag{Name: "loader", Usage: "boot by the EFI program `FILE` instead of the installed systemd-boot", Category: catBoot},
	}, containerFlags())
}

// bootSpec reads bootFlags; it gives nil for an image that is not to boot.
func bootSpec(c *cli.Context, s *lab.Spec) (*lab.BootSpec, error) {
	if !c.Bool("bootable") {
		for _, f := range bootFlags() {
			if name := f.Names()[0]; c.IsSet(name) {
				return nil, usagef("--%s goes with --bootable: an image without it holds no kernel and runs nothing", name)
			}
		}
		if c.Args().Present() {
			return nil, usagef("a command to run goes with --bootable: an image without it runs nothing")
		}
		return nil, nil
	}
	if s.Kernel.File = c.String("kernel"); s.Kernel.File == "" {
		return nil, usagef("--bootable needs a kernel: name one with --kernel FILE")
	}
	s.Kernel.Modules = c.StringSlice("module")
	test, err := containerTest(c, c.Args().Slice())
	if err != nil {
		return nil, err
	}
	s.Test = test
	s.Test.Container = c.String("run")
	names := make([]string, len(s.Images))
	for i, l := range s.Images {
		names[i] = l.Name
	}
	switch {
	case s.Test.Container == "" && len(names) > 1:
		return nil, usagef("which container is to run? Name one of %s with --run", strings.Join(names, ", "))
	case s.Test.Container != "" && !slices.Contains(names, s.Test.Container):
		return nil, usagef("--run %s: there is no image of that name, only %s", s.Test.Container, strings.Join(names, ", "))
	}
	s.Machine.Cmdline = c.String("cmdline")
	return &lab.BootSpec{Loader: c.String("loader"), Stay: c.Bool("stay")}, check(s)
}

// buildBootable builds, and tells where the image will find its disk.
func buildBootable(c *cli.Context, s lab.Spec, b lab.BootSpec) (imageResult, error) {
	l := theLab(c)
	d, boot, err := l.BuildBootable(c.Context, s, b, c.String("output"))
	var unfit *lab.UnfitKernel
	if errors.As(err, &unfit) {
		return imageResult{}, usagef("%v", unfit)
	}
	if err != nil {
		return imageResult{}, err
	}
	if len(boot.Disks) > 0 {
		l.Progress.Say("Linux %s finds its disk when it is %s", boot.Kernel.Release, strings.Join(boot.Disks, ", "))
	}
	if len(boot.NoDisks) > 0 {
		l.Progress.Say("  it has no driver for %s", strings.Join(boot.NoDisks, ", "))
	}
	return imageResult{Disk: d, Boot: &boot}, nil
}
