package qemu

import (
	"slices"
	"strings"
	"testing"
)

func TestStandaloneArgsInheritNothing(t *testing.T) {
	m := Machine{Kernel: "kernels/good/bzImage", Initrd: "inputs/initramfs", Ports: []string{"lab.0"}, Disks: []Disk{{Path: "disk.img"}}}
	args := m.StandaloneArgs()
	for _, a := range args {
		if strings.Contains(a, "fd=") {
			t.Errorf("argument %q needs a descriptor of lab's", a)
		}
	}
	if !slices.Contains(args, "stdio,id=console,signal=off") || !slices.Contains(args, "null,id=spare") {
		t.Errorf("no console on standard output: %q", args)
	}
	for _, kept := range []string{"-sandbox", "-no-reboot", "kernels/good/bzImage", "inputs/initramfs"} {
		if !slices.Contains(args, kept) {
			t.Errorf("%s is missing in %q", kept, args)
		}
	}
}
