package ext4

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLargeDirectory(t *testing.T) {
	w, finish := newFS(t)
	for i := range 100_000 {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d%s", i, strings.Repeat("\xe4n", i%100))}, "")
	}
	image := finish(1 << 20)
	r := readImage(t, image)
	if got := len(r.names(r.inode(2))); got != 100_001 {
		t.Errorf("read back %d names, not 100001", got)
	}
	if out := debugfs(t, image, "htree_dump /"); !strings.Contains(out, "Indirect levels: 1") {
		t.Errorf("the tree has no second level:\n%.500s", out)
	}
}

// TestDeepExtents has a file with 3000 extents, which take two levels of nodes.
func TestDeepExtents(t *testing.T) {
	var c content
	for i := range 3000 {
		c.add(blockSize, byte(i%255)+1)
		c.add(blockSize, 0)
	}
	c.add(1, 0)
	w, finish := newFS(t)
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: c.size()}, c.reader()); err != nil {
		t.Fatal(err)
	}
	r := readImage(t, finish(0))
	n, err := r.lookup("f")
	if err != nil {
		t.Fatal(err)
	}
	if !r.holds(n, c) {
		t.Error("read back something else")
	}
	if depth := n.block[6]; depth != 2 {
		t.Errorf("extent tree has depth %d, not 2", depth)
	}
}

// stampReader is endless data: every block begins with its number in the file.
type stampReader struct{ at int64 }

const stampMagic = "a block of data "

func (r *stampReader) Read(b []byte) (int, error) {
	b = b[:len(b)&^(blockSize-1)]
	clear(b)
	for i := 0; i < len(b); i += blockSize {
		copy(b[i:], stampMagic)
		binary.LittleEndian.PutUint64(b[i+len(stampMagic):], uint64(r.at/blockSize))
		r.at += blockSize
	}
	return len(b), nil
}

// stampFile is a file that remembers where stamped blocks were written, and only
// keeps the others, so that much data needs little room.
type stampFile struct {
	*os.File
	blocks map[uint32]uint32 // number in the file by number on the disk
}

func (f *stampFile) WriteAt(b []byte, off int64) (int, error) {
	rest := b
	for len(rest) >= blockSize && strings.HasPrefix(string(rest[:len(stampMagic)]), stampMagic) {
		f.blocks[uint32(off/blockSize)] = uint32(binary.LittleEndian.Uint64(rest[len(stampMagic):]))
		rest, off = rest[blockSize:], off+blockSize
	}
	if _, err := f.File.WriteAt(rest, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

// TestLargeData streams a file of more than 4 GiB without holes: its extents go
// past the ends of groups, the copies of the superblock and 32 bits.
func TestLargeData(t *testing.T) {
	const size = 4<<30 + 130<<20
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	disk := &stampFile{f, make(map[uint32]uint32, size/blockSize)}
	w, err := NewWriter(disk, 0, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: size}, &stampReader{}); err != nil {
		t.Fatal(err)
	}
	end, err := w.Close(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(end); err != nil {
		t.Fatal(err)
	}
	if out, err := tool(t, "e2fsck", "-f", "-n", f.Name()); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	r := readImage(t, f.Name())
	n, err := r.lookup("f")
	if err != nil {
		t.Fatal(err)
	}
	next := uint32(0)
	r.extents(n.block, func(logical, physical, length uint32) {
		if logical != next {
			t.Fatalf("extent begins at block %d of the file, not %d", logical, next)
		}
		next += length
		for i := range length {
			if at, ok := disk.blocks[physical+i]; !ok || at != logical+i {
				t.Fatalf("block %d of the file is block %d of its data", logical+i, at)
			}
		}
	})
	if n.size != size || next != size/blockSize {
		t.Errorf("file has %d bytes in %d blocks", n.size, next)
	}
}

// TestLargeSparse gives a file of more than 50 GiB with four blocks of data as the
// stream of its bytes, as a tar that knows nothing of holes has it.
func TestLargeSparse(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	var c content
	c.add(20<<30, 0)
	c.add(1, 1)
	c.add(31<<30+7, 0)
	c.add(2*blockSize, 2) // on three blocks
	c.add(1<<30-5, 0)
	var header bytes.Buffer
	h := tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: c.size(), Format: tar.FormatPAX}
	if err := tar.NewWriter(&header).WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	stream := io.MultiReader(&header, c.reader(), bytes.NewReader(make([]byte, 1024+-c.size()&511)))

	w, finish := newFS(t)
	if err := w.AddTar("", stream); err != nil {
		t.Fatal(err)
	}
	r := readImage(t, finish(0))
	n, err := r.lookup("f")
	if err != nil {
		t.Fatal(err)
	}
	if !r.holds(n, c) {
		t.Error("read back something else")
	}
	if n.sectors != 4*blockSize/512 {
		t.Errorf("four blocks of data take %d sectors", n.sectors)
	}
}

// TestMaxLinks gives a file as many names as it may have, and one more.
func TestMaxLinks(t *testing.T) {
	w, finish := newFS(t)
	over, err := NewWriter(discard{}, 0, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []*Writer{w, over} {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "f"}, "")
		for i := range maxLinks - 1 {
			if err := w.Add(&tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: "f"}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := readImage(t, finish(0))
	if n, err := r.lookup("f"); err != nil || n.links != maxLinks {
		t.Errorf("%d links, error %v", n.links, err)
	}
	err = over.Add(&tar.Header{Typeflag: tar.TypeLink, Name: "more", Linkname: "f"}, nil)
	if err == nil || !strings.Contains(err.Error(), `add "more" to ext4: "f" has 65000 names, more is not possible`) {
		t.Errorf("error is %v", err)
	}
}

// TestMaxFolders has the most folders that a directory counts, and one more:
// from then on it counts one link.
func TestMaxFolders(t *testing.T) {
	w, finish := newFS(t)
	for _, n := range []int{maxLinks - 2, maxLinks - 1} {
		for i := range n {
			add(t, w, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("%d/%d", n, i)}, "")
		}
	}
	r := readImage(t, finish(0))
	for name, want := range map[string]uint16{"64998": 65000, "64999": 1} {
		if n, err := r.lookup(name); err != nil || n.links != want {
			t.Errorf("directory of %s folders counts %d links, not %d, error %v", name, n.links, want, err)
		}
	}
}
