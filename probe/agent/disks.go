//go:build linux

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// isDisk says whether a block device, by its folder in /sys/class/block, is one
// that a disk image may lie on.
func isDisk(dir string) bool {
	name := filepath.Base(dir)
	return !slices.ContainsFunc([]string{"loop", "ram", "zram", "sr", "fd"}, func(kind string) bool {
		rest, ok := strings.CutPrefix(name, kind)
		return ok && strings.Trim(rest, "0123456789") == ""
	})
}

// describeDisk is a block device's name, size and partition name:
// `vda2 (33 MiB, "lab-esp")`.
func describeDisk(dir string) string {
	var facts []string
	// Sectors of 512 bytes, whatever the disk has (Documentation/ABI/stable/sysfs-block).
	if sectors, err := strconv.ParseInt(readLine(filepath.Join(dir, "size")), 10, 64); err == nil {
		facts = append(facts, fmt.Sprintf("%d MiB", sectors>>11))
	}
	uevent, _ := os.ReadFile(filepath.Join(dir, "uevent"))
	for line := range strings.Lines(string(uevent)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); ok {
			facts = append(facts, fmt.Sprintf("%q", name))
		}
	}
	if len(facts) == 0 {
		return filepath.Base(dir)
	}
	return filepath.Base(dir) + " (" + strings.Join(facts, ", ") + ")"
}

// controllers are the kinds of PCI storage controller, by the subclass of class
// 01 (PCI Code and ID Assignment Specification, section 1.2).
var controllers = map[string]string{
	"00": "SCSI", "01": "IDE", "04": "RAID", "05": "ATA", "06": "SATA", "07": "SAS", "08": "NVMe",
}

// idleControllers names the storage controllers that no driver has taken: the
// likely reason for a disk that is not there. It is empty when there is none.
func idleControllers() string {
	var idle []string
	devices, _ := filepath.Glob("/sys/bus/pci/devices/*") // the pattern is good
	for _, d := range devices {
		class := readLine(filepath.Join(d, "class")) // 0xCCSSPP
		if len(class) != 8 || !strings.HasPrefix(class, "0x01") {
			continue
		}
		if _, err := os.Stat(filepath.Join(d, "driver")); err == nil {
			continue
		}
		kind := controllers[class[4:6]]
		if kind == "" {
			kind = "storage"
		}
		id := strings.TrimPrefix(readLine(filepath.Join(d, "vendor")), "0x") + ":" + strings.TrimPrefix(readLine(filepath.Join(d, "device")), "0x")
		idle = append(idle, fmt.Sprintf("%s %s at %s", kind, id, filepath.Base(d)))
	}
	if len(idle) == 0 {
		return ""
	}
	return "; the kernel has no driver for " + strings.Join(idle, ", ")
}

// readLine is a file of one line, as those of sysfs are; empty when it cannot be
// read.
func readLine(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}
