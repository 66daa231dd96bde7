package kconfig

import (
	"fmt"
	"slices"
)

// need is a symbol that lab's guest cannot do without. module names the
// loadable module that provides it, where the guest can load one.
type need struct {
	symbol, module, why string
}

// needs, roughly in the order in which a boot would come to miss them.
var needs = []need{
	{"64BIT", "", "the guest's programs are 64-bit"},
	{"PRINTK", "", "the console log is evidence"},
	{"SERIAL_8250_CONSOLE", "", "the console is a serial port"},
	{"BLK_DEV_INITRD", "", "the guest starts from an initramfs"},
	{"BINFMT_ELF", "", "PID 1 is an ELF program"},
	{"FUTEX", "", "PID 1 is a Go program"},
	{"EPOLL", "", "PID 1 is a Go program"},
	{"PROC_FS", "", "PID 1 mounts /proc"},
	{"SYSFS", "", "PID 1 finds its devices in /sys"},
	{"TMPFS", "", "the container's /dev is a tmpfs"},
	{"DEVTMPFS", "", "the device nodes of disk and ports come from it"},
	{"PCI", "", "the guest's devices sit on PCI"},
	{"EFI_PARTITION", "", "the guest's disk has a GPT"},
	{"EXT4_FS", "ext4", "the guest's file system is ext4"},
	{"NAMESPACES", "", "a container needs namespaces"},
	{"UTS_NS", "", "a container has a host name of its own"},
	{"IPC_NS", "", "a container has System V IPC of its own"},
	{"PID_NS", "", "a container has process numbers of its own"},
	{"NET_NS", "", "a container has a network of its own"},
}

// virtio is what the guest's disk needs of a kernel in lab's own machine.
var virtio = []need{
	{"VIRTIO_PCI", "virtio_pci", "the guest's devices are virtio devices on PCI"},
	{"VIRTIO_BLK", "virtio_blk", "the guest's disk is a virtio block device"},
}

// Guest names, in plain words, what lab's guest needs and a kernel of this
// resolved configuration lacks; nothing when it can run the guest. A symbol
// built as a module (=m) counts only when its module is among those that the
// guest loads from its initramfs.
func Guest(c Config, modules ...string) []string {
	lacks := lacking(c, modules, needs, virtio)
	if !channel(c, modules) {
		lacks = append(lacks, "CONFIG_VIRTIO_CONSOLE is not set and there is no second serial port (CONFIG_SERIAL_8250_RUNTIME_UARTS): the test's results have no way out")
	}
	return lacks
}

// lacking explains the needs that are not met.
func lacking(c Config, modules []string, lists ...[]need) []string {
	var lacks []string
	for _, list := range lists {
		for _, n := range list {
			if !n.met(c, modules) {
				lacks = append(lacks, n.lacking(c))
			}
		}
	}
	return lacks
}

func (n need) met(c Config, modules []string) bool {
	if c[n.symbol] == "m" {
		return n.module != "" && slices.Contains(modules, n.module)
	}
	return c[n.symbol] == "y"
}

func (n need) lacking(c Config) string {
	if c[n.symbol] == "m" {
		return fmt.Sprintf("CONFIG_%s is a module that the guest cannot load: %s", n.symbol, n.why)
	}
	return fmt.Sprintf("CONFIG_%s is not set: %s", n.symbol, n.why)
}

// channel: results come over a virtio-serial port, or else over the second
// serial port. The 8250 driver serves four ports unless told otherwise.
func channel(c Config, modules []string) bool {
	if (need{symbol: "VIRTIO_CONSOLE", module: "virtio_console"}).met(c, modules) {
		return true
	}
	ports := c["SERIAL_8250_RUNTIME_UARTS"]
	return c["SERIAL_8250"] == "y" && ports != "0" && ports != "1"
}
