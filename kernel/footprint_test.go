package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/kernel/kconfig"
)

func footprintOf(files ...string) *Footprint {
	f := &Footprint{files: map[string]bool{everyKernelHas: true}}
	for _, name := range files {
		f.files[name] = true
	}
	return f
}

// What may be left unbuilt, and what must not.
func TestMatters(t *testing.T) {
	f := footprintOf("kernel/audit.c", "include/linux/audit.h", "arch/arm/include/asm/borrowed.h", "Documentation/read.h", "scripts/mod/modpost.c")
	for _, test := range []struct {
		change  string
		matters bool
	}{
		// modified, outside the footprint, of the kinds that only compilers and documentation read
		{"M drivers/usb/core/hub.c", false},
		{"M include/linux/usb.h", false},
		{"M arch/x86/lib/csum-copy_64.S", false},
		{"M drivers/platform/readme.rst", false},
		{"M arch/x86/platform/ce4100/falconfalls.dts", false},
		{"M drivers/net/netlink.yaml", false},
		{"M drivers/usb/core/hub+x,y-z@1.c", false},
		{"M drivers/übung/a.c", false},
		// the same, read by the build
		{"M kernel/audit.c", true},
		{"M include/linux/audit.h", true},
		{"M init/main.c", true},
		{"M arch/arm/include/asm/borrowed.h", true},
		{"M Documentation/read.h", true},
		// added and deleted: only where nobody looks
		{"A drivers/usb/core/hub.c", true},
		{"D drivers/usb/core/hub.c", true},
		{"T drivers/usb/core/hub.c", true},
		{"A include/linux/new.h", true},
		{"A Documentation/new.rst", false},
		{"D Documentation/admin-guide/old.rst", false},
		{"T Documentation/admin-guide/old.rst", true},
		{"D Documentation/read.h", true},
		{"A arch/arm64/boot/dts/new.dts", false},
		{"D arch/powerpc/kernel/old.c", false},
		{"A arch/x86/kernel/new.c", true},
		{"D arch/um/kernel/old.c", true},
		{"A arch/i386/kernel/old.c", true},
		{"A arch/Kunit.c", true},
		{"A arch/new.h", true},
		// documentation and other architectures: any kind, but what make reads
		{"M Documentation/admin-guide/x.txt", false},
		{"M Documentation/images/x.svg", false},
		{"M Documentation/Kconfig", true},
		{"M Documentation/Makefile", true},
		{"M Documentation/sphinx/parse.pl", true},
		{"M Documentation/x.sh", true},
		{"M arch/arm/configs/defconfig", false},
		{"M arch/arm/boot/dts/imx.dtsi", false},
		{"M arch/arm/Kconfig", true},
		{"M arch/arm/Kconfig.debug", true},
		{"M arch/arm/mm/Makefile", true},
		{"M arch/arm64/Kbuild", true},
		{"M arch/arm/tools/syscall.tbl", true},
		{"M arch/arm/kernel/vmlinux.lds.S", true},
		{"M arch/sh/tools/gen.awk", true},
		// what makefiles, Kconfig, scripts and generators read
		{"M Makefile", true},
		{"M drivers/usb/Makefile", true},
		{"M drivers/usb/Makefile.lib", true},
		{"M drivers/usb/Kconfig", true},
		{"M arch/x86/Kconfig.cpu", true},
		{"M Kbuild", true},
		{"M drivers/Kbuild.c", true},
		{"M Makefile.c", true},
		{"M arch/x86/kernel/vmlinux.lds.S", true},
		{"M include/asm-generic/vmlinux.lds.h", true},
		{"M arch/x86/boot/setup.ld", true},
		{"M scripts/mod/modpost.c", true},
		{"M scripts/unseen.c", true},
		{"M tools/objtool/check.c", true},
		{"M tools/testing/selftests/a.c", true},
		{"M usr/gen_init_cpio.c", true},
		{"M usr/include/test.h", true},
		{"M certs/blacklist.c", true},
		{"M arch/x86/tools/relocs.c", true},
		{"M drivers/x/scripts/a.h", true},
		{"M arch/x86/entry/syscalls/syscall_64.tbl", true},
		{"M kernel/gen_kheaders.sh", true},
		{"M arch/x86/kernel/cpu/mkcapflags.sh", true},
		{"M arch/x86/tools/gen-insn-attr-x86.awk", true},
		{"M crypto/x.pl", true},
		{"M kernel/time/timeconst.bc", true},
		{"M crypto/asymmetric_keys/x509.asn1", true},
		{"M drivers/tty/vt/defkeymap.map", true},
		{"M lib/raid6/int.uc", true},
		{"M drivers/tty/vt/defkeymap.c_shipped", true},
		{"M arch/x86/boot/dts/x.dtsi", true},
		{"M rust/kernel/lib.rs", true},
		{"M drivers/gpu/drm/ci/x.yml", true},
		// nothing that would be read, but of no kind that says so
		{"M MAINTAINERS", true},
		{"M README", true},
		{"M .gitignore", true},
		{"M .gitattributes", true},
		{"M kernel/.c", true},
		{"M kernel/audit.C", true},
		{"M kernel/auditc", true},
		{"M kernel/x.c~", true},
		// what no tree should have
		{"M ", true},
		{"M .", true},
		{"M ..", true},
		{"M /etc/a.c", true},
		{"M ../a.c", true},
		{"M drivers//a.c", true},
		{"M drivers/./a.c", true},
		{"M Documentation/../kernel/audit.c", true},
		{"M arch/arm/../../kernel/audit.c", true},
		{"M drivers/a\nb.c", true},
		{"M drivers/a b.c", true},
		{"M drivers/$(x).c", true},
		{"M drivers/a\xff.c", true},
		{"M drivers\\a.c", true},
		{"M Documentation", true},
		{"M arch", true},
		{"M documentation/x.svg", true},
		{"X drivers/usb/core/hub.c", true},
		{"R drivers/usb/core/hub.c", true},
		{"\x00 Documentation/x.rst", true},
	} {
		c := Change{test.change[0], test.change[2:]}
		_, why, got := f.Matters([]Change{c})
		if got != test.matters || got != (why != "") {
			t.Errorf("%q: %v (%q), want %v", test.change, got, why, test.matters)
		}
		if _, _, got := (*Footprint)(nil).Matters([]Change{c}); !got {
			t.Errorf("%q does not matter to a build of which nothing is known", test.change)
		}
	}
	if _, _, matters := f.Matters(nil); matters {
		t.Error("no change matters")
	}
	first, _, matters := f.Matters([]Change{{'M', "drivers/usb/core/hub.c"}, {'M', "kernel/audit.c"}, {'M', "Makefile"}})
	if !matters || first.Path != "kernel/audit.c" {
		t.Errorf("the first of several that matters: %+v", first)
	}
	// A rename is seen from both sides.
	if _, _, matters := f.Matters([]Change{{'D', "drivers/a.c"}, {'A', "Documentation/a.c"}}); !matters {
		t.Error("a source file that moves away does not matter")
	}
}

func TestWithoutKconfig(t *testing.T) {
	rest, touched := WithoutKconfig([]Change{
		{'M', "kernel/Kconfig.hz"}, {'A', "drivers/new/Kconfig"}, {'M', "Makefile"}, {'M', "drivers/Kconfig.c"}, {'T', "lib/Kconfig"}, {'M', "a/../Kconfig"}, {'M', "Kconfig/a.c"},
	})
	want := []Change{{'M', "Makefile"}, {'M', "drivers/Kconfig.c"}, {'T', "lib/Kconfig"}, {'M', "a/../Kconfig"}, {'M', "Kconfig/a.c"}}
	if diff := cmp.Diff(want, rest); diff != "" || !touched {
		t.Errorf("touched %v, the rest (-want +got):\n%s", touched, diff)
	}
	if rest, touched := WithoutKconfig(rest); touched || len(rest) != len(want) {
		t.Errorf("nothing of Kconfig's: %v, %v", rest, touched)
	}
}

// Whatever the path, what is let through satisfies the rule as it reads.
func FuzzMatters(f *testing.F) {
	for _, p := range []string{"kernel/audit.c", "Documentation/x", "arch/arm/a.dts", "arch/x86/a.S", "scripts/a.c", "a/Kconfig.c", "x.lds.h", "Documentation/../a.c", "\xff.c", "a//b.h"} {
		f.Add(byte('M'), p)
		f.Add(byte('A'), p)
	}
	print := footprintOf("kernel/audit.c")
	f.Fuzz(func(t *testing.T, status byte, p string) {
		if _, _, matters := print.Matters([]Change{{status, p}}); matters {
			return
		}
		name := p[strings.LastIndexByte(p, '/')+1:]
		foreign := strings.HasPrefix(p, "Documentation/") || strings.HasPrefix(p, "arch/") && strings.Count(p, "/") > 1 &&
			!strings.HasPrefix(p, "arch/x86/") && !strings.HasPrefix(p, "arch/um/")
		switch {
		case print.Has(p):
			t.Errorf("%q is in the footprint", p)
		case status != 'M' && (!foreign || status != 'A' && status != 'D'):
			t.Errorf("%q with status %q", p, status)
		case !filepath.IsLocal(p) || filepath.Clean(p) != p || strings.ContainsAny(p, "\x00\n\\ "):
			t.Errorf("%q is no path of a source file", p)
		case strings.HasPrefix(name, "Kconfig") || strings.HasPrefix(name, "Makefile") || strings.HasPrefix(name, "Kbuild") || strings.Contains(name, ".lds"):
			t.Errorf("%q is for make", p)
		}
		for _, ending := range []string{".tbl", ".sh", ".awk", ".pl", ".bc"} {
			if strings.HasSuffix(name, ending) {
				t.Errorf("%q is for the build", p)
			}
		}
		if foreign {
			return
		}
		for _, dir := range []string{"scripts/", "tools/", "usr/", "certs/"} {
			if strings.HasPrefix(p, dir) {
				t.Errorf("%q is in %s", p, dir)
			}
		}
		for _, ending := range []string{".c", ".h", ".S", ".rst", ".dts", ".yaml"} {
			if strings.HasSuffix(name, ending) {
				return
			}
		}
		t.Errorf("%q is of a kind that may matter", p)
	})
}

// The .cmd files are those that Kbuild wrote; the rest is a small tree.
func TestReadFootprint(t *testing.T) {
	src := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"init/main.c", "init/unused.c", "include/linux/kconfig.h", "include/linux/init.h", "include/linux/unused.h", "arch/x86/include/asm/a.h",
		"arch/x86/entry/vdso/vclock.c", "arch/x86/entry/vdso/vdso32/vclock.c", "include/dt-bindings/pin.h", "lib/gen.c", "lib/quoted.h",
		"tools/objtool/check.c", "include/uapi/linux/shared.h", "lib/real.h", "arch/arm/lib/lent.c", "Documentation/sample.h", "lib/second.S",
	} {
		write(name, "")
	}
	write("init/.main.o.cmd", "cmd_init/main.o := gcc -Wp,-MMD,init/.main.o.d -nostdinc -I./arch/x86/include -include ./include/linux/kconfig.h "+
		`-D"KBUILD_STR(s)=\#s" -DKBUILD_BASENAME='"main"' -c -o init/main.o init/main.c `+"\n\nsource_init/main.o := init/main.c\n\ndeps_init/main.o := \\\n"+
		"    $(wildcard include/config/PROC_FS) \\\n  include/linux/init.h \\\n  /usr/lib/gcc/x86_64-linux-gnu/12/include/stdarg.h \\\n"+
		"  "+src+"/arch/x86/include/asm/a.h \\\n  include/linux/gone.h \\\n  scripts/dtc/include-prefixes/dt-bindings/pin.h \\\n  lib/link.h \\\n\ninit/main.o: $(deps_init/main.o)\n\n$(deps_init/main.o):\n")
	write("arch/x86/entry/vdso/vdso32/.vclock.o.cmd", "deps_x := \\\n  arch/x86/entry/vdso/vdso32/../vclock.c \\\n")
	write("lib/.gen.cmd", "savedcmd_lib/gen := gcc -o lib/gen lib/gen.c 'lib/quoted.h'; as lib/second.S; cat arch/arm/lib/lent.c Documentation/sample.h\n")
	write("tools/objtool/.check.o.cmd", "/x/tools/objtool/check.o : check.c ../../include/uapi/linux/shared.h\n")
	write("Documentation/.never.cmd", "include/linux/unused.h\n")
	if err := os.MkdirAll(filepath.Join(src, "scripts/dtc/include-prefixes"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"scripts/dtc/include-prefixes/dt-bindings": "../../../include/dt-bindings", "lib/link.h": "real.h"} {
		if err := os.Symlink(target, filepath.Join(src, name)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := readFootprint(src)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`Documentation/sample.h arch/arm/lib/lent.c arch/x86/entry/vdso/vclock.c arch/x86/include/asm/a.h include/dt-bindings/pin.h
		include/linux/init.h include/linux/kconfig.h include/uapi/linux/shared.h init/main.c lib/gen.c lib/link.h lib/quoted.h lib/real.h lib/second.S`)
	_, lines, _ := strings.Cut(string(f.format()), "\n")
	if diff := cmp.Diff(strings.Join(want, "\n")+"\n", lines); diff != "" {
		t.Errorf("footprint (-want +got):\n%s", diff)
	}
	back, err := parseFootprint(f.format())
	if err != nil || back.Len() != f.Len() || !back.Has("lib/gen.c") {
		t.Errorf("read back: %v", err)
	}
	// Without a kernel's .cmd files there is none.
	if f, err := readFootprint(t.TempDir()); f != nil || err != nil {
		t.Errorf("an empty tree: %v, %v", f, err)
	}
	huge := filepath.Join(src, "lib/.huge.o.cmd")
	write("lib/.huge.o.cmd", "")
	if err := os.Truncate(huge, maxCmdFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readFootprint(src); err == nil || !strings.Contains(err.Error(), "lib/.huge.o.cmd has more than") {
		t.Errorf("a huge .cmd file: %v", err)
	}
}

func FuzzParseFootprint(f *testing.F) {
	f.Add(footprintOf("kernel/audit.c").format())
	f.Add([]byte(footprintHeader + "\n../a\n"))
	f.Add([]byte(footprintHeader + "\ninit/main.c\ninit/main.c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseFootprint(data)
		if err != nil {
			return
		}
		if string(p.format()) != string(data) {
			t.Errorf("%q is written as %q", data, p.format())
		}
	})
}

func TestWholeTree(t *testing.T) {
	for text, want := range map[string]string{
		"CONFIG_AUDIT=y\n# CONFIG_IKHEADERS is not set\nCONFIG_INITRAMFS_SOURCE=\"\"\nCONFIG_EXTRA_FIRMWARE=\"\"\n": "",
		"CONFIG_IKHEADERS=y\n":                    "IKHEADERS",
		"CONFIG_IKHEADERS=m\n":                    "IKHEADERS",
		"CONFIG_HEADERS_INSTALL=y\n":              "HEADERS_INSTALL",
		"CONFIG_INITRAMFS_SOURCE=\"kernel\"\n":    "INITRAMFS_SOURCE",
		"CONFIG_EXTRA_FIRMWARE=\"a.c b.fw\"\n":    "EXTRA_FIRMWARE",
		"CONFIG_UAPI_HEADER_TEST=y\n":             "UAPI_HEADER_TEST",
		"CONFIG_BUILD_DOCSRC=y\nCONFIG_AUDIT=y\n": "BUILD_DOCSRC",
	} {
		c, err := kconfig.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := wholeTree(c); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestChanges: one list for an ordinary commit, one for each parent of a merge,
// both names of a rename.
func TestChanges(t *testing.T) {
	r, hash := history(t)
	r.git("mv", "src/b.c", "src/renamed.c")
	hash["rename"] = r.commit("rename")
	r.write(map[string]string{"Documentation/a b": "x", "src/c.c": "int c;\n", "src/a.c": "int a;\n"})
	hash["several"] = r.commit("several")
	hash["empty"] = r.commit("empty")
	tree := open(t, t.TempDir(), r.dir)
	commits, err := tree.Range(t.Context(), nil, "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	lists, err := tree.Changes(t.Context(), commits)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a":       "[[M README]]", // kept, because it matters whatever the footprint
		"s2":      "[[M src/a.c]]",
		"merge":   "[[M src/a.c] [M README]]",
		"rename":  "[[D src/b.c]]",
		"several": "[[A Documentation/a b]]",
		"empty":   "[[]]",
	} {
		if got := sayChanges(lists[hash[name]]); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if len(lists) != len(commits) || len(lists[hash["first"]]) != 1 {
		t.Errorf("%d lists for %d commits; the root: %v", len(lists), len(commits), lists[hash["first"]])
	}
	for _, test := range []struct{ from, to, want string }{
		{"last", "rename", "[[D src/b.c A src/renamed.c]]"},
		{"rename", "several", "[[A Documentation/a b M src/a.c M src/c.c]]"},
		{"s1", "s2", "[[M src/a.c]]"},
		{"first", "merge", "[[M README M src/a.c]]"},
		{"a", "a", "[[]]"},
	} {
		got, err := tree.Diff(t.Context(), hash[test.from], hash[test.to])
		if err != nil || sayChanges([][]Change{got}) != test.want {
			t.Errorf("%s..%s: %v, %v, want %s", test.from, test.to, got, err, test.want)
		}
	}
	if _, err := tree.Diff(t.Context(), hash["a"], strings.Repeat("0", 40)); err == nil {
		t.Error("no error about a commit that there is not")
	}
}

func sayChanges(lists [][]Change) string {
	var all []string
	for _, list := range lists {
		var l []string
		for _, c := range list {
			l = append(l, fmt.Sprintf("%c %s", c.Status, c.Path))
		}
		all = append(all, "["+strings.Join(l, " ")+"]")
	}
	return "[" + strings.Join(all, " ") + "]"
}

func FuzzParseDiff(f *testing.F) {
	f.Add([]byte(strings.Repeat("a", 40) + "\x00M\x00a.c\x00A\x00b\x00"))
	f.Add([]byte("D\x00a\x00M"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseDiff(strings.NewReader(string(data)), func(hash string, c Change) error {
			if c.Status != 0 && !slices.Contains(statuses, c.Status) || c.Status == 0 && hash == "" {
				t.Errorf("%q: %+v", data, c)
			}
			return nil
		})
	})
}
