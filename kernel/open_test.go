package kernel

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lay puts a synthetic package's files into a folder.
func lay(t *testing.T, dir string, files []file) {
	t.Helper()
	for _, f := range files {
		if f.kind != 0 {
			continue
		}
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFromFolder(t *testing.T) {
	dir, cache := filepath.Join(t.TempDir(), "linux"), t.TempDir()
	for _, f := range fakePackage() {
		f.name = strings.Replace(f.name, "./lib", "usr/lib", 1)
		lay(t, dir, []file{f})
	}
	// A merged /usr, a build folder that is elsewhere, and a way out.
	for name, target := range map[string]string{"lib": "usr/lib", "usr/lib/modules/1.2-fake/build": "/usr/src", "boot/vmlinuz": "/etc/passwd"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if !IsPackage(dir) || IsPackage(cache) {
		t.Error("a folder is not told from another")
	}
	k, err := FromPackage(t.Context(), cache, dir, Modules{})
	if err != nil || k.Release != "1.2-fake" || k.Source != "package linux" || len(k.Modules) != 7 {
		t.Fatalf("%+v, %v", k, err)
	}
	p, err := Describe(t.Context(), dir)
	if err != nil || p.Release != "1.2-fake" || p.Name != "linux" {
		t.Errorf("%+v, %v", p, err)
	}
	// Another content is another package.
	lay(t, dir, []file{{name: "boot/config-1.2-fake", content: "CONFIG_NET=y\n"}})
	if other, err := Describe(t.Context(), dir); err != nil || other.Digest == p.Digest {
		t.Errorf("%+v, %v", other, err)
	}
	if _, err := FromPackage(t.Context(), cache, cache, Modules{}); err == nil || !strings.Contains(err.Error(), "with none of boot, lib/modules") {
		t.Errorf("any folder: %v", err)
	}
}

// An image of kernels as cilium lays it out.
func TestFromTar(t *testing.T) {
	var files []file
	for _, f := range fakePackage() {
		f.name = "data/kernels/1.2/" + strings.TrimPrefix(f.name, "./")
		files = append(files, f)
	}
	data, cache, opened := tarOf(t, files), t.TempDir(), 0
	for range 2 {
		k, err := FromTar(t.Context(), cache, "a", "sha256:aa", Modules{}, func(context.Context) (io.ReadCloser, error) {
			opened++
			return io.NopCloser(bytes.NewReader(data)), nil
		})
		if err != nil || k.Release != "1.2-fake" || len(k.Modules) != 7 || k.Source != "image a" {
			t.Errorf("%+v, %v", k, err)
		}
	}
	if opened != 1 {
		t.Errorf("the image was read %d times", opened)
	}
}

func TestDescribeDeb(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, deb []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, deb, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// All that follows the kernel is not looked at: here it is missing.
	files := fakePackage()
	sound := debOf(t, control, "", files...)
	p, err := Describe(t.Context(), write("a.deb", sound))
	want := Package{Name: "linux-image-fake", Version: "1.2-3", Release: "1.2-fake", Debian: true, Digest: p.Digest}
	if d := cmp.Diff(want, p); d != "" || err != nil {
		t.Errorf("(-want +got):\n%s%v", d, err)
	}
	if p, err := Describe(t.Context(), write("meta.deb", debOf(t, control, ".gz"))); err == nil || !strings.Contains(err.Error(), "depends on linux-image-real") {
		t.Errorf("%+v, %v", p, err)
	}
	i := slices.IndexFunc(files, func(f file) bool { return strings.Contains(f.name, "vmlinuz") })
	files[i].name = "./boot/vmlinuz"
	if p, err := Describe(t.Context(), write("b.deb", debOf(t, control, "", files...))); err != nil || p.Release != "" {
		t.Errorf("a kernel that does not say its release: %+v, %v", p, err)
	}
}

func TestNeededModules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.deb")
	files := append(fakePackage(), file{name: lib + "kernel/fs/over-lay.ko", content: ko("depends=jbd2")})
	if err := os.WriteFile(path, debOf(t, control, "", files...), 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := FromPackage(t.Context(), t.TempDir(), path, Modules{Needed: []string{"over-lay", "crc16"}}) // crc16 is built in
	if err != nil || len(k.Modules) != 8 || moduleName(k.Modules[7]) != "over_lay" {
		t.Errorf("%q, %v", k.Modules, err)
	}
	for name, want := range map[string]string{
		"nosuch":    "linux-image-fake 1.2-3 has no module nosuch",
		"later":     "module later needs nowhere",
		"../../etc": "has no module",
	} {
		if k, err := FromPackage(t.Context(), t.TempDir(), path, Modules{Needed: []string{name}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, error %v, want one with %q", name, k.Modules, err, want)
		}
	}
}
