package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// efiProgram is as much of an EFI program as its machine type.
func efiProgram(machine uint16) []byte {
	b := make([]byte, 512)
	copy(b, "MZ")
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[0x84:], machine)
	return b
}

func bootFile(t testing.TB, data []byte) BootFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return BootFile{Path: path, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(data))}
}

// noise is data that no two clusters of are alike.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func testBoot(t testing.TB, kernel, initramfs int) *Boot {
	return &Boot{
		Loader:    bootFile(t, efiProgram(pe.IMAGE_FILE_MACHINE_AMD64)),
		Kernel:    bootFile(t, noise(kernel)),
		Initramfs: bootFile(t, noise(initramfs)),
		Cmdline:   "console=ttyS0",
		Title:     "lab: Linux 6.1",
	}
}

// partitions reads an image's partition table with go-diskfs.
func partitions(t testing.TB, path string) []*gpt.Partition {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(file.New(f, true), sectorSize, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	return table.Partitions
}

func TestBootable(t *testing.T) {
	s := testSpec(t)
	plain, err := os.ReadFile(build(t, s).Path)
	if err != nil {
		t.Fatal(err)
	}
	plainDigest := s.Digest()
	s.Boot = testBoot(t, 10<<20+1, 30<<20+511)
	if s.Digest() == plainDigest {
		t.Error("a bootable image has the digest of one that is not")
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1234567890")
	one := build(t, s)
	t.Setenv("SOURCE_DATE_EPOCH", "")
	two := build(t, s)
	image, err := os.ReadFile(one.Path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(two.Path); err != nil || !bytes.Equal(image, again) {
		t.Errorf("the environment or the time changes the image (%v)", err)
	}

	// The disk is sound, and its ext4 partition as it is without the other.
	if out := tool(t, "sfdisk", "-V", one.Path); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk: %s", out)
	}
	if out := tool(t, "sgdisk", "-v", one.Path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	fsck(t, one.Path)
	parts := partitions(t, one.Path)
	if len(parts) != 2 || parts[0].Name != PartitionName || parts[1].Name != BootPartitionName || parts[1].Type != gpt.EFISystemPartition {
		t.Fatalf("partitions are %v", parts)
	}
	root := partitions(t, build(t, testSpec(t)).Path)[0]
	end := (root.End + 1) * sectorSize
	if !bytes.Equal(image[partitionStart:end], plain[partitionStart:end]) || *parts[0] != *root {
		t.Error("the ext4 partition differs from that of an image that is not bootable")
	}

	// So is the FAT, and it reads back by others' tools and by the library.
	esp := espOf(t, image, parts[1])
	if esp.size%mib != 0 || int64(parts[1].Start)*sectorSize%mib != 0 {
		t.Errorf("partition of %d bytes at sector %d is not aligned", esp.size, parts[1].Start)
	}
	esp.check(t, map[string]string{
		"/EFI/BOOT/BOOTX64.EFI":    read(t, s.Boot.Loader.Path),
		"/lab/vmlinuz":             read(t, s.Boot.Kernel.Path),
		"/lab/initramfs":           read(t, s.Boot.Initramfs.Path),
		"/loader/loader.conf":      "default lab.conf\ntimeout 3\nconsole-mode keep\n",
		"/loader/entries/lab.conf": "title lab: Linux 6.1\nlinux /lab/vmlinuz\ninitrd /lab/initramfs\noptions console=ttyS0\n",
	})
	if out := tool(t, "mdir", "-i", esp.path, "-/", "::"); strings.Contains(out, fmt.Sprint(time.Now().Year())) || !strings.Contains(out, "2023-11-14  22:13") {
		t.Errorf("the entries are not of the epoch:\n%s", out)
	}
}

// TestBootableSizes builds the smallest FAT, and one with clusters of 4096 bytes.
func TestBootableSizes(t *testing.T) {
	for _, size := range []int64{1, 512, 263 * mib} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := Spec{Boot: testBoot(t, 1, 1)}
			if err := os.Truncate(s.Boot.Kernel.Path, size); err != nil {
				t.Fatal(err)
			}
			s.Boot.Kernel.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(read(t, s.Boot.Kernel.Path))))
			one := build(t, s)
			esp := espOf(t, []byte(read(t, one.Path)), partitions(t, one.Path)[1])
			esp.check(t, map[string]string{"/lab/initramfs": read(t, s.Boot.Initramfs.Path)})
		})
	}
}

// espImage is an EFI system partition in a file of its own.
type espImage struct {
	path string
	size int64
}

func espOf(t *testing.T, image []byte, p *gpt.Partition) espImage {
	t.Helper()
	path := filepath.Join(t.TempDir(), "esp.img")
	data := image[p.Start*sectorSize : (p.End+1)*sectorSize]
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return espImage{path, int64(len(data))}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// check looks at the file system with fsck.vfat, mtools and go-diskfs.
func (e espImage) check(t *testing.T, files map[string]string) {
	t.Helper()
	out := strings.Split(strings.TrimSpace(tool(t, "fsck.vfat", "-n", e.path)), "\n")
	if len(out) != 2 { // the program's version, and the count of files and clusters
		t.Errorf("fsck.vfat complains: %q", out)
	}
	f, err := os.Open(e.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := fat32.Read(file.New(f, true), e.size, 0, sectorSize)
	if err != nil {
		t.Fatal(err)
	}
	if clusters := (e.size - int64(fs.DataStart())) / int64(fs.BytesPerCluster()); clusters < 65525 {
		t.Errorf("%d clusters: this is FAT16", clusters)
	}
	for name, want := range files {
		copied := filepath.Join(t.TempDir(), "copy")
		tool(t, "mcopy", "-i", e.path, "::"+name, copied)
		if read(t, copied) != want {
			t.Errorf("mcopy gives another %s", name)
		}
		if got, err := fs.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("go-diskfs gives another %s: %v", name, err)
		}
	}
}

func TestLoaderName(t *testing.T) {
	for machine, want := range map[uint16]string{0x8664: "BOOTX64.EFI", 0xaa64: "BOOTAA64.EFI", 0x14c: "BOOTIA32.EFI"} {
		if got, err := loaderName(bytes.NewReader(efiProgram(machine))); err != nil || got != want {
			t.Errorf("a loader for %#x is called %q, %v, want %s", machine, got, err, want)
		}
	}
	for _, bad := range [][]byte{nil, []byte("MZ"), []byte("#!/bin/sh\n"), efiProgram(0x1234)} {
		if name, err := loaderName(bytes.NewReader(bad)); err == nil {
			t.Errorf("%.20q is a loader called %s", bad, name)
		}
	}
}

func TestBootRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Boot)
		want   string
	}{
		"cmdline of two lines": {func(b *Boot) { b.Cmdline = "quiet\nlinux /other" }, "not printable ASCII"},
		"long cmdline":         {func(b *Boot) { b.Cmdline = strings.Repeat("x", maxBootCmdline+1) }, "at most 2000"},
		"no loader":            {func(b *Boot) { b.Loader.Path += ".gone" }, "open boot loader"},
		"no EFI loader":        {func(b *Boot) { b.Loader = bootFile(t, []byte("#!/bin/sh\n")) }, "not an EFI program"},
		"empty kernel":         {func(b *Boot) { b.Kernel = bootFile(t, nil) }, "open kernel"},
		"a folder":             {func(b *Boot) { b.Initramfs.Path = t.TempDir() }, "open initramfs"},
		"another initramfs":    {func(b *Boot) { b.Initramfs.Digest = b.Kernel.Digest }, "changed meanwhile"},
	} {
		t.Run(name, func(t *testing.T) {
			b := testBoot(t, 1000, 2000)
			c.change(b)
			dir := t.TempDir()
			_, err := Build(t.Context(), filepath.Join(dir, "disk.img"), Spec{Boot: b})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		cancel(stop)
		if _, err := Build(ctx, filepath.Join(t.TempDir(), "disk.img"), Spec{Boot: testBoot(t, 1000, 2000)}); !errors.Is(err, stop) {
			t.Errorf("error is %v", err)
		}
	})
}

// TestBootDigest: whatever goes into the partition is part of the digest.
func TestBootDigest(t *testing.T) {
	var seen []string
	for _, change := range []func(*Boot){
		func(*Boot) {},
		func(b *Boot) { b.Loader.Digest += "x" },
		func(b *Boot) { b.Kernel.Digest += "x" },
		func(b *Boot) { b.Initramfs.Digest += "x" },
		func(b *Boot) { b.Cmdline += "x" },
		func(b *Boot) { b.Title += "x" },
	} {
		b := testBoot(t, 1, 1)
		change(b)
		d := Spec{Boot: b}.Digest()
		if slices.Contains(seen, d) {
			t.Error("two specs have one digest")
		}
		seen = append(seen, d)
	}
}
