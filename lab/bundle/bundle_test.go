package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/oci"
	"lab/probe"
)

func sha(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// sampleDisk is a disk with a hole in it and something at either end.
func sampleDisk() []byte {
	disk := make([]byte, 1<<20)
	copy(disk, "begin")
	copy(disk[len(disk)-3:], "end")
	return disk
}

// sample is a small bundle with something in every field.
func sample(t testing.TB) (Manifest, []File) {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(disk, sampleDisk(), 0o644); err != nil {
		t.Fatal(err)
	}
	good, bad := []byte("good kernel"), []byte("bad kernel")
	initramfs := []byte("initramfs")
	cpio := Compressed{"inputs/initramfs-good.cpio.gz", sha(initramfs), int64(len(initramfs))}
	hash := strings.Repeat("0123456789", 4)
	m := Manifest{
		Lab:      "v0.1.0",
		Platform: "linux/amd64",
		Test:     probe.Spec{Container: "app", Command: []string{"sh", "-c", "echo '<a> & b'\nexit 1"}, Env: []string{"A=b"}, Timeout: 90 * time.Second, Epoch: time.Unix(1.7e9, 0).UTC()},
		Machine: Machine{
			Accel: "tcg", QEMU: "7.2.22", CPU: "Nehalem,+rdrand", Memory: 256, CPUs: 1,
			Cmdline: "audit=1", Clock: time.Unix(1.7e9, 0), BootTimeout: Duration(time.Minute),
		},
		Symptom: Symptom{Kind: "test", BadMatch: "System error"},
		Images:  []Image{{Name: "app", Pin: oci.Pin{Reference: "docker://127.0.0.1:5000/app:1", Digest: sha(nil), Platform: "linux/amd64"}}},
		Layout:  "inputs/images",
		Disk:    Disk{Member: "inputs/disk.img.gz", Digest: sha(sampleDisk()), Size: int64(len(sampleDisk())), Free: 1 << 19},
		Kernels: []Kernel{
			{
				Role: RoleGood, Commit: hash, Title: "one", Release: "6.1.0", Compiler: "gcc 12", Digest: sha(good),
				Toolchain: &Toolchain{Image: "oci:gcc", Digest: sha(good), Tools: []Tool{{"gcc", "gcc 12", sha(bad)}, {"cc1", "gcc 12", sha(bad)}}},
				Image:     "kernels/good/bzImage", Config: "kernels/good/config", Initramfs: cpio,
			},
			{
				Role: RoleBad, Commit: hash, Title: "two 'quoted' $(touch evil)", Release: "6.1.0", Digest: sha(bad),
				Image: "kernels/bad/bzImage", Initramfs: cpio,
			},
		},
		Runs: []Run{
			{Role: RoleGood, End: "test", Verdict: "good", Reason: "exit status 0", Dir: "runs/good-1"},
			{Role: RoleBad, End: "test", Verdict: "bad", Reason: "exit status 1", Exit: 1, Dir: "runs/bad-1"},
		},
		Culprit: &Culprit{Commit: hash, Title: "audit: \x1b[31mdo less", Author: "Jürgen <j@example.org>", Date: time.Date(2014, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600)), Patch: "bisect/culprit.patch"},
		Host:    Host{Kernel: "6.1.0-13", CPU: "CPU", System: "Debian GNU/Linux 12"},
	}
	pick := []byte("From: A U Thor\n\ndiff\n")
	files := []File{
		{Name: "reproduce.sh", Executable: true, Data: []byte("#!/bin/sh\n")},
		{Name: "bisect/culprit.patch", Data: []byte("diff\n")},
		{Name: "runs/good-1/console.log", Data: bytes.Repeat([]byte("x"), blockSize)},
		{Name: "runs/bad-1/console.log", Data: []byte{}},
		{Name: "kernels/good/bzImage", Data: good},
		{Name: "kernels/good/config", Data: []byte("CONFIG_AUDIT=y\n")},
		{Name: "kernels/bad/bzImage", Data: bad},
		{Name: "inputs/disk.img.gz", Source: disk, Gzip: true},
		{Name: "inputs/images/index.json", Data: []byte("{}")},
		{Name: "inputs/initramfs-good.cpio.gz", Data: initramfs, Gzip: true},
		{Name: "result.json", Data: []byte("{}\n")},
		{Name: "REPORT.txt", Data: []byte("It broke.\n")},
		{Name: "inputs/patches/01-pick.patch", Data: pick},
		{Name: "kernels/bad/on-top.patch", Data: []byte("diff\n")},
	}
	m.Patches = []Patch{{Name: "repair", Commit: hash, Digest: sha(pick), Member: "inputs/patches/01-pick.patch"}}
	m.Kernels[1].Applied, m.Kernels[1].OnTop = []string{"inputs/patches/01-pick.patch"}, "kernels/bad/on-top.patch"
	return m, files
}

func write(t testing.TB, m Manifest, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(context.Background(), &b, m, files); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func put(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRoundTrip(t *testing.T) {
	ctx := context.Background()
	m, files := sample(t)
	data := write(t, m, files)
	dir := filepath.Join(t.TempDir(), "q")
	b, err := Open(ctx, put(t, data), dir)
	if err != nil {
		t.Fatal(err)
	}

	want := m
	want.Format = Format
	want.Machine.Clock = m.Machine.Clock.UTC()
	want.Culprit.Date = m.Culprit.Date.UTC()
	want.Culprit.Title = "audit: ?[31mdo less"
	want.Members = b.Manifest.Members
	if diff := cmp.Diff(want, b.Manifest); diff != "" {
		t.Errorf("manifest (-written +read):\n%s", diff)
	}
	var names []string
	for _, e := range b.Manifest.Members {
		names = append(names, e.Name)
	}
	if diff := cmp.Diff([]string{
		"REPORT.txt", "result.json", "reproduce.sh",
		"inputs/disk.img.gz", "inputs/images/index.json", "inputs/initramfs-good.cpio.gz", "inputs/patches/01-pick.patch",
		"kernels/bad/bzImage", "kernels/bad/on-top.patch", "kernels/good/bzImage", "kernels/good/config",
		"runs/bad-1/console.log", "runs/good-1/console.log", "bisect/culprit.patch",
	}, names); diff != "" {
		t.Errorf("order of members:\n%s", diff)
	}

	for _, f := range files {
		got, err := os.ReadFile(b.Path(f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if !f.Gzip && !bytes.Equal(got, f.Data) {
			t.Errorf("%s has %q, written was %q", f.Name, got, f.Data)
		}
		info, err := os.Stat(b.Path(f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s is extracted with mode %v", f.Name, info.Mode())
		}
	}
	if p := b.Path("../bundle.tar"); p != "" {
		t.Errorf("Path of no member is %s", p)
	}

	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := b.Expand(ctx, m.Disk.Member, disk); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sampleDisk()) {
		t.Error("the disk has changed on the way")
	}
	var st syscall.Stat_t
	if err := syscall.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > int64(len(got))/2 {
		t.Errorf("the disk takes %d bytes of %d: its hole is gone", used, len(got))
	}
	if err := b.Expand(ctx, m.Disk.Member, disk); !errors.Is(err, fs.ErrExist) {
		t.Errorf("expanding over a file: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
}

func TestSameInputsSameBytes(t *testing.T) {
	m, files := sample(t)
	one := write(t, m, files)
	m, files = sample(t)
	slices.Reverse(files)
	if !bytes.Equal(one, write(t, m, files)) {
		t.Error("two bundles of the same inputs differ")
	}
}

func TestWriteLeavesItsArgumentsAlone(t *testing.T) {
	m, files := sample(t)
	m.Kernels[0].Title = "a\nb"
	title, first := m.Culprit.Title, files[0].Name
	write(t, m, files)
	if m.Culprit.Title != title || m.Kernels[0].Title != "a\nb" || files[0].Name != first || m.Members != nil {
		t.Error("Write changed its arguments")
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *Manifest, files *[]File)
		want   string
	}{
		"another disk":       {func(m *Manifest, _ *[]File) { m.Disk.Digest = sha(nil) }, "disk.img has 1048576 bytes and the digest"},
		"member not there":   {func(m *Manifest, _ *[]File) { m.Culprit.Patch = "bisect/x" }, `culprit.patch: there is no member "bisect/x"`},
		"other kernel":       {func(m *Manifest, _ *[]File) { m.Kernels[0].Digest = sha(nil) }, "kernels[0].image: kernels/good/bzImage has the digest"},
		"no good run":        {func(m *Manifest, _ *[]File) { m.Runs[0] = m.Runs[1] }, "runs: there is none of the good kernel"},
		"one run":            {func(m *Manifest, _ *[]File) { m.Runs = m.Runs[1:] }, "runs: 1 is not between 2 and 4096"},
		"a compressed disk":  {func(_ *Manifest, f *[]File) { (*f)[7].Gzip = false }, "Gzip is false for it, and true in the manifest"},
		"command not UTF-8":  {func(m *Manifest, _ *[]File) { m.Test.Command = []string{"a\xff"} }, `test: "a\xff" is not UTF-8`},
		"unsafe name":        {func(_ *Manifest, f *[]File) { (*f)[1].Name = "bisect/../x" }, `the name "bisect/../x" is not one a member may have`},
		"a name twice":       {func(_ *Manifest, f *[]File) { *f = append(*f, (*f)[0]) }, `"reproduce.sh" is there twice`},
		"source not there":   {func(_ *Manifest, f *[]File) { (*f)[1] = File{Name: "bisect/x", Source: "/nonexistent"} }, "add bisect/x: open /nonexistent"},
		"source a directory": {func(_ *Manifest, f *[]File) { (*f)[1] = File{Name: "bisect/x", Source: "/"} }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			m, files := sample(t)
			c.change(&m, &files)
			var b bytes.Buffer
			err := Write(context.Background(), &b, m, files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if b.Len() > 0 {
				t.Errorf("%d bytes were written", b.Len())
			}
		})
	}
}

// writerFunc runs a function once, on the first write.
type writerFunc func()

func (f *writerFunc) Write(p []byte) (int, error) {
	if *f != nil {
		(*f)()
		*f = nil
	}
	return len(p), nil
}

func TestSourceChangesBetweenTheReadings(t *testing.T) {
	for name, content := range map[string]string{"other": "two", "longer": "one more", "shorter": "o"} {
		t.Run(name, func(t *testing.T) {
			m, files := sample(t)
			source := filepath.Join(t.TempDir(), "source")
			if err := os.WriteFile(source, []byte("one"), 0o644); err != nil {
				t.Fatal(err)
			}
			files = append(files, File{Name: "bisect/graph.txt", Source: source})
			change := writerFunc(func() {
				if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
					t.Error(err)
				}
			})
			err := Write(context.Background(), &change, m, files)
			if err == nil || !strings.Contains(err.Error(), source+" changed while it was read") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	m, files := sample(t)
	path := put(t, write(t, m, files))
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	if err := Write(ctx, io.Discard, m, files); !errors.Is(err, stop) {
		t.Errorf("Write: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "q")
	_, err := Open(ctx, path, dir)
	var refused *RefusedError
	if !errors.Is(err, stop) || errors.As(err, &refused) {
		t.Errorf("Open: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}

	b, err := Open(context.Background(), path, dir)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	if err := b.Expand(ctx, m.Disk.Member, disk); !errors.Is(err, stop) || errors.As(err, &refused) {
		t.Errorf("Expand: %v", err)
	}
	if _, err := os.Stat(disk); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the disk is left: %v", err)
	}
}

func TestOpenLeavesAnExistingDirectoryAlone(t *testing.T) {
	m, files := sample(t)
	dir := t.TempDir()
	if _, err := Open(context.Background(), put(t, write(t, m, files)), dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
