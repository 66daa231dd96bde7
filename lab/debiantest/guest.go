package debiantest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"
)

// File is a file of an initramfs: disk.File, which this package may not know.
type File struct {
	Path   string
	Mode   fs.FileMode
	Data   []byte
	Source string // on the host, where Data is nil
}

// Guest is a virtual machine that lists what is on a disk image: Debian's
// kernel with disk/testdata/guest as its init.
type Guest struct {
	Disk      string                                // path of the image
	Initramfs func(w io.Writer, files []File) error // disk.WriteInitramfs, whatever it is called with
	Args      []string                              // for the init
}

// Boot runs the guest to its end. It gives the console and the listing: the
// free space first, then a line for each path below /containers, see package
// listing.
func (g Guest) Boot(t *testing.T) (console string, list []string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatal("qemu-system-x86_64 is not installed: run lab doctor --install")
	}
	dir := t.TempDir()
	kernel, files := guestKernel(t)
	initrd := filepath.Join(dir, "initrd")
	f, err := os.Create(initrd)
	if err != nil {
		t.Fatal(err)
	}
	guest := filepath.Join(dir, "guest")
	cmd := exec.Command("go", "build", "-o", guest, "lab/disk/testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	files = append(files, File{Path: "/init", Mode: 0o755, Source: guest}, File{Path: "/mnt", Mode: fs.ModeDir | 0o755})
	if err := g.Initramfs(f, files); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "listing")
	if err := os.WriteFile(out, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(out, 128<<20); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var serial bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg", "-machine", "q35", "-m", "512",
		"-kernel", kernel, "-initrd", initrd, "-append", strings.Join(append([]string{"console=ttyS0 panic=-1 loglevel=7 --"}, g.Args...), " "),
		"-drive", "file="+g.Disk+",format=raw,if=virtio,cache=unsafe", "-drive", "file="+out+",format=raw,if=virtio,cache=unsafe",
		"-serial", "stdio")
	qemu.Stdout, qemu.Stderr = &serial, &serial
	if err := qemu.Run(); err != nil {
		t.Fatalf("qemu: %v\n%s", err, serial.Bytes())
	}
	if !strings.Contains(serial.String(), "GUEST DONE") {
		t.Fatalf("the guest did not come to its end:\n%s", serial.Bytes())
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	list = strings.Split(string(bytes.TrimRight(b, "\x00")), "\n")
	if n := len(list); n < 3 || list[n-2] != "end" || list[n-1] != "" {
		t.Fatalf("the listing breaks off after %d lines", n)
	}
	return serial.String(), list[:len(list)-2]
}

// Fsck checks the file system of a disk image that package disk wrote, whose
// partition begins at 1 MiB.
func Fsck(t testing.TB, image string) {
	t.Helper()
	path, err := exec.LookPath("e2fsck")
	if err != nil {
		path = "/usr/sbin/e2fsck" // not on everybody's PATH
	}
	if out, err := exec.Command(path, "-f", "-n", image+"?offset=1048576").CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v (from e2fsprogs: run lab doctor --install)\n%s", err, out)
	}
}

// guestKernel unpacks a kernel package: the kernel, and the modules that ext4 on
// virtio-blk takes with the order to load them in.
func guestKernel(t *testing.T) (kernel string, modules []File) {
	t.Helper()
	dir := t.TempDir()
	deb := Kernel(t)
	if out, err := exec.Command("dpkg-deb", "-x", deb, dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", deb, err, out)
	}
	kernels, _ := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		t.Fatalf("%s holds %d kernels", deb, len(kernels))
	}

	found := make(map[string]string)
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			found[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	var load func(name string)
	load = func(name string) {
		path, ok := found[name]
		if !ok {
			return // loaded already, or built into the kernel
		}
		delete(found, name)
		data, err := readModule(path)
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		// What a module needs is named in its .modinfo section.
		if _, after, ok := bytes.Cut(data, []byte("\x00depends=")); ok {
			depends, _, _ := bytes.Cut(after, []byte{0})
			for name := range strings.SplitSeq(string(depends), ",") {
				load(strings.ReplaceAll(name, "-", "_"))
			}
		}
		modules = append(modules, File{Path: "/modules/" + name, Mode: 0o644, Data: data})
		fmt.Fprintln(&list, name)
	}
	for _, name := range []string{"crc32c_generic", "ext4", "virtio_pci", "virtio_blk"} {
		load(name)
	}
	modules = append(modules, File{Path: "/modules/order", Mode: 0o644, Data: []byte(list.String())})
	return kernels[0], modules
}

func readModule(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, ".xz") {
		return data, err
	}
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
