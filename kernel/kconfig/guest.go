package kconfig

import (
	"fmt"
	"slices"
)

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
