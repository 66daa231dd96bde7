package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmlinuz")
	image := append(fakeHeader("6.1.0-\x1b[31mred"), "compressed"...)
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := FromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if k.Release != "6.1.0-?[31mred" || k.Source != "file" || k.Image != path || !strings.HasPrefix(k.Digest, "sha256:") || k.Compiler != "" {
		t.Errorf("kernel: %+v", k)
	}
	if lacks, err := lacking(k); err != nil || lacks != nil {
		t.Errorf("of a kernel without a configuration nothing is known, but: %q, %v", lacks, err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "nosuch"), t.TempDir()} {
		if _, err := FromFile(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("FromFile(%s): error %v, want one that names it", path, err)
		}
	}
}

func TestBzImageRefused(t *testing.T) {
	change := func(offset int, bytes ...byte) []byte {
		b := fakeHeader("6.1.0")
		copy(b[offset:], bytes)
		return b
	}
	for name, test := range map[string]struct {
		image []byte
		want  string
	}{
		"empty":            {nil, "too short"},
		"text":             {bytes.Repeat([]byte("text "), 1000), "neither a bzImage nor"},
		"short":            {fakeHeader("6.1.0")[:520], "neither a bzImage nor"},
		"no boot flag":     {change(offBootFlag, 0), "neither a bzImage nor"},
		"old protocol":     {change(offProtocol, 0, 1), "boot protocol 1.00"},
		"zImage":           {change(offLoadFlags, 0), "a bzImage is needed"},
		"many sectors":     {change(offSetupSects, 200), "200 setup sectors"},
		"version outside":  {change(offVersion, 0xff, 0xff), "outside of its setup code"},
		"version cut off":  {fakeHeader("6.1.0")[:0x2f0], "truncated bzImage"},
		"ELF, but nothing": {[]byte(elf.ELFMAG + "................................................................"), "damaged ELF file"},
	} {
		got, err := readBanner(bytes.NewReader(test.image))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q and error %v, want %q", name, got, err, test.want)
		}
	}
	if got, err := readBanner(bytes.NewReader(change(offVersion, 0, 0))); got != "" || err != nil {
		t.Errorf("a bzImage without a version string: %q, %v", got, err)
	}
}

// vmlinux is an ELF file of two segments: the text and, perhaps, notes.
func vmlinux(machine elf.Machine, text string, notes []byte) []byte {
	var b bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	const start = 64 + 2*56
	for _, part := range []any{
		header,
		elf.Prog64{Type: uint32(elf.PT_LOAD), Off: start, Filesz: uint64(len(text)), Memsz: uint64(len(text))},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: start + uint64(len(text)), Filesz: uint64(len(notes)), Memsz: uint64(len(notes))},
		[]byte(text), notes,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func note(name string, kind uint32, content string) []byte {
	var b []byte
	for _, n := range []uint32{uint32(len(name)), uint32(len(content)), kind} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, s := range []string{name, content} {
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&3)...)
	}
	return b
}

func TestVmlinux(t *testing.T) {
	const banner = "Linux version 6.1.192 (lab@lab) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld (GNU Binutils) 2.40) #1 SMP Thu Jan 1\n"
	pvh := append(note("GNU\x00", 3, "0123456789"), note("Xen\x00", notePVH, "12345678")...)
	// The banner across every edge of the reader's buffer.
	for _, at := range []int{0, 100, 1<<20 - 2000, 1<<20 - 1050, 1<<20 - 60, 1<<20 - 5, 1 << 20, 3<<20 - 7} {
		text := "Linux version %s\x00" + strings.Repeat(".", at) + banner + strings.Repeat("\x00", 100)
		path := filepath.Join(t.TempDir(), "vmlinux")
		if err := os.WriteFile(path, vmlinux(elf.EM_X86_64, text, pvh), 0o644); err != nil {
			t.Fatal(err)
		}
		k, err := FromFile(path)
		if err != nil || k.Release != "6.1.192" || k.Compiler != "gcc (Debian 12.2.0-14) 12.2.0" {
			t.Errorf("banner at %d: release %q, compiler %q, %v", at, k.Release, k.Compiler, err)
		}
	}
	for name, test := range map[string]struct {
		image []byte
		want  string
	}{
		"no PVH":         {vmlinux(elf.EM_X86_64, banner, note("GNU\x00", 3, "x")), "CONFIG_PVH"},
		"no version":     {vmlinux(elf.EM_X86_64, "Linux version ", pvh), "without a Linux version"},
		"foreign":        {vmlinux(elf.EM_AARCH64, banner, pvh), "not an x86-64 vmlinux"},
		"damaged notes":  {vmlinux(elf.EM_X86_64, banner, bytes.Repeat([]byte{0xff}, 64)), "CONFIG_PVH"},
		"cut off banner": {vmlinux(elf.EM_X86_64, banner, pvh)[:200], ""},
	} {
		if got, err := readBanner(bytes.NewReader(test.image)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %q and error %v, want %q", name, got, err, test.want)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(fakeHeader("6.1.0"))
	f.Add(fakeHeader("6.1.0")[:0x300])
	f.Add(vmlinux(elf.EM_X86_64, "Linux version 6.1.0 (lab@lab) (gcc (x) 1, GNU ld 2) #1\n", note("Xen\x00", notePVH, "12345678")))
	f.Fuzz(func(t *testing.T, data []byte) {
		banner, err := readBanner(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(banner) > 4096 || strings.ContainsAny(banner, "\n\x00\x1b") {
			t.Errorf("banner %q", banner)
		}
		if release, _ := splitBanner(banner); strings.Contains(release, " ") {
			t.Errorf("release %q of %q", release, banner)
		}
	})
}
