package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// efiHeader is fakeHeader with a PE header for that machine type at 0x80.
func efiHeader(machine byte) []byte {
	b := fakeHeader("6.1.0")
	copy(b, "MZ")
	copy(b[0x3c:], []byte{0x80, 0, 0, 0})
	copy(b[0x80:], []byte{'P', 'E', 0, 0, machine, 0x86})
	return b
}

func TestLacksUEFI(t *testing.T) {
	far := efiHeader(0x64)
	copy(far[0x3c:], []byte{0xff, 0xff, 0xff, 0xff})
	for name, test := range map[string]struct {
		image  []byte
		config string
		want   []string
	}{
		"stub":          {efiHeader(0x64), "", nil},
		"no stub":       {fakeHeader("6.1.0"), "", []string{"its image is no EFI program"}},
		"PE far away":   {far, "", []string{"no PE header"}},
		"other machine": {efiHeader(0x01), "", []string{"machine type 0x8601"}},
		"no EFI config": {fakeHeader("6.1.0"), "CONFIG_64BIT=y\n", []string{"its image is no EFI program", "CONFIG_EFI is not set", "CONFIG_EFI_STUB is not set"}},
	} {
		dir := t.TempDir()
		k := Kernel{Image: filepath.Join(dir, "bzImage")}
		if err := os.WriteFile(k.Image, test.image, 0o644); err != nil {
			t.Fatal(err)
		}
		if test.config != "" {
			k.Config = filepath.Join(dir, "config")
			if err := os.WriteFile(k.Config, []byte(test.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := k.LacksUEFI()
		if err != nil || len(got) < len(test.want) || test.config == "" && len(got) > len(test.want) {
			t.Errorf("%s: lacks %q, %v; want %q", name, got, err, test.want)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%s: lacks %q, want %q", name, got[i], want)
			}
		}
	}
	k := Kernel{Image: filepath.Join(t.TempDir(), "gone")}
	if _, err := k.LacksUEFI(); err == nil {
		t.Error("a kernel that is not there lacks nothing")
	}
}

func FuzzEFIStub(f *testing.F) {
	f.Add(efiHeader(0x64))
	f.Add(fakeHeader("6.1.0"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, image []byte) {
		why := noEFIStub(bytes.NewReader(image))
		if why == "" && !bytes.Contains(image, []byte("PE\x00\x00\x64\x86")) {
			t.Error("an EFI stub without a PE header")
		}
	})
}

// TestMoreModules asks for drivers that ordinary kernels come without.
func TestMoreModules(t *testing.T) {
	files := append(fakePackage(),
		file{name: lib + "kernel/ata/ahci.ko", content: ko("depends=libata")},
		file{name: lib + "kernel/ata/libata.ko", content: ko("depends=")})
	dir := t.TempDir()
	path := filepath.Join(dir, "linux.deb")
	if err := os.WriteFile(path, debOf(t, control, "", files...), 0o644); err != nil {
		t.Fatal(err)
	}
	plain, err := FromPackage(t.Context(), dir, path, Modules{})
	if err != nil {
		t.Fatal(err)
	}
	more, err := FromPackage(t.Context(), dir, path, Modules{Offered: DiskDrivers()})
	if err != nil {
		t.Fatal(err)
	}
	names := func(k Kernel) (names []string) {
		for _, m := range k.Modules {
			names = append(names, moduleName(m))
		}
		return names
	}
	if got, want := strings.Join(names(more), " "), strings.Join(names(plain), " ")+" libata ahci"; got != want {
		t.Errorf("modules are %s, want %s", got, want)
	}
	again, err := FromPackage(t.Context(), dir, path, Modules{})
	if err != nil || len(again.Modules) != len(plain.Modules) || again.Digest != more.Digest {
		t.Errorf("the plain kernel has become %q, %v", again.Modules, err)
	}
}
