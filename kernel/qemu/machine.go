package qemu

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// Disk is a raw disk image, seen by the guest as a virtio-blk disk (vda, vdb,
// … in the order of Machine.Disks). The file is only read: what the guest
// writes goes into a temporary overlay that QEMU unlinks as soon as it has
// created it.
type Disk struct {
	Path string
	Size int64 // in bytes; of an exact machine's disk it must be right, and else nobody asks
}

// Machine describes a guest. Kernel is the only field that must be set; the
// zero value of every other field is a default.
type Machine struct {
	Binary  string    // QEMU's system emulator, or a script that execs it; default what Find finds
	Accel   string    // "tcg" (default) or "kvm"
	CPU     string    // QEMU CPU model; default DefaultCPU
	Memory  int       // MiB; default 512
	CPUs    int       // default 1
	Kernel  string    // path of a bzImage
	Initrd  string    // path of an initramfs; none when empty
	Cmdline string    // the kernel's command line, at most MaxCmdline bytes
	Disks   []Disk    // at most maxDisks
	Ports   []string  // names of virtio-serial ports, as in /sys/class/virtio-ports/*/name; at most maxPorts
	Clock   time.Time // what the guest's RTC says at start, advancing with guest time; the host's clock when zero
	TempDir string    // where QEMU keeps the disks' overlays; default $TMPDIR, then /var/tmp

	// Confined is for a guest that is not trusted: QEMU can open nothing of the
	// host's that not everybody can, runs as nobody where we are root (it and
	// TempDir must be open to all then), and may take no more memory and disk than
	// such a guest needs.
	Confined bool

	// Exact has the guest do the same, instruction by instruction, whenever the same
	// files are booted with the same QEMU; with TCG, one CPU and a Clock. The disks are
	// NVDIMMs then (pmem0, pmem1, …), copied to memory. What is sent to a port comes
	// when the host is ready: a guest that is to be exact waits for nothing.
	Exact bool

	// Record is the path of a file that QEMU makes a log of the run in, and Replay of one
	// that it runs by: the same run once more, instruction by instruction, of the same
	// files and arguments; what the host sends is then ignored. See record.go.
	Record, Replay string

	// Snapshots has VM.Save and Restore work: QEMU gets a socket to be told.
	Snapshots bool
	incoming  bool // wait for a snapshot

	// GDB is a socket that listens, on which QEMU serves the remote protocol of gdb, to
	// one at a time (docs/system/gdb.rst of QEMU); it stays the caller's. Paused has the
	// guest wait, before its first instruction, until it is told there to go on.
	GDB    *os.File
	Paused bool

	// Console receives ttyS0's output from its first byte, from one goroutine.
	// It should not block for long: an 8250 driver gives up waiting after
	// 10 ms per byte and then loses output. nil discards.
	Console io.Writer
	// Stderr receives what QEMU itself says. nil discards; the first line is
	// part of Wait's error in any case.
	Stderr io.Writer
}

const (
	// DefaultCPU is the CPU model guests get under every accelerator.
	//
	// A fixed model, so that a guest sees the same CPU under tcg and kvm and
	// with any QEMU; KVM alone puts the host's vendor in place of Intel.
	// Haswell is x86-64-v3, the newest level that distributions ask of their
	// userland, less what TCG does not emulate. rdrand gives kernels entropy
	// at boot: a virtio-rng device would cost 0.1 s of each boot, and old
	// kernels credit nothing for it.
	DefaultCPU = "Haswell-noTSX,-pcid,-invpcid,-x2apic,-tsc-deadline"

	// BaseCmdline is what a Linux guest needs on its command line here: its
	// console, and no check of the timer interrupt, which a guest on a busy
	// host fails by chance and then panics ("IO-APIC + timer doesn't work";
	// KVM guests leave the check out by themselves).
	//
	// With the kernel's default of panic=0 a dead guest stays, and QEMU hands
	// over all that it sent before; with panic=-1 QEMU ends at once, and what
	// a full port held back is lost.
	BaseCmdline = "console=ttyS0 no_timer_check"

	// MaxCmdline is the longest command line that x86 kernels take:
	// COMMAND_LINE_SIZE less the final NUL (arch/x86/include/asm/setup.h).
	MaxCmdline = 2047

	maxDisks  = 16
	maxPorts  = 30      // virtio-serial's default max_ports is 31, port 0 is the console's
	maxMemory = 1 << 20 // MiB
	maxCPUs   = 255
	maxPath   = 4095
	maxName   = 255

	defaultBinary = "qemu-system-x86_64"
	defaultMemory = 512

	// QEMU's file descriptors: exec.Cmd's ExtraFiles begin at 3.
	fdConsole = 3
	fdSpare   = 4
	fdPorts   = 5
)

// Args renders the command line, without the program's name. It is pure:
// equal machines give equal arguments. File descriptor 3 is the console's
// socket, 4 the second serial port's, 5 and up those of Ports, and the next those
// of Snapshots and GDB.
func (m Machine) Args() []string {
	a := []string{
		"-nodefaults", "-no-user-config",
		"-display", "none",
		"-no-reboot",
		"-msg", "timestamp=off",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	machine, memory := "pc,usb=off,vmport=off,dump-guest-core=off", strconv.Itoa(orInt(m.Memory, defaultMemory))
	var exact []string
	if m.Exact {
		machine += ",nvdimm=on"
		exact, memory = m.exactArgs()
	}
	a = append(a,
		"-machine", machine,
		"-accel", or(m.Accel, "tcg"),
		"-cpu", or(m.CPU, DefaultCPU),
		"-smp", strconv.Itoa(orInt(m.CPUs, 1)),
		"-m", memory,
	)
	a = append(a, exact...)
	if !m.Clock.IsZero() {
		a = append(a, "-rtc", "base="+m.Clock.UTC().Format("2006-01-02T15:04:05")+",clock=vm")
	}
	a = append(a, "-kernel", m.Kernel)
	if m.Initrd != "" {
		a = append(a, "-initrd", m.Initrd)
	}
	if m.Cmdline != "" {
		a = append(a, "-append", m.Cmdline)
	}
	if m.logged() {
		a = append(append(a, m.logArgs()...), m.loggedChannels()...)
	} else {
		a = append(a,
			"-chardev", fmt.Sprintf("socket,id=console,fd=%d", fdConsole), "-serial", "chardev:console",
			"-chardev", fmt.Sprintf("socket,id=spare,fd=%d", fdSpare), "-serial", "chardev:spare",
		)
	}
	for i, d := range m.Disks {
		if m.Exact {
			break
		}
		a = append(a, "-drive", fmt.Sprintf("if=none,id=disk%d,snapshot=on,format=raw,file.driver=file,file.filename=%s", i, escape(d.Path)))
		drive := fmt.Sprintf("disk%d", i)
		if m.logged() {
			a = append(a, "-drive", fmt.Sprintf("if=none,id=logged%d,driver=blkreplay,image=%s", i, drive))
			drive = fmt.Sprintf("logged%d", i)
		}
		a = append(a, "-device", fmt.Sprintf("virtio-blk-pci,drive=%s,disable-legacy=off", drive))
	}
	if len(m.Ports) > 0 {
		a = append(a, "-device", "virtio-serial-pci,disable-legacy=off,ioeventfd=off")
	}
	for i, name := range m.Ports {
		channel := fmt.Sprintf("port%d", i)
		if m.logged() {
			channel = fmt.Sprintf("serial%d", pcSerials+i)
		} else {
			a = append(a, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", channel, fdPorts+i))
		}
		a = append(a, "-device", fmt.Sprintf("virtserialport,nr=%d,chardev=%s,name=%s", i+1, channel, escape(name)))
	}
	if m.Snapshots {
		a = append(a, "-chardev", fmt.Sprintf("socket,id=control,fd=%d", fdPorts+len(m.Ports)), "-mon", "chardev=control,mode=control")
	}
	if m.GDB != nil {
		fd := fdPorts + len(m.Ports)
		if m.Snapshots {
			fd++
		}
		a = append(a, "-chardev", fmt.Sprintf("socket,id=gdb,fd=%d,server=on,wait=off", fd), "-gdb", "chardev:gdb")
	}
	if m.Paused {
		a = append(a, "-S")
	}
	if m.incoming {
		a = append(a, "-incoming", "defer")
	}
	return a
}

// check refuses what QEMU or the kernel would misread.
func (m Machine) check() error {
	switch {
	case m.Kernel == "":
		return fmt.Errorf("check machine: no kernel")
	case m.Accel != "" && m.Accel != "tcg" && m.Accel != "kvm":
		return fmt.Errorf("check machine: unknown accelerator %q", m.Accel)
	case m.Memory < 0 || m.Memory > maxMemory:
		return fmt.Errorf("check machine: memory of %d MiB is not between 1 and %d", m.Memory, maxMemory)
	case m.CPUs < 0 || m.CPUs > maxCPUs:
		return fmt.Errorf("check machine: %d CPUs is not between 1 and %d", m.CPUs, maxCPUs)
	case len(m.Disks) > maxDisks:
		return fmt.Errorf("check machine: %d disks, at most %d", len(m.Disks), maxDisks)
	case m.Snapshots && m.Confined:
		return fmt.Errorf("check machine: a confined machine has no snapshots")
	case m.Paused && m.GDB == nil:
		return fmt.Errorf("check machine: nobody could tell a paused machine to go on")
	case len(m.Ports) > maxPorts:
		return fmt.Errorf("check machine: %d ports, at most %d", len(m.Ports), maxPorts)
	case !m.Clock.IsZero() && (m.Clock.UTC().Year() < 1970 || m.Clock.UTC().Year() > 2099):
		return fmt.Errorf("check machine: clock %s is not between 1970 and 2099", m.Clock)
	}
	if m.Exact {
		if err := m.checkExact(); err != nil {
			return err
		}
	}
	if err := m.checkLog(); err != nil {
		return err
	}
	type text struct {
		what, s string
		max     int
	}
	texts := []text{
		{"binary", m.Binary, maxPath}, {"CPU", m.CPU, maxName},
		{"kernel path", m.Kernel, maxPath}, {"initrd path", m.Initrd, maxPath},
		{"command line", m.Cmdline, MaxCmdline},
		{"recording's path", m.Record, maxPath}, {"recording's path", m.Replay, maxPath},
	}
	for _, d := range m.Disks {
		if d.Path == "" {
			return fmt.Errorf("check machine: a disk has no path")
		}
		texts = append(texts, text{"disk path", d.Path, maxPath})
	}
	seen := map[string]bool{}
	for _, p := range m.Ports {
		if p == "" || seen[p] {
			return fmt.Errorf("check machine: port name %q is empty or used twice", p)
		}
		seen[p] = true
		texts = append(texts, text{"port name", p, maxName})
	}
	for _, t := range texts {
		if len(t.s) > t.max {
			return fmt.Errorf("check machine: %s of %d bytes, at most %d", t.what, len(t.s), t.max)
		}
		if i := strings.IndexFunc(t.s, control); i >= 0 {
			return fmt.Errorf("check machine: %s %q has a control character at byte %d", t.what, t.s, i)
		}
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

// escape makes s one value of a QEMU option list, where a comma ends a value
// and two commas are one (qemu-system-x86_64(1), -drive).
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func orInt(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
