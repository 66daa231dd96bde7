package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/lab/debiantest"
)

// tag is an entry of a synthetic RPM header.
type tag struct {
	number, kind uint32
	count        int
	data         string
}

func stringTag(number uint32, s string) tag { return tag{number, rpmString, 1, s + "\x00"} }

func rpmHeaderOf(tags ...tag) []byte {
	var index, data []byte
	for _, t := range tags {
		index = binary.BigEndian.AppendUint32(index, t.number)
		index = binary.BigEndian.AppendUint32(index, t.kind)
		index = binary.BigEndian.AppendUint32(index, uint32(len(data)))
		index = binary.BigEndian.AppendUint32(index, uint32(t.count))
		data = append(data, t.data...)
	}
	b := []byte(rpmHeader)
	b = binary.BigEndian.AppendUint32(b, uint32(len(tags)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(append(b, index...), data...)
}

func cpioOf(files ...file) []byte {
	var b []byte
	add := func(name, content string, mode int) {
		b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b = append(b, content...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	for _, f := range files {
		mode := 0o100644
		if f.kind != 0 {
			mode = 0o120777
		}
		add(f.name, f.content, mode)
	}
	add("TRAILER!!!", "", 0)
	return b
}

// rpmOf is a package; more tags come after the ones that it always has.
func rpmOf(t testing.TB, compressor, ending string, files []file, more ...tag) []byte {
	t.Helper()
	payload := compress(t, ending, cpioOf(files...))
	tags := append([]tag{
		stringTag(rpmName, "kernel-core"), stringTag(rpmVersion, "1.2"), stringTag(rpmRelease, "3.fc"),
		stringTag(rpmPayloadFormat, "cpio"), stringTag(rpmPayloadCompressor, compressor),
		{rpmPayloadDigest, rpmStringArray, 1, fmt.Sprintf("%x\x00", sha256.Sum256(payload))},
		{rpmPayloadDigestAlgo, rpmInt32, 1, "\x00\x00\x00\x08"},
	}, more...)
	b := append([]byte(rpmMagic+"\x03\x00"), make([]byte, rpmLead-6)...)
	b = append(b, rpmHeaderOf(tag{1000, rpmInt32, 1, "\x00\x00\x00\x01\x00"})...) // of an odd length
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return append(append(b, rpmHeaderOf(tags...)...), payload...)
}

func fromRPM(t *testing.T, rpm []byte) (Kernel, string, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "linux.rpm")
	if err := os.WriteFile(path, rpm, 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := FromPackage(t.Context(), dir, path, Modules{})
	return k, path, err
}

func TestFromRPM(t *testing.T) {
	files := append([]file(nil), fakePackage()[1:]...)
	// The kernel lies beside its modules and, the same bytes, in boot.
	files = append(files, file{name: lib + "vmlinuz", content: files[0].content})
	for compressor, ending := range map[string]string{"gzip": ".gz", "xz": ".xz", "zstd": ".zst"} {
		k, path, err := fromRPM(t, rpmOf(t, compressor, ending, files, tag{rpmEpoch, rpmInt32, 1, "\x00\x00\x00\x02"}))
		if err != nil {
			t.Errorf("%s: %v", compressor, err)
			continue
		}
		if k.Release != "1.2-fake" || k.Source != "package kernel-core 2:1.2-3.fc" || len(k.Modules) != 7 {
			t.Errorf("%s: %+v", compressor, k)
		}
		p, err := Describe(t.Context(), path)
		want := Package{Name: "kernel-core", Version: "2:1.2-3.fc", Release: "1.2-fake", Digest: p.Digest}
		if d := cmp.Diff(want, p); d != "" || err != nil {
			t.Errorf("%s: described (-want +got):\n%s%v", compressor, d, err)
		}
	}
}

// The header lists the files: the release is known without unpacking.
func TestDescribeRPMByHeader(t *testing.T) {
	rpm := rpmOf(t, "zstd", ".zst", nil,
		tag{rpmBasenames, rpmStringArray, 2, "README\x00vmlinuz\x00"}, tag{rpmDirnames, rpmStringArray, 1, "/lib/modules/5.14.0-1.el9.x86_64/\x00"},
		tag{rpmDirIndexes, rpmInt32, 2, "\x00\x00\x00\x00\x00\x00\x00\x00"})
	path := filepath.Join(t.TempDir(), "a.rpm")
	if err := os.WriteFile(path, rpm, 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := Describe(t.Context(), path); err != nil || p.Release != "5.14.0-1.el9.x86_64" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestRPMRefused(t *testing.T) {
	sound := rpmOf(t, "gzip", ".gz", fakePackage()[1:])
	flipped := bytes.Clone(sound)
	flipped[len(flipped)-100] ^= 0x10
	huge := bytes.Clone(sound)
	binary.BigEndian.PutUint32(huge[rpmLead+12:], 0xffffffff)
	long := bytes.Clone(sound)
	binary.BigEndian.PutUint32(long[rpmLead+12:], maxRPMData)
	for name, test := range map[string]struct {
		rpm  []byte
		want string
	}{
		"only a lead":     {sound[:40], "ends inside its lead"},
		"no header":       {sound[:rpmLead], "no header at byte 96"},
		"not a header":    {append(bytes.Clone(sound[:rpmLead]), make([]byte, 100)...), "no header at byte 96"},
		"format 9":        {append([]byte(rpmMagic+"\x09"), sound[5:]...), "format 9, not 3 or 4"},
		"huge header":     {huge, "4294967295 bytes: at most"},
		"long header":     {long, "bytes of a header are missing"},
		"cut":             {sound[:len(sound)-10], "does not have the digest"},
		"a flipped bit":   {flipped, "does not have the digest"},
		"odd compressor":  {rpmOf(t, "lzma", "", nil), "compressed with lzma"},
		"a source":        {rpmOf(t, "gzip", ".gz", nil, tag{rpmSourcePackage, rpmInt32, 1, "\x00\x00\x00\x01"}), "a source package"},
		"empty":           {rpmOf(t, "gzip", ".gz", nil), "kernel-core holds no kernel: no boot/vmlinuz"},
		"a metapackage":   {rpmOf(t, "gzip", ".gz", nil, tag{rpmRequires, rpmStringArray, 2, "bash\x00kernel-foo-core\x00"}), "it depends on kernel-foo-core"},
		"two kernels":     {rpmOf(t, "gzip", ".gz", append(fakePackage()[1:], file{name: "./boot/vmlinuz-2", content: "x"})), "besides ./boot/vmlinuz-1.2-fake"},
		"image is a link": {rpmOf(t, "gzip", ".gz", []file{{name: "./boot/vmlinuz-1", content: "/etc/passwd", kind: 1}}), "holds no kernel"},
		"nameless":        {append(bytes.Clone(sound[:rpmLead]), append(rpmHeaderOf(), rpmHeaderOf()...)...), "names no package"},
	} {
		if test.want == "besides ./boot/vmlinuz-1.2-fake" {
			test.want = "besides boot/vmlinuz-1.2-fake"
		}
		if k, _, err := fromRPM(t, test.rpm); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "linux.rpm") {
			t.Errorf("%s: %+v, error %v, want one with %q and the file's name", name, k, err, test.want)
		}
	}
}

func TestCpioRefused(t *testing.T) {
	sound := string(cpioOf(file{name: "a", content: "text"}))
	for name, test := range map[string]struct{ cpio, want string }{
		"empty":      {"", "without its trailer"},
		"cut":        {sound[:112], "4 bytes of a are missing"},
		"no trailer": {sound[:116], "without its trailer"},
		"stripped":   {"07070X" + sound[6:], `"07070X" in the place of a header`},
		"no number":  {sound[:6] + "+fffffff" + sound[14:], "for a number"},
		"long name":  {sound[:94] + "ffffffff" + sound[102:], "a name of 4294967295 bytes"},
		"no name":    {sound[:94] + "00000000" + sound[102:], "a name of 0 bytes"},
	} {
		err := walkCpio(t.Context(), strings.NewReader(test.cpio), 1<<20, func(string, io.Reader) error { return nil })
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, test.want)
		}
	}
	big := cpioOf(file{name: "a", content: strings.Repeat("x", 3<<20)})
	if err := walkCpio(t.Context(), bytes.NewReader(big), 1<<20, func(string, io.Reader) error { return nil }); err == nil || !strings.Contains(err.Error(), "unpacks to more than 1 MiB") {
		t.Errorf("beyond the limit: %v", err)
	}
}

// A package that rpmbuild itself makes of Debian's kernel.
func TestRealRPM(t *testing.T) {
	e2e(t)
	if _, err := exec.LookPath("rpmbuild"); err != nil {
		t.Fatal("rpmbuild is not installed: run lab doctor --install")
	}
	deb := debiantest.Kernel(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	run(t, dir, "dpkg-deb", "-x", deb, root)
	if err := os.RemoveAll(filepath.Join(root, "usr")); err != nil {
		t.Fatal(err)
	}
	spec := "Name: kernel-core\nVersion: 6.1\nRelease: 1\nSummary: a kernel\nLicense: GPL\n%description\nA kernel.\n%files\n/boot\n/lib/modules\n"
	if err := os.WriteFile(filepath.Join(dir, "kernel.spec"), []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "rpmbuild", "-bb", "--noclean", "--quiet", "--target", "x86_64", "--buildroot", root, "--define", "_topdir "+dir, "--define", "_rpmdir "+dir,
		"--define", "_binary_payload w1T0.zstdio", "--define", "__spec_install_pre true", "--define", "__spec_install_post true", "--define", "_build_id_links none", "kernel.spec")
	rpms, _ := filepath.Glob(filepath.Join(dir, "*", "*.rpm"))
	if len(rpms) != 1 {
		t.Fatalf("rpmbuild made %v", rpms)
	}
	k, err := FromPackage(t.Context(), dir, rpms[0], Modules{Needed: []string{"overlay"}})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(read(t, k.Image), read(t, filepath.Join(root, "boot/vmlinuz-"+k.Release))) || k.Source != "package kernel-core 6.1-1" || len(k.Modules) == 0 {
		t.Errorf("%+v", k)
	}
	for _, m := range k.Modules {
		name := filepath.Base(m)
		if !strings.Contains(run(t, root, "find", ".", "-name", strings.ReplaceAll(name, "_", "[_-]"), "-size", fmt.Sprint(len(read(t, m)))+"c"), ".ko") {
			t.Errorf("%s is not as in the .deb", name)
		}
	}
	if p, err := Describe(t.Context(), rpms[0]); err != nil || p.Release != k.Release {
		t.Errorf("described as %+v, %v; want release %s", p, err, k.Release)
	}
}

func FuzzRPM(f *testing.F) {
	f.Add(rpmOf(f, "gzip", ".gz", fakePackage()[1:4]))
	f.Add(rpmOf(f, "zstd", ".zst", fakePackage()[1:], tag{rpmDirIndexes, rpmInt32, 1, "\x00\x00\x00\x00"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := openRPM(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		c := p.contents()
		for _, name := range c.paths {
			if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") {
				t.Errorf("path %q", name)
			}
		}
		checkUnpacked(t, c, filepath.Join(t.TempDir(), "tmp"))
	})
}

func FuzzCpio(f *testing.F) {
	f.Add(cpioOf(fakePackage()[1:4]...))
	f.Add(cpioOf())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = walkCpio(t.Context(), bytes.NewReader(data), 1<<20, func(name string, r io.Reader) error {
			if strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../") {
				t.Errorf("path %q", name)
			}
			_, err := io.Copy(io.Discard, r)
			return err
		})
	})
}
