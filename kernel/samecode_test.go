package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lab/lab/debiantest"
)

// TestSameCode compares programs that a linker makes as it makes a vmlinux.
func TestSameCode(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "kernel.c")
	made := func(name, text string, options ...string) string {
		t.Helper()
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		args := append([]string{"-O2", "-ffreestanding", "-nostdlib", "-static", "-Wl,--build-id=sha1", "-o", file, source}, options...)
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
		return file
	}
	const text = "int first = 1, zero[100]; int _start(int n) { return n + first + zero[n]; }\n"
	runs := made("runs", text)
	if err := SameCode(runs, made("debug", text, "-g")); err != nil {
		t.Error(err)
	}
	for what, c := range map[string]struct{ file, want string }{
		"other code":       {made("code", strings.Replace(text, "+ first", "- first", 1)), `section ".text" differs at 0x`},
		"other data":       {made("data", strings.Replace(text, "= 1", "= 2", 1)), `section ".data" differs at 0x`},
		"another size":     {made("size", strings.Replace(text, "100", "200", 1)), `section ".bss" is 400 bytes at 0x`},
		"no such part":     {made("part", "int _start(void) { return 0; }\n"), "is not of the same code"},
		"not a kernel":     {source, "is no vmlinux"},
		"not there":        {filepath.Join(dir, "nothing"), "no such file"},
		"placed elsewhere": {made("place", text, "-Wl,-Ttext-segment=0x800000"), "at 0x400"},
	} {
		if err := SameCode(runs, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := SameCode(source, runs); err == nil {
		t.Error("a text is a kernel")
	}
}

// TestSameCodeOfAKernel compares a real bzImage with what it unpacks to.
func TestSameCodeOfAKernel(t *testing.T) {
	e2e(t)
	k, err := FromPackage(t.Context(), t.TempDir(), debiantest.Kernel(t), Modules{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(k.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := openVmlinux(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SameCode(k.Image, file); err != nil {
		t.Error(err)
	}
	e, err := elf.NewFile(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	b.Bytes()[e.Section(".text").Offset+4711] ^= 1
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := SameCode(k.Image, file); !errors.Is(err, errOtherCode) || !strings.Contains(err.Error(), `".text" differs at 0xffffffff81001267`) {
		t.Error(err)
	}
}
