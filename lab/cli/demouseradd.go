package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"lab/lab"
	"lab/lab/demo"
	"lab/probe"
)

// The two kernel command lines of the story: the second is what a distribution with
// SELinux boots with.
const (
	useraddGood = "quiet"
	useraddBad  = "quiet security=selinux enforcing=1"
)

func demoUseraddCommand() *cli.Command {
	return &cli.Command{
		Name:  "useradd",
		Usage: "the myth of kernel independence: the host's SELinux breaks useradd in a container",
		Description: `A container of Debian 11 has a user added to it. On one host that works; on another,
with the same kernel, useradd exits with status 12. The container is the same, its image has a
digest: it is the host that runs SELinux, and the container that sees it. lab boots
the distribution's kernel with the boot options of either host and finds those that
make the difference. Nothing is built.

EXAMPLE
   lab demo useradd --install`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "install", Usage: "install what is missing first, as lab doctor --install does"},
			jsonFlag(),
		},
		Action: runDemoUseradd,
	}
}

func runDemoUseradd(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("unexpected argument %q", c.Args().First())
	}
	t := &teller{l: theLab(c), start: time.Now(), of: 3}
	if err := t.machine(c, []string{lab.ForBoot, lab.ForStories}); err != nil {
		return err
	}
	t.chapter("A kernel, a container, and a policy for SELinux")
	dir := filepath.Join(t.l.Cache, "demo", "useradd")
	if err := os.RemoveAll(dir); err != nil { // a demo begins at the beginning
		return fmt.Errorf("remove the last demo's files: %w", err)
	}
	parts, err := demo.GetUseradd(c.Context, dir, t.say)
	if err != nil {
		return err
	}
	test := probe.Spec{Command: demo.UseraddCommand, SELinuxFS: "rw", Timeout: time.Minute, Epoch: defaultClock}
	if err := lab.SetSELinuxPolicy(&test, parts.Policy); err != nil {
		return err
	}
	o := lab.BisectOptions{
		Dir:      filepath.Join(dir, "bisect"),
		Settings: &lab.Settings{Cmdline: &lab.SettingEnds{Good: useraddGood, Bad: useraddBad}},
		Spec: lab.Spec{
			Kernel:  lab.KernelSpec{File: parts.Kernel},
			Images:  []lab.Load{{Name: mainImage, Reference: "rootfs:" + parts.Root}},
			Test:    test,
			Machine: lab.MachineSpec{Memory: 512},
		},
	}

	t.chapter("The bisection, of boot options")
	t.say(fmt.Sprintf("lab bisect --kernel %s --image rootfs:%s --selinux-policy %s --selinux-fs rw --cmdline-good '%s' --cmdline-bad '%s' -- %s",
		parts.Kernel, parts.Root, parts.Policy, useraddGood, useraddBad, shellWords(demo.UseraddCommand)))
	found, err := t.l.Bisect(c.Context, o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = printJSON(c.App.Writer, found)
	} else {
		t.say("")
		_, err = fmt.Fprintf(c.App.Writer, "%s\ntime: %s\n", strings.TrimRight(answer(found), "\n"), time.Since(t.start).Round(time.Second))
	}
	if err == nil && found.Unclear != "" {
		err = fmt.Errorf("the demo found no boot option: %s", found.Unclear)
	}
	return err
}
