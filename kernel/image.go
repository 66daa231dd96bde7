package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Where a bzImage keeps what is read here: Documentation/arch/x86/boot.rst,
// "The Real-Mode Kernel Header".
const (
	offSetupSects = 0x1f1 // u8: 512-byte sectors of the setup code after the boot sector
	offBootFlag   = 0x1fe // u16: 0xaa55
	offMagic      = 0x202 // "HdrS"
	offProtocol   = 0x206 // u16: boot protocol, 0x0200 and later have what follows
	offVersion    = 0x20e // u16: where the version string is, less 0x200; 0 for none
	offLoadFlags  = 0x211 // u8: bit 0 is set in a bzImage, which is loaded high
	headerSize    = 0x212
	maxSetupSects = 64 // "setup_sects" reaches 64 at most
)

// noteXen and notePVH name the ELF note that says where to enter a vmlinux in
// 32-bit mode: XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h).
const (
	noteXen = "Xen\x00"
	notePVH = 18
)

// FromFile returns the kernel in a file: a bzImage, or an x86-64 ELF vmlinux
// with a PVH entry. The release, and for a vmlinux the compiler, are read from
// the image itself.
func FromFile(path string) (Kernel, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	} else if !info.Mode().IsRegular() {
		return Kernel{}, fmt.Errorf("read kernel %s: not a regular file", path)
	}
	banner, err := readBanner(f)
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel %s: %w", path, err)
	}
	digest, err := digestFile(path)
	if err != nil {
		return Kernel{}, fmt.Errorf("read kernel: %w", err)
	}
	release, compiler := splitBanner(banner)
	return Kernel{Image: path, Release: release, Compiler: compiler, Digest: digest, Source: "file"}, nil
}

// readBanner returns the version string of a kernel image, beginning with the
// release.
func readBanner(r io.ReaderAt) (string, error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return "", errors.New("neither a bzImage nor an ELF vmlinux: too short")
	}
	if string(magic[:]) == elf.ELFMAG {
		return elfBanner(r)
	}
	return bzImageBanner(r)
}

func bzImageBanner(r io.ReaderAt) (string, error) {
	head := make([]byte, headerSize)
	n, err := r.ReadAt(head, 0)
	if n < len(head) || binary.LittleEndian.Uint16(head[offBootFlag:]) != 0xaa55 || string(head[offMagic:offMagic+4]) != "HdrS" {
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return "", errors.New("neither a bzImage nor an ELF vmlinux")
	}
	protocol := binary.LittleEndian.Uint16(head[offProtocol:])
	if protocol < 0x0200 || head[offLoadFlags]&1 == 0 {
		return "", fmt.Errorf("a zImage or a kernel of boot protocol %d.%02d: a bzImage is needed", protocol>>8, protocol&0xff)
	}
	sectors := int64(head[offSetupSects])
	if sectors == 0 {
		sectors = 4 // by the specification, for the oldest of kernels
	}
	if sectors > maxSetupSects {
		return "", fmt.Errorf("damaged bzImage: %d setup sectors", sectors)
	}
	at := int64(binary.LittleEndian.Uint16(head[offVersion:]))
	if at == 0 {
		return "", nil
	}
	at += 0x200
	end := (sectors + 1) * 512
	if at >= end {
		return "", errors.New("damaged bzImage: its version string lies outside of its setup code")
	}
	text := make([]byte, min(end-at, 512))
	if _, err := r.ReadAt(text, at); err != nil {
		return "", fmt.Errorf("truncated bzImage: %w", err)
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	return printable(text), nil
}

// elfBanner finds linux_banner (init/version.c) in the read-only data.
func elfBanner(r io.ReaderAt) (string, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", fmt.Errorf("damaged ELF file: %w", err)
	}
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return "", fmt.Errorf("an ELF file of type %s for %s: not an x86-64 vmlinux", f.Type, f.Machine)
	}
	banner, pvh := "", false
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			if banner == "" {
				if banner, err = findBanner(io.NewSectionReader(p.ReaderAt, 0, int64(p.Filesz))); err != nil {
					return "", fmt.Errorf("read ELF segment: %w", err)
				}
			}
		case elf.PT_NOTE:
			notes, err := io.ReadAll(io.LimitReader(io.NewSectionReader(p.ReaderAt, 0, int64(p.Filesz)), 64<<10))
			pvh = pvh || err == nil && hasPVH(notes)
		}
	}
	if banner == "" {
		return "", errors.New("an ELF file without a Linux version in it: not a vmlinux")
	}
	if !pvh {
		return "", errors.New("a vmlinux built without CONFIG_PVH, which QEMU cannot boot: use its bzImage")
	}
	return banner, nil
}

// findBanner returns what follows "Linux version ", up to the end of the line.
func findBanner(r io.Reader) (string, error) {
	const banner, longest = "Linux version ", 1024
	buf := make([]byte, 0, 1<<20)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return "", err
		}
		for rest := buf; ; {
			i := bytes.Index(rest, []byte(banner))
			if i < 0 {
				break
			}
			rest = rest[i+len(banner):]
			if len(rest) < longest && !last {
				break // cut off here; whole in the next round
			}
			// The same words begin a format string; a release begins with a digit.
			if len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
				text := rest[:min(len(rest), longest)]
				if i := bytes.IndexAny(text, "\n\x00"); i >= 0 {
					text = text[:i]
				}
				return printable(text), nil
			}
		}
		if last {
			return "", nil
		}
		keep := copy(buf, buf[len(buf)-longest-len(banner):])
		buf = buf[:keep]
	}
}

// hasPVH looks through ELF notes: sizes of name and content, type, and then
// both, each padded to four bytes.
func hasPVH(notes []byte) bool {
	for len(notes) >= 12 {
		name := uint64(binary.LittleEndian.Uint32(notes))
		size := uint64(binary.LittleEndian.Uint32(notes[4:]))
		kind := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		length := (name+3)&^3 + (size+3)&^3
		if name > uint64(len(notes)) || length > uint64(len(notes)) {
			return false
		}
		if kind == notePVH && string(notes[:name]) == noteXen {
			return true
		}
		notes = notes[length:]
	}
	return false
}

// splitBanner takes release and compiler out of
// "6.1.0 (user@host) (gcc (Debian 12) 12.2.0, GNU ld 2.40) #1 SMP date".
// A bzImage's string has no compiler in it.
func splitBanner(s string) (release, compiler string) {
	release, rest, _ := strings.Cut(s, " ")
	_, rest, ok := strings.Cut(rest, ") (")
	if !ok {
		return release, ""
	}
	depth := 1
	for i, r := range rest {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			compiler, _, _ = strings.Cut(rest[:i], ", GNU ld")
			compiler, _, _ = strings.Cut(compiler, ", LLD")
			return release, compiler
		}
	}
	return release, ""
}

// printable keeps a stranger's text from doing more to a terminal than being
// read.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, string(b))
}
