package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// file is an entry of a synthetic package.
type file struct {
	name, content string
	kind          byte // tar.TypeReg unless set
}

func compress(t testing.TB, ending string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ending {
	case "":
		return data
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarOf(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if f.kind != 0 {
			h.Typeflag, h.Size, h.Linkname = f.kind, 0, f.content
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, f.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func arOf(members ...file) []byte {
	b := []byte("!<arch>\n")
	for _, m := range members {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", m.name, 0, 0, 0, "100644", len(m.content), m.content)
		if len(m.content)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

const control = "Package: linux-image-fake\nVersion: 1.2-3\nDepends: kmod, linux-image-real (= 1.2-3) | x,\n linux-base\nDescription: fake\n"

func debOf(t testing.TB, control, ending string, files ...file) []byte {
	t.Helper()
	return arOf(
		file{name: "debian-binary", content: "2.0\n"},
		file{name: "control.tar" + ending, content: string(compress(t, ending, tarOf(t, []file{{name: "./control", content: control}})))},
		file{name: "data.tar" + ending, content: string(compress(t, ending, tarOf(t, files)))})
}

// ko is a module with that .modinfo.
func ko(modinfo ...string) string {
	info := strings.Join(modinfo, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	header := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: 64}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	const start = 64 + 3*64
	var b bytes.Buffer
	for _, part := range []any{
		header, elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: start, Size: uint64(len(info))},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: start + uint64(len(info)), Size: uint64(len(names))},
		[]byte(info), []byte(names),
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return b.String()
}

const lib = "./lib/modules/1.2-fake/"

func fakePackage() []file {
	return []file{
		{name: "./boot/", kind: tar.TypeDir},
		{name: "./boot/vmlinuz-1.2-fake", content: string(fakeHeader("1.2-fake"))},
		{name: "./boot/config-1.2-fake", content: "CONFIG_VIRTIO_BLK=m\nCONFIG_EXT4_FS=m\n"},
		{name: "./boot/System.map-1.2-fake", content: "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"},
		{name: lib + "modules.builtin", content: "kernel/drivers/virtio/virtio_console.ko\nkernel/lib/crc16.ko\n"},
		{name: lib + "kernel/virtio/virtio_blk.ko", content: ko("license=GPL", "depends=virtio-ring,virtio", "name=virtio_blk")},
		{name: lib + "kernel/virtio/virtio.ko", content: ko("depends=")},
		{name: lib + "kernel/virtio/virtio_ring.ko", content: ko("depends=virtio")},
		{name: lib + "kernel/virtio/virtio_pci.ko", content: ko("depends=virtio,virtio_ring")},
		{name: lib + "kernel/fs/ext4.ko", content: ko("depends=jbd2,crc16", "softdep=pre: crypto-crc32c nosuch post: later")},
		{name: lib + "kernel/fs/jbd2.ko", content: ko("depends=")},
		{name: lib + "kernel/crypto/crc32c_generic.ko", content: ko("depends=")},
		{name: lib + "kernel/later.ko", content: ko("depends=nowhere")},
	}
}

func fromDeb(t *testing.T, deb []byte) (Kernel, string, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "linux.deb")
	if err := os.WriteFile(path, deb, 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := FromPackage(t.Context(), dir, path, Modules{})
	return k, dir, err
}

func TestFromPackage(t *testing.T) {
	want := []string{"virtio", "virtio_ring", "virtio_pci", "virtio_blk", "jbd2", "crc32c_generic", "ext4"}
	for _, ending := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("tar"+ending, func(t *testing.T) {
			files := fakePackage()
			for i, f := range files {
				if strings.HasSuffix(f.name, ".ko") && ending != "" {
					files[i] = file{name: f.name + ending, content: string(compress(t, ending, []byte(f.content)))}
				}
			}
			if ending == ".zst" { // and merged /usr
				for i := range files {
					files[i].name = strings.Replace(files[i].name, "./lib/", "./usr/lib/", 1)
				}
			}
			deb := debOf(t, control, ending, files...)
			k, cache, err := fromDeb(t, deb)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range k.Modules {
				names = append(names, moduleName(m))
				if _, _, err := readModinfo(m); err != nil {
					t.Errorf("%s: %v", m, err)
				}
			}
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("modules (-want +got):\n%s", diff)
			}
			if k.Release != "1.2-fake" || k.Source != "package linux-image-fake 1.2-3" || k.SystemMap != "" {
				t.Errorf("kernel: %+v", k)
			}
			lacks, err := lacking(k)
			if err != nil || len(lacks) == 0 || strings.Contains(strings.Join(lacks, "\n"), "VIRTIO_BLK") {
				t.Errorf("lacks %q, %v", lacks, err)
			}
			left, err := os.ReadDir(filepath.Join(cache, "kernels"))
			if err != nil || len(left) != 2 { // the entry and the lock
				t.Errorf("in the cache: %v, %v", left, err)
			}

			again, err := FromPackage(t.Context(), cache, filepath.Join(cache, "linux.deb"), Modules{})
			if diff := cmp.Diff(k, again, cmpopts.IgnoreUnexported(Kernel{})); diff != "" || err != nil {
				t.Errorf("the second time (-first +second):\n%s%v", diff, err)
			}
			if err := os.WriteFile(k.Modules[0], []byte("damaged"), 0o644); err != nil {
				t.Fatal(err)
			}
			if again, err = FromPackage(t.Context(), cache, filepath.Join(cache, "linux.deb"), Modules{}); err != nil || bytes.Equal(read(t, again.Modules[0]), []byte("damaged")) {
				t.Errorf("a damaged entry is used: %v", err)
			}
		})
	}
}

func TestPackageRefused(t *testing.T) {
	sound := debOf(t, control, ".gz", fakePackage()...)
	without := func(part string, more ...file) []byte {
		var files []file
		for _, f := range fakePackage() {
			if !strings.Contains(f.name, part) {
				files = append(files, f)
			}
		}
		return debOf(t, control, "", append(files, more...)...)
	}
	flipped := bytes.Clone(sound)
	flipped[len(flipped)-100] ^= 0x10
	for name, test := range map[string]struct {
		deb  []byte
		want string
	}{
		"empty":             {nil, "not an ar archive"},
		"neither":           {[]byte("\x7fELF\x02\x01\x01\x00\x00"), "neither a Debian nor an RPM package"},
		"truncated":         {sound[:len(sound)-50], "bytes of data.tar.gz are missing"},
		"cut in a header":   {sound[:80], "ends inside a header"},
		"a flipped bit":     {flipped, "read data.tar.gz"},
		"no header":         {append(bytes.Clone(sound[:72]), make([]byte, 200)...), "no header at byte 72"},
		"no size":           {[]byte("!<arch>\n" + fmt.Sprintf("%-48s%-10s`\n", "debian-binary", "-5")), "no size"},
		"huge size":         {[]byte("!<arch>\n" + fmt.Sprintf("%-48s%-10s`\n", "debian-binary", "9999999999")), "are missing"},
		"many members":      {arOf(make([]file, 50)...), "more than 16 members"},
		"not a deb":         {arOf(file{name: "a.o", content: "x"}), "does not begin with debian-binary"},
		"format 3":          {arOf(file{name: "debian-binary", content: "3.0\n"}), `format "3.", not 2.0`},
		"no data":           {arOf(file{name: "debian-binary", content: "2.0\n"}), "without control.tar or data.tar"},
		"odd compression":   {arOf(file{name: "debian-binary", content: "2.0\n"}, file{name: "control.tar.Z"}, file{name: "data.tar.Z"}), "unknown way"},
		"no package name":   {debOf(t, "Version: 1\n", ""), "names no package"},
		"huge control file": {debOf(t, strings.Repeat("x", maxMetadata+1), ""), "larger than"},
		"metapackage":       {debOf(t, control, ".xz"), "linux-image-fake holds no kernel itself; it depends on linux-image-real (= 1.2-3)"},
		"another package":   {debOf(t, "Package: bash\nVersion: 5\nDepends: libc6\n", ""), "bash holds no kernel"},
		"not an image":      {without("vmlinuz", file{name: "boot/vmlinuz-1", content: "text"}), "neither a bzImage nor"},
		"two kernels":       {without("none", file{name: "boot/vmlinuz-2", content: "text"}), "a second kernel"},
		"image is a link":   {without("vmlinuz", file{name: "boot/vmlinuz-1", content: "/etc/passwd", kind: tar.TypeSymlink}), "holds no kernel"},
		"lacks a module":    {without("jbd2"), "module ext4 needs jbd2, which is not in the package"},
		"a circle":          {without("virtio.ko", file{name: lib + "kernel/virtio.ko", content: ko("depends=virtio_ring")}), "depends on itself"},
		"not a module":      {without("jbd2", file{name: lib + "jbd2.ko", content: "text"}), "read module jbd2"},
		"damaged module":    {without("jbd2", file{name: lib + "jbd2.ko.gz", content: "text"}), "unpack module jbd2"},
	} {
		k, cache, err := fromDeb(t, test.deb)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "linux.deb") {
			t.Errorf("%s: %+v, error %v, want one with %q and the file's name", name, k, err, test.want)
		}
		left, _ := filepath.Glob(filepath.Join(cache, "kernels", "*"))
		for _, path := range left {
			if filepath.Base(path) != ".packages.lock" {
				t.Errorf("%s: left in the cache: %s", name, path)
			}
		}
	}
}

// Names that would lead out of the package end nowhere.
func TestPackageNames(t *testing.T) {
	files := append(fakePackage(),
		file{name: "../../../../boot/config-evil", content: "what?\n"},
		file{name: lib + "../../../../virtio_mmio.ko", content: "evil"},
		file{name: lib + "kernel/a b.ko", content: "evil"},
		file{name: lib + "kernel/.ko", content: "evil"},
		file{name: lib + "kernel/x.ko.exe", content: "evil"},
		file{name: lib + "kernel/other/virtio.ko", content: "evil"})
	k, cache, err := fromDeb(t, debOf(t, control, ".gz", files...))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.Walk(cache, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && bytes.Contains(read(t, path), []byte("evil")) && !strings.HasSuffix(path, ".deb") {
			t.Errorf("%s was written", path)
		}
		return err
	})
	if err != nil || len(k.Modules) != 7 {
		t.Errorf("%d modules, %v", len(k.Modules), err)
	}
}

func TestPackageBomb(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 1<<20)
	var data bytes.Buffer
	w := gzip.NewWriter(&data)
	entry := tarOf(t, []file{{name: "padding", content: string(zeros)}})
	entry = entry[:len(entry)-1024] // without the end of the archive
	for range 20 {
		if _, err := w.Write(entry); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// In one archive's entries, and behind the end of one.
	trailing := append(tarOf(t, []file{{name: "./control", content: control}}), make([]byte, maxControl)...)
	for name, content := range map[string][]byte{"entries": data.Bytes(), "trailing": compress(t, ".gz", trailing)} {
		deb := arOf(file{name: "debian-binary", content: "2.0\n"}, file{name: "control.tar.gz", content: string(content)}, file{name: "data.tar", content: ""})
		_, err := openDeb(bytes.NewReader(deb), int64(len(deb)))
		if err == nil || !strings.Contains(err.Error(), "unpacks to more than 16 MiB") {
			t.Errorf("%s: error %v, want one about the size", name, err)
		}
	}
}

func TestPackageCancelled(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "linux.deb")
	if err := os.WriteFile(path, debOf(t, control, "", fakePackage()...), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := FromPackage(ctx, dir, path, Modules{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
}

func FuzzDeb(f *testing.F) {
	f.Add(debOf(f, control, ".gz", fakePackage()[:3]...))
	f.Add(debOf(f, control, "", fakePackage()...))
	f.Add(arOf(file{name: "debian-binary", content: "2.0\n"}, file{name: "control.tar", content: ""}, file{name: "data.tar.zst", content: ""}))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := filepath.Join(t.TempDir(), "tmp")
		d, err := openDeb(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		checkUnpacked(t, d.contents(), dir)
	})
}

// checkUnpacked unpacks a package that may be anything, and wants nothing of it
// outside of dir.
func checkUnpacked(t *testing.T, c contents, dir string) {
	t.Helper()
	k, err := unpack(t.Context(), c, dir, Modules{})
	if err != nil {
		return
	}
	for _, path := range append(k.Modules, k.Image, k.Config, k.SystemMap) {
		if path != "" && !strings.HasPrefix(path, dir+"/") {
			t.Errorf("%s is not in %s", path, dir)
		}
	}
}

func FuzzModinfo(f *testing.F) {
	f.Add([]byte(ko("depends=a,b-c", "softdep=pre: x post: y")))
	f.Fuzz(func(t *testing.T, data []byte) {
		depends, soft, err := parseModinfo(bytes.NewReader(data))
		for _, name := range append(depends, soft...) {
			if err != nil || name == "" || strings.ContainsAny(name, "\x00,- ") {
				t.Errorf("%q, %q, %v", depends, soft, err)
			}
		}
	})
}
