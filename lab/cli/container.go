package cli

import (
	"time"

	"github.com/urfave/cli/v2"

	"lab/lab"
	"lab/probe"
)

// basePolicy is the value of --selinux-policy for the guest's base's own.
const basePolicy = "base"

// containerFlags say how a test's container runs.
func containerFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `NAME=VALUE` in the container; may be repeated", Category: catTest},
		&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER[:GROUP]`", DefaultText: "the image's", Category: catTest},
		&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "run in `DIR`", DefaultText: "the image's", Category: catTest},
		&cli.StringSliceFlag{Name: "cap-add", Usage: "add `CAPABILITY` to Docker's defaults; may be repeated", Category: catTest},
		&cli.StringSliceFlag{Name: "cap-drop", Usage: "drop `CAPABILITY`, or ALL; may be repeated", Category: catTest},
		&cli.StringFlag{Name: "seccomp", Usage: "filter system calls by `PROFILE`: default (Docker's), unconfined, or a file of Docker's format", DefaultText: "default, where the kernel has filters", Category: catTest},
		&cli.BoolFlag{Name: "userns", Usage: "a user namespace, in which root is user 100000 outside, as with Docker's userns-remap", Category: catTest},
		&cli.StringFlag{Name: "cgroup", Usage: "control groups of `VERSION` 1 or 2, or none", DefaultText: "2 where the kernel has it whole, else 1", Category: catTest},
		&cli.BoolFlag{Name: "devices", Usage: "all devices of the guest", Category: catTest},
		&cli.BoolFlag{Name: "unmasked", Usage: "nothing of /proc and /sys hidden", Category: catTest},
		&cli.BoolFlag{Name: "writable", Usage: "nothing of /proc and /sys read-only", Category: catTest},
		&cli.BoolFlag{Name: "privileged", Usage: "all capabilities, --devices, --unmasked, --writable, and --seccomp unconfined unless it says something else", Category: catTest},
		&cli.StringFlag{Name: "selinux-policy", Usage: "load the binary policy `FILE` where SELinux is on (--cmdline 'security=selinux enforcing=1'); base is the one of --base", DefaultText: "none", Category: catTest},
		&cli.StringFlag{Name: "selinux-fs", Usage: "show selinuxfs in the container where SELinux is on: `MODE` rw, ro or none", DefaultText: "none, as in Docker", Category: catTest},
		&cli.BoolFlag{Name: "trace", Usage: "keep every system call of the container's processes, as strace -f has them (up to 8 MiB)", Category: catTest},
		&cli.DurationFlag{Name: "timeout", Usage: "the test is bad when it takes longer than `TIME`", Value: 5 * time.Minute, Category: catTest},
	}
}

// containerTest is what containerFlags say of a test.
func containerTest(c *cli.Context, command []string) (probe.Spec, error) {
	s := probe.Spec{
		Command: command, Env: c.StringSlice("env"), User: c.String("user"), Cwd: c.String("workdir"),
		CapAdd: c.StringSlice("cap-add"), CapDrop: c.StringSlice("cap-drop"),
		UserNS: c.Bool("userns"), Cgroup: c.String("cgroup"),
		Devices: c.Bool("devices"), Unmasked: c.Bool("unmasked"), Writable: c.Bool("writable"), Privileged: c.Bool("privileged"),
		SELinuxFS: c.String("selinux-fs"), Timeout: c.Duration("timeout"), Trace: c.Bool("trace"),
	}
	if err := lab.SetSeccomp(&s, c.String("seccomp")); err != nil {
		return s, usagef("--seccomp: %v", err)
	}
	if file := c.String("selinux-policy"); file != basePolicy {
		if err := lab.SetSELinuxPolicy(&s, file); err != nil {
			return s, usagef("--selinux-policy: %v", err)
		}
	}
	return s, nil
}
