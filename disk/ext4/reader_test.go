package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// readAll reads all there is to read of a file system, as far as it goes, and
// tells in how many files.
func readAll(t *testing.T, b []byte) (files int) {
	fsys, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return 0
	}
	// Not a walk from the root, so that one wrong inode hides nothing.
	for ino := uint32(1); ino <= min(fsys.Super.Inodes, 2000); ino++ {
		n, err := fsys.Node(ino)
		if err != nil || n.Mode == 0 {
			continue
		}
		files++
		_, _ = fsys.Xattrs(n)
		_, _ = fsys.ReadLink(n)
		if names, err := fsys.ReadDir(n); err == nil {
			for _, name := range names {
				if name.Name == "" || name.Name == "." || name.Name == ".." || strings.ContainsAny(name.Name, "/\x00") {
					t.Errorf("inode %d has a name %q", ino, name.Name)
				}
			}
		}
		c, err := fsys.Content(n)
		if err != nil {
			continue
		}
		block := make([]byte, 3*fsys.Super.BlockSize)
		for _, at := range []int64{0, 1, c.Size() / 3, c.Size() - 100, c.Size()} {
			got, err := c.ReadAt(block, max(at, 0))
			if want := min(int64(len(block)), max(0, c.Size()-max(at, 0))); err == nil && int64(got) != int64(len(block)) || errors.Is(err, io.EOF) && int64(got) != want {
				t.Errorf("inode %d: %d bytes at %d of %d, error %v", ino, got, at, c.Size(), err)
			}
			if end, _, err := c.Hole(max(at, 0)); err == nil && at < c.Size() && end <= at {
				t.Errorf("inode %d: the piece at %d ends at %d", ino, at, end)
			}
		}
	}
	return files
}

// FuzzReader changes bytes of two file systems, where there are any: of one of
// ours with everything odd, and of one with block maps. Reading what is left ends,
// without a panic.
func FuzzReader(f *testing.F) {
	w, finish := newFS(f)
	zoo(f, w)
	ours, err := os.ReadFile(finish(0))
	if err != nil {
		f.Fatal(err)
	}
	dir, image := f.TempDir(), filepath.Join(f.TempDir(), "ext2")
	if err := os.WriteFile(filepath.Join(dir, "large"), bytes.Repeat([]byte("large"), 70_000), 0o644); err != nil {
		f.Fatal(err)
	}
	if err := os.Symlink(strings.Repeat("x", 200), filepath.Join(dir, "link")); err != nil {
		f.Fatal(err)
	}
	if out, err := tool(f, "mke2fs", "-q", "-F", "-t", "ext2", "-b", "1024", "-d", dir, image, "2M"); err != nil {
		f.Fatalf("mke2fs: %v\n%s", err, out)
	}
	mapped, err := os.ReadFile(image)
	if err != nil {
		f.Fatal(err)
	}
	bases := [][]byte{ours, mapped}
	const piece = 128
	var pieces [2][]int
	for i, b := range bases {
		for at := 0; at < len(b); at += piece {
			// Data repeats, and nothing of it leads anywhere.
			if p := b[at : at+piece]; bytes.Count(p, p[:1]) < piece && !bytes.HasPrefix(p, []byte("largelarge")) {
				pieces[i] = append(pieces[i], at)
			}
		}
	}
	f.Add([]byte{0})
	f.Add([]byte{1})
	for which := range byte(2) {
		for i := range min(len(pieces[which]), 300) {
			f.Add([]byte{which, byte(i), byte(i >> 8), byte(i * 7), 0xff, 0, 0, 4, 1})
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		which := int(b[0]) % 2
		changed := bytes.Clone(bases[which])
		edits := b[1:]
		for e := edits; len(e) >= 4; e = e[4:] { // piece, offset in it, value
			at := pieces[which][int(binary.LittleEndian.Uint16(e))%len(pieces[which])]
			changed[at+int(e[2])%piece] = e[3]
		}
		if files := readAll(t, changed); len(edits) < 4 && files < 4 {
			t.Errorf("%d files in image %d", files, which)
		}
	})
}

// TestReaderLies are trees that were made up to be read without end.
func TestReaderLies(t *testing.T) {
	w, finish := newFS(t)
	zoo(t, w)
	b, err := os.ReadFile(finish(0))
	if err != nil {
		t.Fatal(err)
	}
	fsys, err := NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	node := func(depth uint16, entries ...[3]uint32) (n *Node) {
		n = &Node{Ino: 99, Mode: modeRegular, Size: 1 << 40, flags: flagExtents}
		le.PutUint16(n.block[0:], extentMagic)
		le.PutUint16(n.block[2:], uint16(len(entries)))
		le.PutUint16(n.block[6:], depth)
		for i, e := range entries {
			for j, v := range e {
				le.PutUint32(n.block[12+12*i+4*j:], v)
			}
		}
		return n
	}
	for _, c := range []struct {
		n    *Node
		want string
	}{
		{node(0, [3]uint32{0, 8, 1 << 30}), "outside of the file system"},
		{node(0, [3]uint32{0, 8, 0}), "extent at block 0"},
		{node(1, [3]uint32{0, 1 << 30, 0}), "outside of the file system"},
		{node(1, [3]uint32{0, 1, 0}), "extent tree has a node with magic"},
		{node(6, [3]uint32{0, 1, 0}), "depth 6"},
		{node(0, make([][3]uint32, 4)[:4]...), "extent at block 0"},
		{&Node{Ino: 99, Mode: modeRegular, Size: 1 << 40, block: [60]byte{3: 0xff}}, "outside of the file system"},
	} {
		content, err := fsys.Content(c.n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := content.ReadAt(make([]byte, 10), 0); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "inode 99") {
			t.Errorf("error is %v, not %s", err, c.want)
		}
	}
	for _, c := range []struct {
		offset int
		value  uint32
		want   string
	}{
		{0x38, 0, "magic number"},
		{0x18, 1 << 31, "blocks of 2^2147483658 bytes"},
		{0x04, 1 << 31, "the image is cut off"},
		{0x28, 0, "0 inodes in a group"},
		{0x58, 100, "inodes of 100 bytes"},
		{0x60, 0x10, "the features 0x10 are not known"},
		{0x60, 0x4, "e2fsck -p on a copy"},
		{0x60, 0x82, "group descriptors of 0 bytes"},
	} {
		lie := bytes.Clone(b)
		le.PutUint32(lie[superOffset+c.offset:], c.value)
		if _, err := NewReader(bytes.NewReader(lie), int64(len(lie))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error is %v, not %s", err, c.want)
		}
	}
}
