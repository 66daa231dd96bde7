package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// split parts the fake package into one with the kernel and one with its modules.
func split(t *testing.T) (image, modules []file) {
	t.Helper()
	for _, f := range fakePackage() {
		if strings.HasSuffix(f.name, ".ko") {
			modules = append(modules, f)
		} else {
			image = append(image, f)
		}
	}
	return image, modules
}

// Ubuntu's way: the modules are in packages of their own.
func TestCompanions(t *testing.T) {
	image, modules := split(t)
	of := func(name, version string, files []file) []byte {
		return debOf(t, "Package: "+name+"\nVersion: "+version+"\n", ".gz", files...)
	}
	extra := []file{{name: lib + "kernel/extra.ko", content: ko("depends=virtio")}}
	dir, cache := t.TempDir(), t.TempDir()
	put := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	from := func(needed ...string) ([]string, error) {
		k, err := FromPackage(t.Context(), cache, filepath.Join(dir, "linux-image-unsigned-1.2-fake_1.2-3_amd64.deb"), Modules{Needed: needed})
		var names []string
		for _, m := range k.Modules {
			names = append(names, moduleName(m))
		}
		return names, err
	}

	put("linux-image-unsigned-1.2-fake_1.2-3_amd64.deb", of("linux-image-unsigned-1.2-fake", "1.2-3", image))
	if got, err := from(); err != nil || len(got) != 0 {
		t.Errorf("alone: %v, %v", got, err)
	}
	if _, err := from("extra"); err == nil || !strings.Contains(err.Error(), "linux-modules-1.2-fake or linux-modules-extra-1.2-fake of the same version, put beside it") {
		t.Errorf("error %v, want one that names the packages", err)
	}
	// Others are not for this kernel, or hold no modules.
	put("linux-modules-1.2-fake_1.2-2_amd64.deb", of("linux-modules-1.2-fake", "1.2-2", []file{{name: "./nothing"}}))
	put("linux-modules-1.2-fakery_1.2-3_amd64.deb", of("linux-modules-1.2-fakery", "1.2-3", []file{{name: "./nothing"}}))
	put("linux-modules-1.2-fake_1.2-3_amd64.deb", of("linux-modules-1.2-fake", "1.2-3", modules))
	want := []string{"virtio", "virtio_ring", "virtio_pci", "virtio_blk", "jbd2", "crc32c_generic", "ext4"}
	if got, err := from(); err != nil || !slices.Equal(got, want) {
		t.Errorf("with its modules beside it: %v, %v", got, err)
	}
	put("linux-modules-extra-1.2-fake_1.2-3_amd64.deb", of("linux-modules-extra-1.2-fake", "1.2-3", extra))
	if got, err := from("extra"); err != nil || !slices.Equal(got, append(want, "extra")) {
		t.Errorf("with more of them: %v, %v", got, err)
	}
	put("linux-modules-extra-1.2-fake_1.2-3_amd64.deb", []byte("damaged"))
	if _, err := from("extra"); err == nil || !strings.Contains(err.Error(), "linux-modules-extra-1.2-fake_1.2-3_amd64.deb beside it: ") {
		t.Errorf("error %v, want one that names the damaged package", err)
	}
}

// Fedora's and RHEL's way.
func TestCompanionNames(t *testing.T) {
	for name, want := range map[string]string{
		"kernel-core":              "kernel-modules-core kernel-modules kernel-modules-extra",
		"kernel-rt-core":           "kernel-rt-modules-core kernel-rt-modules kernel-rt-modules-extra",
		"linux-image-6.8.0-1-aws":  "linux-modules-6.8.0-1-aws linux-modules-extra-6.8.0-1-aws",
		"kernel-default":           "",
		"linux-image-6.1.0-56-amd": "linux-modules-6.1.0-56-amd linux-modules-extra-6.1.0-56-amd",
	} {
		if got := strings.Join(companionNames(name), " "); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
