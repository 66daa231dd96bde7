package bundle

import (
	"bytes"
	_ "embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Script makes reproduce.sh: run where a bundle was extracted, it boots the good
// and the bad kernel, shows their consoles and says whether the test ended as
// recorded. It needs a POSIX shell, QEMU and gzip.
//
// Good and Bad are QEMU's arguments for either kernel, without the program's
// name. In them members are named as in the bundle (kernels/good/bzImage), and
// DiskPath and InitramfsPath stand for the expanded disk and initramfs. The guest's console must go to QEMU's
// standard output; nothing may refer to an inherited file descriptor.
type Script struct {
	Good, Bad []string
}

// What stands for the paths of expanded files in a script's arguments.
const (
	DiskPath      = "{disk}"
	InitramfsPath = "{initramfs}"
)

//go:embed script.sh
var scriptBody string

// emulators by the platform of the guest.
var emulators = map[string]string{
	"linux/amd64": "qemu-system-x86_64",
	"linux/arm64": "qemu-system-aarch64",
}

// Render writes the script for a bundle. It makes the guest tell its console
// how the test ended, by lab.echo on the kernel command line.
func (s Script) Render(m Manifest) ([]byte, error) {
	emulator, ok := emulators[m.Platform]
	if !ok {
		return nil, fmt.Errorf("render reproduce.sh: no emulator for %q", m.Platform)
	}
	limit := time.Duration(m.Machine.BootTimeout) + m.Test.WithDefaults().Timeout
	variables := [][2]string{
		{"qemu", emulator},
		{"seconds", strconv.FormatInt(int64(limit/time.Second)+1, 10)},
		{"disk_gz", m.Disk.Member}, // empty in a slim bundle
		{"disk_mib", strconv.FormatInt((m.Disk.Size+1<<20-1)>>20, 10)},
	}
	for _, role := range []string{RoleGood, RoleBad} {
		kernel, ok := m.Kernel(role)
		if !ok {
			return nil, fmt.Errorf("render reproduce.sh: there is no %s kernel", role)
		}
		run, ok := m.Run(role)
		if !ok {
			return nil, fmt.Errorf("render reproduce.sh: there is no run of the %s kernel", role)
		}
		recorded := "none"
		if run.End == "test" {
			recorded = strconv.Itoa(run.Exit)
		}
		name := strings.Join(strings.Fields(kernel.Release+" "+kernel.Commit+" "+kernel.Title), " ")
		variables = append(variables, [2]string{role, plain(name)}, [2]string{role + "_initramfs_gz", kernel.Initramfs.Member}, [2]string{role + "_recorded", recorded})
	}

	var b bytes.Buffer
	b.WriteString(`#!/bin/sh
# Boots the two kernels of this bundle with QEMU alone, runs the test in each and
# compares its exit status with the recorded one:
#
#     tar xf bundle.tar && ./reproduce.sh
#
# Exit status: 0 the same as recorded, 1 different, 128 it could not be run.

# Quoted text is data, whatever it looks like.
# shellcheck disable=SC2016

`)
	for _, v := range variables {
		fmt.Fprintf(&b, "%s=%s\n", v[0], quote(v[1]))
	}
	for _, boot := range []struct {
		role string
		args []string
	}{{RoleGood, s.Good}, {RoleBad, s.Bad}} {
		args, err := withEcho(boot.args)
		if err != nil {
			return nil, fmt.Errorf("render reproduce.sh: %s kernel: %w", boot.role, err)
		}
		fmt.Fprintf(&b, "\nboot_%s() {\n\tlimit \"$qemu\"%s\n}\n", boot.role, continued(args, "\t\t", `"$disk"`, `"$initramfs"`))
	}
	b.WriteString("\n")
	b.WriteString(scriptBody)
	return b.Bytes(), nil
}

// Command is what to type where the bundle was extracted to boot the kernel of a role
// with these arguments, as of Good or Bad, and to see on the console what the test
// says. There is none for a slim bundle.
func (m *Manifest) Command(role string, args []string) (string, error) {
	emulator, ok := emulators[m.Platform]
	if !ok {
		return "", fmt.Errorf("no emulator for %q", m.Platform)
	}
	args, err := withEcho(args)
	if err != nil {
		return "", err
	}
	k, _ := m.Kernel(role)
	if m.Disk.Member == "" || k.Initramfs.Member == "" {
		return "", nil
	}
	return fmt.Sprintf("gzip -dc %s >disk.img\ngzip -dc %s >initramfs\n%s%s\n", m.Disk.Member, k.Initramfs.Member, emulator,
		continued(args, "  ", "disk.img", "initramfs")), nil
}

// continued writes arguments behind a command, an option and its value a line.
func continued(args []string, indent, disk, initramfs string) string {
	var b strings.Builder
	for i, a := range args {
		if strings.HasPrefix(a, "-") || i == 0 {
			b.WriteString(" \\\n" + indent)
		} else {
			b.WriteString(" ")
		}
		b.WriteString(argument(a, disk, initramfs))
	}
	return b.String()
}

// withEcho adds lab.echo to the kernel command line among QEMU's arguments.
func withEcho(args []string) ([]string, error) {
	args = slices.Clone(args)
	for _, a := range args {
		if strings.ContainsAny(a, "\x00\n\r") {
			return nil, fmt.Errorf("the argument %q is not one line", a)
		}
	}
	i := slices.Index(args, "-append") + 1
	if i == 0 || i == len(args) {
		return nil, fmt.Errorf("QEMU's arguments have no -append")
	}
	args[i] = strings.TrimLeft(args[i]+" "+"lab.echo", " ")
	return args, nil
}

// argument makes a shell word of one of QEMU's arguments; disk and initramfs are the
// words for their paths.
func argument(a, disk, initramfs string) string {
	if a == InitramfsPath {
		return initramfs
	}
	parts := strings.Split(a, DiskPath)
	for i, p := range parts {
		if p != "" || len(parts) == 1 {
			parts[i] = Word(p)
		}
	}
	return strings.Join(parts, disk)
}

// Word makes a shell word that stands for s, in quotes where it needs some.
func Word(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	return quote(s)
}

var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_./:=,+-]+$`)

// quote makes a shell word that stands for s, whatever is in it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
