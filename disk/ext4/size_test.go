package ext4

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// newSized writes a file system of a size that is given, checks it with e2fsck
// and gives the file.
func newSized(t testing.TB, size int64, fill func(*Writer)) (image string, err error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(&stampFile{f, make(map[uint32]uint32)}, 0, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	fill(w)
	if err := w.CloseSize(size); err != nil {
		return "", err
	}
	if info, err := f.Stat(); err != nil || info.Size() > size {
		t.Fatalf("%d bytes were written to a file system of %d, error %v", info.Size(), size, err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := tool(t, "e2fsck", "-f", "-n", f.Name()); err != nil {
		t.Fatalf("e2fsck of %d bytes: %v\n%s", size, err, out)
	}
	return f.Name(), nil
}

// superValue is a number that dumpe2fs -h says.
func superValue(t testing.TB, image, key string) (n int64) {
	t.Helper()
	out, err := tool(t, "dumpe2fs", "-h", image)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(out, "\n"+key+":")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("dumpe2fs says nothing of %s: %v", key, err)
	}
	return n
}

// TestCloseSize ends file systems everywhere around the ends of groups: of those
// with copies of the superblock, whose last blocks may be too few for it, and of
// others.
func TestCloseSize(t *testing.T) {
	for _, c := range []struct {
		blocks int64 // asked for
		want   int64 // of the file system
	}{
		{400, 400}, {1000, 1000}, {12345, 12345},
		{groupBlocks - 1, groupBlocks - 1},
		{groupBlocks, groupBlocks},
		{groupBlocks + 1, groupBlocks}, // the copy takes two
		{groupBlocks + 2, groupBlocks + 2},
		{groupBlocks + 3, groupBlocks + 3},
		{groupBlocks + 300, groupBlocks + 300},
		{2*groupBlocks - 1, 2*groupBlocks - 1},
		{2 * groupBlocks, 2 * groupBlocks},
		{2*groupBlocks + 1, 2*groupBlocks + 1},
		{3*groupBlocks + 1, 3 * groupBlocks},
		{3*groupBlocks + 2, 3*groupBlocks + 2},
		{25*groupBlocks + 7, 25*groupBlocks + 7},
		{300*groupBlocks + 1, 300*groupBlocks + 1},
		{343*groupBlocks + 3, 343 * groupBlocks}, // three of descriptors
		{343*groupBlocks + 4, 343*groupBlocks + 4},
	} {
		image, err := newSized(t, c.blocks*blockSize, func(w *Writer) {
			add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "dir/file"}, "data")
		})
		if err != nil {
			t.Errorf("%d blocks: %v", c.blocks, err)
			continue
		}
		if got := superValue(t, image, "Block count"); got != c.want {
			t.Errorf("asked for %d blocks, not %d but %d are counted", c.blocks, c.want, got)
		}
		free := superValue(t, image, "Free blocks") * blockSize
		if got := superValue(t, image, "Free inodes"); got < minFreeInodes || got < free/inodeRatio {
			t.Errorf("%d blocks: %d inodes are free in %d bytes", c.blocks, got, free)
		}
		r := readImage(t, image)
		checkCopies(t, r)
		if n, err := r.lookup("dir/file"); err != nil || string(r.data(n)) != "data" {
			t.Errorf("%d blocks: the file is lost, error %v", c.blocks, err)
		}
		os.Remove(image)
	}
}

// TestCloseSizeTooSmall: the error names the smallest size, and that is enough.
func TestCloseSizeTooSmall(t *testing.T) {
	for name, fill := range map[string]func(*Writer){
		"nothing": func(*Writer) {},
		"files":   func(w *Writer) { zoo(t, w) },
		"end of group": func(w *Writer) { // bitmaps and tables begin in the next
			h := tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: (groupBlocks - 100) * blockSize}
			if err := w.Add(&h, &stampReader{}); err != nil {
				t.Fatal(err)
			}
		},
		"inodes": func(w *Writer) { // more than two groups can have
			for i := range 70_000 {
				add(t, w, tar.Header{Typeflag: tar.TypeFifo, Name: fmt.Sprintf("%d/%d", i%7, i)}, "")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newSized(t, blockSize, fill)
			var size, need int64
			if err == nil || !errors.Is(err, errFull) {
				t.Fatalf("error is %v", err)
			}
			if _, err := fmt.Sscanf(err.Error(), "write ext4: size of %d bytes is not enough, %d are needed", &size, &need); err != nil || size != blockSize {
				t.Fatalf("error is %v", err)
			}
			if _, err := newSized(t, need, fill); err != nil {
				t.Errorf("what was needed is too little: %v", err)
			}
			if _, err := newSized(t, need-blockSize, fill); !errors.Is(err, errFull) {
				t.Errorf("less than what was needed: %v", err)
			}
			for more := int64(1); more < 20_000; more = more*9 + 1 {
				if _, err := newSized(t, need+more*blockSize, fill); err != nil {
					t.Errorf("%d blocks more than was needed: %v", more, err)
				}
			}
		})
	}
}

func TestCloseSizeErrors(t *testing.T) {
	o := testOptions
	o.MaxSize = 8 << 20
	for size, want := range map[int64]string{
		0:           "size of 0 bytes is not a multiple of 4096",
		-4096:       "not a multiple",
		4<<20 + 512: "size of 4194816 bytes is not a multiple of 4096",
		9 << 20:     "size of 9437184 bytes is more than the 8388608 allowed for",
		4 << 20:     "size of 4194304 bytes is not enough, 6", // and some
	} {
		w, err := NewWriter(discard{}, 0, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 6 << 20}, fillReader(1)); err != nil {
			t.Fatal(err)
		}
		if err := w.CloseSize(size); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d bytes: error is %v, not %s", size, err, want)
		}
		if _, err := w.Close(0); err == nil {
			t.Errorf("%d bytes: Close is content after an error", size)
		}
	}
	w, err := NewWriter(discard{}, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 8<<20 - 64<<10}, fillReader(1)); err != nil {
		t.Fatal(err)
	}
	if err := w.CloseSize(8 << 20); err == nil || !strings.Contains(err.Error(), "size of 8388608 bytes is not enough, nor would be 8388608") {
		t.Errorf("error is %v", err)
	}
}

// TestTebibyte has 1 TiB in a file that takes little of the disk, with an inode
// for each 16 KiB of it.
func TestTebibyte(t *testing.T) {
	const size = 1 << 40
	image, err := newSized(t, size, func(w *Writer) { zoo(t, w) })
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(image, &st); err != nil {
		t.Fatal(err)
	}
	if took := st.Blocks * 512; st.Size != size || took > 12<<20 {
		t.Errorf("file of %d bytes takes %d on the disk", st.Size, took)
	}
	for key, want := range map[string]int64{"Block count": size / blockSize, "Free blocks": size / blockSize * 98 / 100, "Free inodes": size / inodeRatio * 98 / 100} {
		if got := superValue(t, image, key); got < want {
			t.Errorf("%s is %d, less than %d", key, got, want)
		}
	}
}

func TestFreeSpace(t *testing.T) {
	for _, free := range []int64{0, 1, 1 << 20, 100 << 20, 1 << 30, 40 << 30} {
		w, finish := newFS(t)
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "file"}, "data")
		image := finish(free)
		checkCopies(t, readImage(t, image))
		out, err := tool(t, "dumpe2fs", "-h", image)
		if err != nil {
			t.Fatal(err)
		}
		value := func(key string) (n int64) {
			_, after, _ := strings.Cut(out, "\n"+key+":")
			fmt.Sscan(after, &n)
			return n
		}
		// What statfs(2) calls available: without the kernel's own reserve.
		available := value("Free blocks") - min(4096, value("Block count")/50)
		if available*blockSize < free {
			t.Errorf("asked for %d bytes free, %d are", free, available*blockSize)
		}
		if limit := free + free/10 + 4<<20; available*blockSize > limit {
			t.Errorf("asked for %d bytes free, %d are", free, available*blockSize)
		}
		if got := value("Free inodes"); got < 1024 || got < free/inodeRatio {
			t.Errorf("%d inodes are free in %d bytes", got, free)
		}
	}
}

// TestMaxSize fills a file system beyond the size it may have: with data, and
// with the free space asked for.
func TestMaxSize(t *testing.T) {
	o := testOptions
	o.MaxSize = 8 << 20
	w, err := NewWriter(discard{}, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 9 << 20}, fillReader(1))
	if !errors.Is(err, errFull) {
		t.Errorf("adding 9 of 8 MiB: %v", err)
	}
	w, err = NewWriter(discard{}, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(8 << 20); !errors.Is(err, errFull) {
		t.Errorf("8 of 8 MiB free: %v", err)
	}
}

// checkCopies compares the copies of superblock and group descriptors with the
// originals.
func checkCopies(t *testing.T, r *readFS) {
	t.Helper()
	super := bytes.Clone(r.b[1024:2048])
	groups := (int(binary.LittleEndian.Uint32(super[4:])) + groupBlocks - 1) / groupBlocks
	descs := r.b[blockSize:][:groups*descSize]
	for group := 1; group < groups; group++ {
		if !slices.Contains([]int{1, 3, 5, 7, 9, 25, 27, 49, 81, 125}, group) {
			continue
		}
		binary.LittleEndian.PutUint16(super[0x5a:], uint16(group))
		sum := ^crc32.Checksum(super[:0x3fc], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(super[0x3fc:], sum)
		at := r.b[group*groupBlocks*blockSize:]
		if !bytes.Equal(at[:1024], super) || !bytes.Equal(at[blockSize:][:len(descs)], descs) {
			t.Errorf("group %d of %d has no good copy of the superblock", group, groups)
		}
	}
}
