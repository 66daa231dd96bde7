//go:build linux

package agent

import (
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// useAllConsoles makes the agent speak on every console that the kernel writes
// to. /dev/console is the last of them only, which may be a serial line that
// nobody looks at, or that the machine does not have.
func (a *agent) useAllConsoles() {
	var all []int
	for name := range strings.FieldsSeq(readLine("/sys/class/tty/console/active")) {
		// Not to wait for a carrier, a line is opened without blocking.
		fd, err := unix.Open("/dev/"+name, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		if err := unix.SetNonblock(fd, false); err != nil {
			_ = unix.Close(fd)
			continue
		}
		all = append(all, fd)
	}
	if len(all) > 0 {
		a.consoles = all // the one that was open stays so: it may be standard output
	}
}

// readingTime is how long the reason why a test could not run stays on a screen.
const readingTime = 30 * time.Second

// leave does what comes before the power goes, or does not go. The disk keeps
// what the test wrote, and is left as an unmounted one is.
func (a *agent) leave(failed bool) {
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		a.say("note: the disk is left as if the machine had lost power: remount it read-only: %v", err)
	}
	switch {
	case hasParameter(a.cmdline, "lab.stay"):
		a.say("the machine stays on, as lab.stay asks: switch it off")
		stay()
	case failed:
		a.say("the machine powers off in %s", readingTime)
		time.Sleep(readingTime)
	}
}
