package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lab/lab/corpus/listing"
)

// TestReaderOthers reads file systems that mke2fs made of a folder: block maps
// down to the third level, other sizes of blocks and inodes, attributes in
// inodes of their own, extents that were never written.
func TestReaderOthers(t *testing.T) {
	dir := t.TempDir()
	put := func(name, data string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}
		return p
	}
	put("small", "small")
	put("empty", "")
	put("blocks", string(noise(300<<10+5))) // beyond the direct and the first indirect blocks of 1 KiB
	put("zeros", strings.Repeat("\x00", 20000)+"end")
	far, err := os.OpenFile(put("far", "begin"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.WriteAt([]byte("far"), 70<<20); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "sub"), 0o711),
		os.Symlink("small", filepath.Join(dir, "short")),
		os.Symlink(strings.Repeat("long/", 100), filepath.Join(dir, "long")),
		os.Link(filepath.Join(dir, "small"), filepath.Join(dir, "sub/hard")),
		os.WriteFile(filepath.Join(dir, "sub", strings.Repeat("\xfe", 255)), nil, 0o600),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 400 {
		put(fmt.Sprintf("sub/%0100d", i), fmt.Sprint(i))
	}
	for _, options := range [][]string{
		{"-t", "ext2", "-b", "1024", "-I", "128"},
		{"-t", "ext3", "-b", "2048"},
		{"-t", "ext4"},
		{"-t", "ext4", "-b", "1024", "-O", "64bit,metadata_csum,ea_inode", "-I", "512"},
		{"-t", "ext4", "-b", "65536", "-O", "^metadata_csum"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "fs")
			tool(t, "mke2fs", append(append([]string{"-q", "-F", "-d", dir}, options...), image, "64M")...)
			var want []string
			err := listing.Walk(dir, func(f listing.File) error {
				want = append(want, comparable(f))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range list(t, openTree(t, image, ""), "/") {
				f, err := listing.Parse(line)
				if err != nil {
					t.Fatal(err)
				}
				if f.Name == "." {
					f.Links-- // lost+found
				}
				if f.Name != "lost+found" {
					got = append(got, comparable(f))
				}
			}
			compareLines(t, got, want)
		})
	}
	t.Run("unwritten", func(t *testing.T) {
		image := filepath.Join(t.TempDir(), "fs")
		tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, image, "64M")
		tool(t, "debugfs", "-w", "-R", "fallocate /small 0 9", image)
		tool(t, "debugfs", "-w", "-R", "sif /small size 40960", image)
		tree := openTree(t, image, "")
		s, err := tree.Lookup("/small", false)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := tree.WriteContent(context.Background(), &b, &s); err != nil || b.Len() != 40960 || strings.TrimRight(b.String(), "\x00") != "small" {
			t.Errorf("content of %d bytes is %.10q, error %v", b.Len(), b.String(), err)
		}
	})
}

// comparable is a line without what mke2fs does not take over.
func comparable(f listing.File) string {
	f.Atime, f.Ctime, f.Mtime.Nsec = listing.Time{}, listing.Time{}, 0
	if f.Name == "." {
		f.Mtime = listing.Time{}
		f.Mode = 0
	}
	return f.String()
}

// TestReaderPlaces reads images whose file system is elsewhere: behind an MBR,
// in a partition of another name, beside others.
func TestReaderPlaces(t *testing.T) {
	image := build(t, testSpec(t))
	b, err := os.ReadFile(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	root := b[partitionStart : len(b)-backupSize]
	write := func(b []byte) string {
		path := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	table := make([]byte, sectorSize)
	for i := range 2 {
		e := table[446+16*i:]
		e[4] = 0x83
		binary.LittleEndian.PutUint32(e[8:], uint32(1+i*len(root)/sectorSize))
		binary.LittleEndian.PutUint32(e[12:], uint32(len(root)/sectorSize))
	}
	copy(table[510:], "\x55\xaa")
	two := bytes.Join([][]byte{table, root, root}, nil)
	one := bytes.Clone(two)
	copy(one[446+16:446+32], make([]byte, 16))
	for _, c := range []struct{ path, partition, want string }{
		{write(root), "", ""},
		{write(one), "", ""},
		{write(two), "2", ""},
		{write(two), "", "several of its partitions could be meant, name one: 1, 2"},
		{write(two), "3", `no partition "3", only 1, 2`},
		{image.Path, "lab-root", ""},
	} {
		r, err := Open(c.path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		tree, err := r.Tree(c.partition)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error is %v, not %s", c.partition, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if got := list(t, tree, ContainerRoot("web")+"/etc"); len(got) != 2 {
			t.Errorf("read %q", got)
		}
	}
}

// TestReaderLoop walks directories that are in themselves, or in two places.
func TestReaderLoop(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, want := range map[string]string{
		"ln / /a/b/root": `the same directory is at "/" too`,
		"ln /a /a/b/a":   `the same directory is at "/a" too`,
		"ln /a/b /c":     `the same directory is at "/a/b" too`,
	} {
		image := filepath.Join(t.TempDir(), "fs")
		tool(t, "mke2fs", "-q", "-F", "-t", "ext4", "-d", dir, image, "4M")
		tool(t, "debugfs", "-w", "-R", link, image)
		tree := openTree(t, image, "")
		root, err := tree.Lookup("/", false)
		if err != nil {
			t.Fatal(err)
		}
		err = tree.Walk(t.Context(), &root, func(*Stat) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), image) {
			t.Errorf("%s: error is %v, not %s", link, err, want)
		}
	}

	// In the EFI system partition /loader becomes /EFI: in the root's entries of 32
	// bytes the cluster's number is at 26.
	s := testSpec(t)
	s.Boot = testBoot(t, 1000, 2000)
	image := build(t, s)
	b, err := os.ReadFile(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	efi, loader := bytes.Index(b, []byte("EFI        \x10")), bytes.Index(b, []byte("LOADER     \x10"))
	if efi < 0 || loader < 0 {
		t.Fatal("the root of the FAT is not where it was thought to be")
	}
	copy(b[loader+26:][:2], b[efi+26:])
	if err := os.WriteFile(image.Path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	tree := openTree(t, image.Path, BootPartitionName)
	root, err := tree.Lookup("/", false)
	if err != nil {
		t.Fatal(err)
	}
	err = tree.Walk(t.Context(), &root, func(*Stat) error { return nil })
	if err == nil || !strings.Contains(err.Error(), `the same directory is at "/EFI" too`) {
		t.Errorf("error is %v", err)
	}
}

// TestReaderCircle reads a FAT whose clusters follow each other in a circle.
func TestReaderCircle(t *testing.T) {
	s := testSpec(t)
	s.Boot = testBoot(t, 1<<20, 2000)
	image := build(t, s)
	r, err := Open(image.Path)
	if err != nil {
		t.Fatal(err)
	}
	p := r.Partitions[1]
	r.Close()
	f, err := os.OpenFile(image.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var reserved [2]byte
	if _, err := f.ReadAt(reserved[:], p.Start+14); err != nil {
		t.Fatal(err)
	}
	table := p.Start + int64(binary.LittleEndian.Uint16(reserved[:]))*sectorSize
	for _, c := range []struct {
		cluster, to uint32
		want        string
	}{
		{1000, 900, "comes after two others"},
		{60000, 60000, "in a circle"},
		{60000, 1 << 27, "cluster 60000 leads to"},
	} {
		var was [4]byte
		if _, err := f.ReadAt(was[:], table+int64(c.cluster)*4); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(binary.LittleEndian.AppendUint32(nil, c.to), table+int64(c.cluster)*4); err != nil {
			t.Fatal(err)
		}
		r, err := Open(image.Path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Tree(BootPartitionName); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, not %s", err, c.want)
		}
		r.Close()
		if _, err := f.WriteAt(was[:], table+int64(c.cluster)*4); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzOpen changes bytes of an image that boots, where there are any, and reads
// all of what is left: that ends, without a panic, and in little memory.
func FuzzOpen(f *testing.F) {
	s := Spec{Boot: testBoot(f, 3000, 5000), Containers: []Container{container("c", tarOf(f,
		"dir /", "dir a", "dir a/b", "file a/b/f text", "hard a/g a/b/f", "link l a/b", "link long "+strings.Repeat("x", 100), "file h "+strings.Repeat("\x00", 20000)+"x"))}}
	many := rootfs(f, map[string]string{"a/" + strings.Repeat("n", 250): "1", "a/" + strings.Repeat("m", 250): "2", "b": strings.Repeat(strings.Repeat("\x00", 4096)+strings.Repeat("x", 4096), 8)})
	s.Containers = append(s.Containers, container("d", many))
	image := build(f, s)
	whole, err := os.ReadFile(image.Path)
	if err != nil {
		f.Fatal(err)
	}
	// Only the sectors that hold something, so that a change hits.
	var sectors []int64
	for at := int64(0); at < int64(len(whole)); at += sectorSize {
		if bytes.Trim(whole[at:at+sectorSize], "\x00") != nil {
			sectors = append(sectors, at)
		}
	}
	f.Add([]byte{})
	f.Add([]byte("abcdefghij"))
	for i := range len(sectors) {
		f.Add([]byte{byte(i >> 8), byte(i), 1, 8, 0xff})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "disk.img")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := out.Truncate(int64(len(whole))); err != nil {
			t.Fatal(err)
		}
		for _, at := range sectors {
			if _, err := out.WriteAt(whole[at:at+sectorSize], at); err != nil {
				t.Fatal(err)
			}
		}
		for ; len(b) >= 5; b = b[5:] { // sector, offset in it, value
			at := sectors[(int(b[0])<<8|int(b[1]))%len(sectors)] + int64(int(b[2])<<8|int(b[3]))%sectorSize
			if _, err := out.WriteAt(b[4:5], at); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Open(path)
		if err != nil {
			return
		}
		defer r.Close()
		for _, p := range r.Partitions {
			tree, err := r.Tree(fmt.Sprint(p.Number))
			if err != nil {
				continue
			}
			tree.Usage()
			root, err := tree.Lookup("/", false)
			if err != nil {
				continue
			}
			paths := 0
			_ = tree.Walk(t.Context(), &root, func(s *Stat) error {
				if paths++; paths > 1000 {
					t.Fatal("there is no end of paths")
				}
				_, _ = tree.Xattrs(s)
				_, _ = tree.Lookup(s.Path, true)
				if s.Type() != TypeRegular {
					return nil
				}
				c, err := tree.Content(s)
				if err != nil {
					return nil
				}
				b := make([]byte, 64<<10)
				for _, at := range []int64{0, c.Size - int64(len(b)), c.Size / 2} {
					if n, err := c.ReadAt(b, max(at, 0)); n < len(b) && err == nil {
						t.Fatalf("%d bytes at %d without an error", n, at)
					}
				}
				_, _ = io.Copy(io.Discard, io.NewSectionReader(c, 0, min(c.Size, 1<<20)))
				return nil
			})
		}
	})
}
