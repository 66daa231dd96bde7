package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lab/lab/corpus/listing"
	"lab/lab/debiantest"
)

// open opens an image, and the tree of its lab-root.
func openTree(t testing.TB, path, partition string) *Tree {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	tree, err := r.Tree(partition)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// list reads a whole tree, every byte of it.
func list(t testing.TB, tree *Tree, start string) []string {
	t.Helper()
	root, err := tree.Lookup(start, false)
	if err != nil {
		t.Fatal(err)
	}
	first := make(map[uint32]string)
	var lines []string
	err = tree.Walk(context.Background(), &root, func(s *Stat) error {
		name := strings.TrimPrefix(strings.TrimPrefix(s.Path, strings.TrimSuffix(start, "/")), "/")
		if name == "" {
			name = "."
		}
		if _, ok := first[s.Inode]; !ok || s.Inode == 0 {
			first[s.Inode] = name
		}
		xattrs, err := tree.Xattrs(s)
		if err != nil {
			return err
		}
		f := listing.File{
			Name: name, Mode: s.Mode, UID: s.UID, GID: s.GID, Size: s.Size,
			Mtime: listing.Time{Sec: s.Mtime.Unix(), Nsec: int64(s.Mtime.Nanosecond())},
			Atime: listing.Time{Sec: s.Atime.Unix(), Nsec: int64(s.Atime.Nanosecond())},
			Ctime: listing.Time{Sec: s.Ctime.Unix(), Nsec: int64(s.Ctime.Nanosecond())},
			Links: s.Links, Major: s.Major, Minor: s.Minor, Inode: first[s.Inode], Content: "-", Xattrs: xattrs,
		}
		switch s.Type() {
		case TypeSymlink:
			f.Content = s.Target
		case TypeRegular:
			sum := sha256.New()
			if err := tree.WriteContent(context.Background(), sum, s); err != nil {
				return err
			}
			f.Content = fmt.Sprintf("%x", sum.Sum(nil))
		}
		lines = append(lines, f.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// compareTree compares a container's tree in an image with the tar it came from.
func compareTree(t *testing.T, file string) {
	t.Helper()
	c := Container{Name: "c", Digest: "c", Config: []byte("{}"), Open: func(context.Context) (io.ReadCloser, error) { return os.Open(file) }}
	image := build(t, Spec{Containers: []Container{c}, Epoch: time.Unix(1_700_000_000, 0)})
	start := time.Now()
	got := list(t, openTree(t, image.Path, ""), ContainerRoot("c"))
	t.Logf("%d paths read in %v", len(got), time.Since(start))
	compareLines(t, got, expected(t, ".", file))
}

// TestReader reads everything odd, and every byte of it.
func TestReader(t *testing.T) { compareTree(t, oddRootfs(t)) }

// TestReaderDebian reads a whole distribution.
func TestReaderDebian(t *testing.T) {
	needE2E(t)
	compareTree(t, debiantest.Rootfs(t))
}

func TestLookup(t *testing.T) {
	stream := tarOf(t,
		"dir /", "dir a", "dir a/b", "file a/b/f", "link up ../../../../..", "link a/abs /a/b", "link a/rel b/../b/f",
		"link loop loop", "link dangling /nowhere", "link out /../../../containers/c/config.json")
	image := build(t, Spec{Containers: []Container{container("c", stream)}})
	tree := openTree(t, image.Path, PartitionName)
	root := ContainerRoot("c")
	for _, c := range []struct {
		path   string
		follow bool
		want   string // or an error's text
	}{
		{"/", false, "/"},
		{"containers/c/config.json", false, "/containers/c/config.json"},
		{root, false, root},
		{root + "/a/abs/f", false, root + "/a/b/f"},
		{root + "/a/abs", false, root + "/a/abs"},
		{root + "/a/abs/", false, root + "/a/b"},
		{root + "/a/rel", true, root + "/a/b/f"},
		{root + "/up/a/abs/../b/f", false, root + "/a/b/f"},
		{root + "/up/", false, root},
		{root + "/loop/x", false, "too many levels of symlinks"},
		{root + "/dangling", true, "file does not exist"},
		{root + "/dangling", false, root + "/dangling"},
		{root + "/out", true, "file does not exist"},
		{root + "/a/b/f/g", false, "is a file, not a directory"},
		{"/nothing", false, "file does not exist"},
	} {
		s, err := tree.Lookup(c.path, c.follow)
		switch {
		case err != nil:
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), image.Path) {
				t.Errorf("%s: error %v, not %s", c.path, err, c.want)
			}
		case s.Path != c.want:
			t.Errorf("%s: is %s, not %s", c.path, s.Path, c.want)
		}
	}
	if _, err := tree.Lookup("/nothing", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	image := build(t, testSpec(t))
	whole, err := os.ReadFile(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, want string
		change     func([]byte) []byte
	}{
		{"empty", "0 bytes are too few", func([]byte) []byte { return nil }},
		{"text", "neither a partition table nor an ext4 file system", func([]byte) []byte { return []byte(strings.Repeat("text", 1000)) }},
		{"cut off", "it is cut off", func(b []byte) []byte { return b[:10<<20] }},
		{"large table", "room for 4294967295 entries", func(b []byte) []byte {
			b = slices.Clone(b)
			copy(b[sectorSize+80:], "\xff\xff\xff\xff")
			return b
		}},
		{"bad table", "invalid EFI Header Checksum", func(b []byte) []byte {
			b = slices.Clone(b)
			b[sectorSize+60]++
			clear(b[len(b)-sectorSize:])
			return b
		}},
	} {
		path := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(path, c.change(whole), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		if err == nil {
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error is %v, not %s", c.what, err, c.want)
		}
	}
	r, err := Open(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Tree("nothing"); err == nil || !strings.Contains(err.Error(), `it has no partition "nothing", only 1 lab-root`) {
		t.Errorf("error is %v", err)
	}
	if _, err := r.Tree("1"); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "neither a regular file nor a block device") {
		t.Errorf("error is %v", err)
	}
}

// tarOf makes a tar of "dir NAME", "file NAME CONTENT…", "link NAME TARGET" and
// "hard NAME TARGET".
func tarOf(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		kind, rest, _ := strings.Cut(e, " ")
		name, value, _ := strings.Cut(rest, " ")
		h := tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: 0o755, ModTime: time.Unix(1e9, 5), Format: tar.FormatPAX}
		switch kind {
		case "dir":
			h.Typeflag, h.Name = tar.TypeDir, "./"+h.Name
		case "file":
			h.Typeflag, h.Size = tar.TypeReg, int64(len(value))
		case "link":
			h.Typeflag, h.Linkname = tar.TypeSymlink, value
		case "hard":
			h.Typeflag, h.Linkname = tar.TypeLink, value
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, value)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestReaderESP reads the EFI system partition of an image that boots.
func TestReaderESP(t *testing.T) {
	s := testSpec(t)
	s.Boot = testBoot(t, 1<<20+1, 3<<20+511)
	tree := openTree(t, build(t, s).Path, BootPartitionName)
	var got []string
	for _, line := range list(t, tree, "/") {
		f, err := listing.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %d %d %s", f.Name, f.Mode, f.Size, f.Mtime.Sec, f.Content))
	}
	want := []string{". 40755 0 315532800 -"}
	for _, dir := range []string{"EFI", "EFI/BOOT", "lab", "loader", "loader/entries"} {
		want = append(want, fmt.Sprintf("%s 40755 0 %d -", dir, s.Epoch.Unix()))
	}
	for name, file := range map[string]string{"EFI/BOOT/BOOTX64.EFI": s.Boot.Loader.Path, "lab/vmlinuz": s.Boot.Kernel.Path, "lab/initramfs": s.Boot.Initramfs.Path} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%s 100755 %d %d %x", name, len(b), s.Epoch.Unix(), sha256.Sum256(b)))
	}
	for name, text := range map[string]string{
		"loader/loader.conf":      "default lab.conf\ntimeout 3\nconsole-mode keep\n",
		"loader/entries/lab.conf": "title lab: Linux 6.1\nlinux /lab/vmlinuz\ninitrd /lab/initramfs\noptions console=ttyS0\n",
	} {
		want = append(want, fmt.Sprintf("%s 100755 %d %d %x", name, len(text), s.Epoch.Unix(), sha256.Sum256([]byte(text))))
	}
	compareLines(t, got, want)
	if u := tree.Usage(); u.Label != "LAB-ESP" || u.Size != tree.Partition.Size || u.Free <= 0 || u.Free >= u.Size {
		t.Errorf("usage is %+v", u)
	}
}
