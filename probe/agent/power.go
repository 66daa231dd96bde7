//go:build linux

package agent

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// powerOff ends the machine and never returns. Without ACPI the kernel knows no
// way to power off, and would halt with the machine running: then it resets,
// which ends a QEMU that was started with -no-reboot. A machine that is alone
// would only start again, and is left halted.
func powerOff(alone bool) {
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	select {
	case <-synced:
	case <-time.After(5 * time.Second): // the disk is thrown away; a dead kernel thread must not keep us
	}
	if _, err := os.Stat("/sys/firmware/acpi"); err == nil || alone {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if !alone {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	stay()
}

// stay does nothing, for ever: a PID 1 that ends is a panic, and one that waits
// for nothing is a deadlock to Go.
func stay() {
	for {
		time.Sleep(time.Hour)
	}
}
