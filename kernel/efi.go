package kernel

import (
	"debug/pe"
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"lab/kernel/kconfig"
)

// LacksUEFI names, in plain words, what UEFI firmware and lab's guest on a
// machine that is not lab's own need and this kernel does not have: an EFI stub
// in its image, and what its configuration tells, when it came with one.
func (k Kernel) LacksUEFI() ([]string, error) {
	f, err := os.Open(k.Image)
	if err != nil {
		return nil, fmt.Errorf("read kernel: %w", err)
	}
	defer f.Close()
	var lacks []string
	if why := noEFIStub(f); why != "" {
		lacks = append(lacks, why)
	}
	c, modules, err := k.Configuration()
	if err != nil || c == nil {
		return lacks, err
	}
	return append(lacks, kconfig.UEFI(c, modules...)...), nil
}

// Disks names the kinds of disk that this kernel has a driver for, and those
// that it has none for, judged by its configuration; none at all when it came
// without one.
func (k Kernel) Disks() (has, lacks []string, err error) {
	c, modules, err := k.Configuration()
	if err != nil || c == nil {
		return nil, nil, err
	}
	has, lacks = kconfig.Disks(c, modules...)
	return has, lacks, nil
}

// noEFIStub says why firmware does not take a kernel's image for an EFI program,
// "" when it does: one built with CONFIG_EFI_STUB begins as a DOS program, "MZ",
// with the offset of a PE header at 0x3c (arch/x86/boot/header.S; Microsoft's PE
// Format, "MS-DOS Stub" and "COFF File Header").
func noEFIStub(r io.ReaderAt) string {
	head := make([]byte, 0x40)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[:2]) != "MZ" {
		return "an EFI stub (CONFIG_EFI_STUB): its image is no EFI program"
	}
	coff := make([]byte, 6)
	if _, err := r.ReadAt(coff, int64(binary.LittleEndian.Uint32(head[0x3c:]))); err != nil || string(coff[:4]) != "PE\x00\x00" {
		return "an EFI stub (CONFIG_EFI_STUB): its image has no PE header"
	}
	if machine := binary.LittleEndian.Uint16(coff[4:]); machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		return fmt.Sprintf("an EFI stub for x86-64: its image is for machine type %#x", machine)
	}
	return ""
}
