package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/lab"
	"lab/oci"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what this machine has and lacks for lab",
		Description: `Looks at QEMU, the accelerator (KVM counts only when a guest really boots with
it), the tools that build kernels, the compilers there are and whether those of
images (--toolchain) can be entered, and the free disk; names what is missing, for
which command it is needed, and the package command that brings it.
With --install that command is run. Exits 1 when something is missing.

EXAMPLE
   lab doctor --install`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "install", Usage: "install what is missing with apt, dnf, pacman or zypper"},
			&cli.BoolFlag{Name: "refresh", Usage: "boot the accelerator's test guest again even when its answer is remembered"},
			jsonFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("unexpected argument %q", c.Args().First())
			}
			purposes := []string{lab.ForBoot, lab.ForBuild, lab.ForSpeed, lab.ForDemo, lab.ForDebug, lab.ForUEFI}
			if inOwnSource() {
				purposes = append(purposes, lab.ForStories, lab.ForTests)
			}
			return runDoctor(c, purposes)
		},
	}
}

func runDoctor(c *cli.Context, purposes []string) error {
	h, err := examine(c, purposes, c.Bool("install"), c.Bool("refresh"))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, h)
	} else {
		_, err = fmt.Fprint(c.App.Writer, healthText(h))
	}
	if err != nil {
		return err
	}
	if !h.Ready() {
		return result(ExitBad)
	}
	return nil
}

// examine looks at the host, and installs what is missing if asked to.
func examine(c *cli.Context, purposes []string, install, refresh bool) (lab.Health, error) {
	l := theLab(c)
	h, err := l.Examine(c.Context, purposes, refresh)
	if err != nil || !install || h.Ready() {
		return h, err
	}
	if err := l.InstallMissing(c.Context, h); err != nil {
		return h, err
	}
	return l.Examine(c.Context, purposes, false)
}

// inOwnSource reports whether lab was built from a source tree that is there,
// so that its tests can be run.
func inOwnSource() bool {
	data, err := os.ReadFile("go.mod")
	return err == nil && strings.HasPrefix(string(data), "module lab\n")
}

func healthText(h lab.Health) string {
	var b strings.Builder
	purpose := ""
	row := func(ok bool, what, detail string) {
		mark := "ok     "
		switch {
		case !ok && purpose == lab.ForSpeed:
			mark = "absent "
		case !ok:
			mark = "MISSING"
		}
		fmt.Fprintf(&b, "%s  %-20s %s\n", mark, what, detail)
	}
	fmt.Fprintf(&b, "host     %s\n", h.Arch)
	if h.QEMU != "" {
		fmt.Fprintf(&b, "qemu     %s\n", h.QEMU)
	}
	if h.Accel != nil {
		fmt.Fprintf(&b, "accel    %s: %s\n", h.Accel.Name, h.Accel.Reason)
	}
	for i, gcc := range h.Compilers {
		head := "gcc     "
		if i > 0 {
			head = "        "
		}
		fmt.Fprintf(&b, "%s %s: %s\n", head, gcc.Name, gcc.Version)
	}
	switch {
	case h.Images == nil:
	case h.Images.Problem != "":
		fmt.Fprintf(&b, "images   a toolchain in an image cannot be entered: %s\n", h.Images.Problem)
	default:
		fmt.Fprintf(&b, "images   a toolchain in an image is entered by %s\n", h.Images.By)
	}
	fmt.Fprintf(&b, "disk     %.1f GiB free in %s\n", float64(h.Disk.Free)/(1<<30), h.Disk.Path)
	if !h.Disk.Enough {
		fmt.Fprintf(&b, "         a kernel tree and its build take about 8 GiB: choose another place with --cache\n")
	}
	for _, t := range h.Tools {
		if t.Purpose != purpose {
			purpose = t.Purpose
			fmt.Fprintf(&b, "\nto %s\n", purpose)
		}
		detail := t.Path
		if t.Path == "" && t.Package != "" {
			detail = "package " + t.Package
		}
		row(t.Path != "", t.Name, detail)
	}
	if len(h.Install) > 0 {
		fmt.Fprintf(&b, "\nTo install what is missing: lab doctor --install, or\n  %s\n", strings.Join(h.Install, " "))
	}
	if len(h.Unknown) > 0 {
		fmt.Fprintf(&b, "\nNo package is known here for: %s\n", strings.Join(h.Unknown, ", "))
	}
	return b.String()
}

// hint says how to go on after an error that many will meet.
func hint(err error) string {
	var emulator *qemu.ErrMissing
	var tool *kernel.MissingError
	var entry *kernel.NoEntryError
	var loader *lab.MissingLoader
	var limit *oci.LimitError
	switch {
	case errors.As(err, &limit) && limit.Field == "Bytes":
		return "if that is as it should be, allow more with --max-unpacked SIZE"
	case errors.As(err, &tool) && tool.Image != "":
		return "take another image, or add what is missing to this one: a Debian with gcc, make, flex, bison, bc, perl and the headers of libelf and OpenSSL has it all"
	case errors.As(err, &entry):
		return "as a user, lab needs user namespaces (sysctl user.max_user_namespaces; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0 or the package bubblewrap with its AppArmor profile); as root it needs none"
	case errors.As(err, &emulator), errors.As(err, &tool):
		return "see what is missing with 'lab doctor', and install it with 'lab doctor --install'"
	case errors.As(err, &loader):
		return "install systemd-boot (Debian's and Ubuntu's systemd-boot-efi, Fedora's systemd-boot-unsigned; 'lab doctor --install' does), or name a loader with --loader FILE"
	case errors.Is(err, syscall.ENOSPC):
		return "free some space, or keep lab's files elsewhere with --cache DIR (temporary ones follow TMPDIR)"
	}
	return ""
}
