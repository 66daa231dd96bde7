package qemu

import (
	"fmt"
	"strings"
)

// Record and replay, as QEMU has it (docs/devel/replay.rst, docs/system/replay.rst):
// while the machine runs, all that reaches the guest from outside and by chance, the
// clocks, random numbers, what the host sends, when a disk is done, goes to a log, each with the number of
// instructions that the guest had executed by then. A machine with the same files and arguments
// that replays the log executes the same instructions again, and writes the same bytes.
//
// It takes TCG, one processor, disks behind blkreplay, and channels whose input is
// logged. QEMU logs that of channels which are declared with -serial, and not of those
// with -chardev: so the ports are serial lines as well, beyond the four that a PC has,
// and their virtio devices take them by the names that QEMU gives them.

// pcSerials is how many serial lines a PC has (MAX_ISA_SERIAL_PORTS of QEMU's
// include/hw/char/serial.h); others are wired to nothing.
const pcSerials = 4

// logged tells whether the machine is made for a log.
func (m Machine) logged() bool { return m.Record != "" || m.Replay != "" }

// logArgs are those of the log itself.
func (m Machine) logArgs() []string {
	mode, file := "record", m.Record
	if m.Replay != "" {
		mode, file = "replay", m.Replay
	}
	return []string{"-icount", "shift=auto,rr=" + mode + ",rrfile=" + escape(file)}
}

// loggedChannels are the channels of a machine with a log.
func (m Machine) loggedChannels() []string {
	a := []string{"-serial", serial(fdConsole), "-serial", serial(fdSpare)}
	if len(m.Ports) > 0 {
		a = append(a, strings.Fields(strings.Repeat("-serial none ", pcSerials-2))...)
	}
	for i := range m.Ports {
		a = append(a, "-serial", serial(fdPorts+i))
	}
	return a
}

// serial is a serial line that is a socket (qemu-system-x86_64(1), -serial: unix takes the
// options of -chardev socket).
func serial(fd int) string { return fmt.Sprintf("unix:fd=%d", fd) }

// checkLog refuses a machine that cannot be logged.
func (m Machine) checkLog() error {
	switch {
	case !m.logged():
		return nil
	case m.Record != "" && m.Replay != "":
		return fmt.Errorf("check machine: it cannot record and replay at once")
	case m.Accel != "" && m.Accel != "tcg":
		return fmt.Errorf("check machine: recording and replaying take tcg, not %s", m.Accel)
	case orInt(m.CPUs, 1) != 1:
		return fmt.Errorf("check machine: recording and replaying take one CPU, not %d", m.CPUs)
	case m.Exact:
		return fmt.Errorf("check machine: it is exact already, without a recording")
	case m.Snapshots:
		return fmt.Errorf("check machine: recording and replaying do not go with snapshots")
	case m.Confined && m.Record != "":
		return fmt.Errorf("check machine: a confined machine cannot write a recording")
	}
	return nil
}
