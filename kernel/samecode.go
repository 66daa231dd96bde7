package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// SameCode says whether a vmlinux, with its symbols and debug information, is the kernel
// that a bzImage has compressed: every section that is loaded has the same address and the
// same bytes. The error names the first that has not.
//
// Identifiers of a build do not count: they are digests of all that was linked, so that
// debug information changes them (ld(1), --build-id).
func SameCode(image, vmlinux string) error {
	if err := sameCode(image, vmlinux); err != nil {
		return fmt.Errorf("compare %s with the kernel: %w", vmlinux, err)
	}
	return nil
}

func sameCode(image, vmlinux string) error {
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := os.Open(vmlinux)
	if err != nil {
		return err
	}
	defer v.Close()
	r, err := openVmlinux(f)
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxUnpacked+1))
	if err != nil {
		return err
	}
	if len(data) > maxUnpacked {
		return fmt.Errorf("it unpacks to more than %d bytes", maxUnpacked)
	}
	runs, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	named, err := elf.NewFile(v)
	if err != nil {
		return fmt.Errorf("%s is no vmlinux: %w", vmlinux, err)
	}
	return sameSections(runs, named)
}

// errOtherCode says what to do about another kernel.
var errOtherCode = errors.New("it is not of the same code: another commit, configuration or compiler made it")

func sameSections(runs, named *elf.File) error {
	loaded := 0
	for _, s := range runs.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		loaded++
		other := named.Section(s.Name)
		switch {
		case other == nil:
			return fmt.Errorf("it has no section %.40q: %w", s.Name, errOtherCode)
		case other.Addr != s.Addr || other.Size != s.Size:
			return fmt.Errorf("section %.40q is %d bytes at %#x in the kernel, and %d at %#x: %w", s.Name, s.Size, s.Addr, other.Size, other.Addr, errOtherCode)
		case s.Type == elf.SHT_NOBITS:
			continue
		}
		a, err := s.Data()
		if err != nil {
			return fmt.Errorf("read section %.40q: %w", s.Name, err)
		}
		b, err := other.Data()
		if err != nil {
			return fmt.Errorf("read section %.40q: %w", s.Name, err)
		}
		maskBuildIDs(a)
		maskBuildIDs(b)
		for i := range a {
			if i == len(b) || a[i] != b[i] {
				return fmt.Errorf("section %.40q differs at %#x: %w", s.Name, s.Addr+uint64(i), errOtherCode)
			}
		}
	}
	if loaded == 0 {
		return errors.New("the kernel has no sections to compare")
	}
	return nil
}

// maskBuildIDs overwrites the identifiers in notes of type NT_GNU_BUILD_ID (elf(5)), the
// kernel's own and those of the vdso's inside of it: a header of three words, the name
// and 20 bytes of SHA-1.
func maskBuildIDs(data []byte) {
	const id = 20
	var header []byte
	for _, word := range []uint32{4, id, 3} { // lengths of name and identifier, type
		header = binary.LittleEndian.AppendUint32(header, word)
	}
	header = append(header, "GNU\x00"...)
	for at := 0; ; {
		i := bytes.Index(data[at:], header)
		if i < 0 {
			return
		}
		at += i + len(header)
		clear(data[at:min(at+id, len(data))])
	}
}
