package kconfig

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.0 Kernel Configuration\n#\n" +
		"CONFIG_CC_VERSION_TEXT=\"gcc \\\"12\\\" \\\\ 12.2.0\"\r\nCONFIG_64BIT=y\nCONFIG_EXT4_FS=m\n\n" +
		"# CONFIG_SMP is not set\nCONFIG_NR_CPUS=64\nCONFIG_PANIC_TIMEOUT=-1\nCONFIG_PHYSICAL_START=0x1000000\n" +
		"CONFIG_EMPTY=\nCONFIG_FOO=y  \nCONFIG_FOO=n\n# CONFIG_BAR is not set yet\n"
	got, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		"CC_VERSION_TEXT": `"gcc \"12\" \\ 12.2.0"`, "64BIT": "y", "EXT4_FS": "m", "SMP": "n",
		"NR_CPUS": "64", "PANIC_TIMEOUT": "-1", "PHYSICAL_START": "0x1000000", "EMPTY": "", "FOO": "n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
	again, err := Parse(bytes.NewReader(got.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("Bytes does not parse back (-want +got):\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"CONFIG_A=y\nCONFIG_B=maybe\n": `parse line 2: CONFIG_B: "maybe" is not`,
		"SMP=y\n":                      `parse line 1: "SMP=y" is neither`,
		"CONFIG_SMP\n":                 "parse line 1",
		"CONFIG_=y\n":                  "parse line 1",
		"CONFIG_A B=y\n":               "parse line 1",
		"CONFIG_A=\"open\n":            "parse line 1",
		"CONFIG_A=\"a\"b\"\n":          "parse line 1",
		"CONFIG_A=\"a\\\"\n":           "parse line 1",
		"CONFIG_A=0x\n":                "parse line 1",
		"CONFIG_A=-\n":                 "parse line 1",
		"<<<<<<< HEAD\n":               "parse line 1",
		"CONFIG_A=\"" + strings.Repeat("x", maxLine): "parse line 1: longer than",
		strings.Repeat("#\n", maxSize/2+1):           "larger than",
	} {
		_, err := Parse(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.40q): error %v, want one with %q", text, err, want)
		}
	}
}

func TestMergeLaterWins(t *testing.T) {
	got, err := Merge(
		Fragment{Name: "a", Data: []byte("CONFIG_A=y\nCONFIG_B=y\n")},
		Fragment{Name: "b", Data: []byte("# CONFIG_A is not set\nCONFIG_C=m\n")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Config{"A": "n", "B": "y", "C": "m"}, got); diff != "" {
		t.Errorf("Merge (-want +got):\n%s", diff)
	}
	_, err = Merge(Fragment{Name: "my.config", Data: []byte("what\n")})
	if err == nil || !strings.Contains(err.Error(), "my.config") || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("Merge of nonsense: error %v, want one with file and line", err)
	}
}

func TestCompare(t *testing.T) {
	requested := Config{"A": "y", "B": "y", "C": "m", "D": "n", "E": "n", "F": `""`, "G": "64", "H": "y"}
	resolved := Config{"A": "y", "B": "n", "C": "y", "E": "y", "G": "8", "Z": "y"}
	want := []string{
		"CONFIG_B: asked for y, is n",
		"CONFIG_C: asked for m, is y",
		"CONFIG_E: asked for n, is y",
		"CONFIG_G: asked for 64, is 8",
		"CONFIG_H: asked for y, is absent",
	}
	var got []string
	for _, d := range Compare(requested, resolved) {
		got = append(got, d.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Compare (-want +got):\n%s", diff)
	}
}

func TestGuest(t *testing.T) {
	sound := func() Config {
		c := Config{"VIRTIO_CONSOLE": "y", "SERIAL_8250": "y"}
		for _, n := range slices.Concat(needs, virtio) {
			c[n.symbol] = "y"
		}
		return c
	}
	for _, test := range []struct {
		name    string
		change  map[string]string
		modules []string
		want    []string // one substring for each thing that is lacking
	}{
		{name: "sound"},
		{name: "no initramfs", change: map[string]string{"BLK_DEV_INITRD": "n"}, want: []string{"CONFIG_BLK_DEV_INITRD is not set"}},
		{name: "no GPT", change: map[string]string{"EFI_PARTITION": ""}, want: []string{"CONFIG_EFI_PARTITION is not set"}},
		{name: "module without file", change: map[string]string{"VIRTIO_BLK": "m"}, want: []string{"CONFIG_VIRTIO_BLK is a module"}},
		{name: "module with file", change: map[string]string{"VIRTIO_BLK": "m"}, modules: []string{"virtio", "virtio_blk"}},
		{name: "a module of no name", change: map[string]string{"BINFMT_ELF": "m"}, modules: []string{""}, want: []string{"CONFIG_BINFMT_ELF is a module"}},
		{name: "second serial port", change: map[string]string{"VIRTIO_CONSOLE": "n"}},
		{name: "one serial port", change: map[string]string{"VIRTIO_CONSOLE": "n", "SERIAL_8250_RUNTIME_UARTS": "1"}, want: []string{"no second serial port"}},
	} {
		c := sound()
		for symbol, value := range test.change {
			c[symbol] = value
		}
		got := Guest(c, test.modules...)
		if len(got) != len(test.want) {
			t.Errorf("%s: Guest says %q, want %q", test.name, got, test.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], test.want[i]) {
				t.Errorf("%s: Guest says %q, want %q", test.name, got[i], test.want[i])
			}
		}
	}
	if got := Guest(nil); len(got) != len(needs)+len(virtio)+1 {
		t.Errorf("an empty configuration lacks %d things, want all %d", len(got), len(needs)+len(virtio)+1)
	}
}

func TestUEFI(t *testing.T) {
	c := Config{"VIRTIO_PCI": "m", "VIRTIO_BLK": "m", "SATA_AHCI": "m", "BLK_DEV_SD": "m", "BLK_DEV_NVME": "y"}
	for _, n := range slices.Concat(needs, firmware) {
		c[n.symbol] = "y"
	}
	if lacks := UEFI(c); len(lacks) != 0 {
		t.Errorf("a sound configuration lacks %q", lacks)
	}
	has, lacks := Disks(c, "virtio_pci", "virtio_blk", "ahci")
	if diff := cmp.Diff([]string{"virtio", "NVMe"}, has); diff != "" {
		t.Errorf("Disks (-want +got):\n%s", diff)
	}
	if !slices.Contains(lacks, "SATA (AHCI)") { // for want of sd_mod
		t.Errorf("it has no driver for %q", lacks)
	}
	c["BLK_DEV_NVME"], c["EFI_STUB"], c["EXT4_FS"] = "m", "n", "n"
	want := []string{"CONFIG_EFI_STUB", "CONFIG_EXT4_FS", "no driver for any disk"}
	got := UEFI(c)
	if len(got) != len(want) {
		t.Fatalf("UEFI says %q, want %q", got, want)
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("UEFI says %q, want %q", got[i], want[i])
		}
	}
}

func TestBuiltin(t *testing.T) {
	names := Builtins()
	if len(names) == 0 {
		t.Fatal("no builtin fragments")
	}
	for _, name := range names {
		f, ok := Builtin(name)
		if !ok {
			t.Fatalf("Builtin(%s) is not there", name)
		}
		// Some lie on top of container.
		container, _ := Builtin("container")
		fragments := []Fragment{container, f}
		if name == "tiny" {
			fragments = fragments[1:]
		}
		c, err := Merge(fragments...)
		if err != nil {
			t.Fatal(err)
		}
		if f.Full() {
			t.Errorf("%s reads as a whole .config", name)
		}
		// What follows by itself from other symbols, or is on by default where
		// it is not visible, need not be named.
		for _, implied := range []string{"EFI_PARTITION", "BINFMT_ELF", "FUTEX", "EPOLL"} {
			if c[implied] == "" {
				c[implied] = "y"
			}
		}
		if lacks := Guest(c); len(lacks) != 0 {
			t.Errorf("%s cannot run lab's guest: %q", name, lacks)
		}
	}
	for _, name := range []string{"", ".", "../kconfig/container", "nosuch"} {
		if _, ok := Builtin(name); ok {
			t.Errorf("Builtin(%q) is there", name)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "container")
	if err := os.WriteFile(path, []byte("CONFIG_A=y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil || string(f.Data) != "CONFIG_A=y\n" || f.Name != path {
		t.Errorf("Load(path) = %+v, %v", f, err)
	}
	if f, err := Load("container"); err != nil || !bytes.Contains(f.Data, []byte("CONFIG_USER_NS=y")) {
		t.Errorf("Load(container) is not the builtin fragment: %v", err)
	}
	if _, err := Load("nosuch"); err == nil || !strings.Contains(err.Error(), "container") {
		t.Errorf("Load(nosuch): error %v, want one that lists the builtin names", err)
	}
	if err := os.WriteFile(path, []byte("\x7fELF"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Load of nonsense: error %v, want one that names the file", err)
	}
}

func TestFull(t *testing.T) {
	for text, want := range map[string]bool{
		"#\n# Automatically generated file; DO NOT EDIT.\n":       true,
		"#\n# Automatically generated make config: don't edit\n#": true,
		"CONFIG_A=y\n": false,
		"":             false,
	} {
		if got := (Fragment{Data: []byte(text)}).Full(); got != want {
			t.Errorf("Full(%q) = %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"a \\\" b\"\nCONFIG_D=0x1f\nCONFIG_E=-12\n"))
	f.Add([]byte("# comment\r\n\r\nCONFIG_A=\n"))
	if c, ok := Builtin("container"); ok {
		f.Add(c.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(bytes.NewReader(data))
		if err != nil {
			return
		}
		again, err := Parse(bytes.NewReader(c.Bytes()))
		if err != nil {
			t.Fatalf("what Bytes wrote does not parse: %v", err)
		}
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("round trip (-want +got):\n%s", diff)
		}
		if lost := Compare(c, again); len(lost) != 0 {
			t.Errorf("a configuration differs from itself: %v", lost)
		}
	})
}
