package ext4

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write golden files anew")

// The options of every test's file system.
var testOptions = Options{
	UUID:     [16]byte{0x4c, 0x61, 0x62, 1, 2, 3, 0x44, 5, 0x86, 7, 8, 9, 10, 11, 12, 13},
	Label:    "lab-test",
	HashSeed: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	Epoch:    time.Unix(1_000_000_000, 0),
}

// newFS begins a file system in a file of its own; finish closes it, checks it
// with e2fsck and gives the file.
func newFS(t testing.TB) (w *Writer, finish func(free int64) string) {
	t.Helper()
	return newFSWith(t, testOptions)
}

func newFSWith(t testing.TB, o Options) (w *Writer, finish func(free int64) string) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fs"))
	if err != nil {
		t.Fatal(err)
	}
	w, err = NewWriter(f, 0, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, func(free int64) string {
		t.Helper()
		size, err := w.Close(free)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if out, err := tool(t, "e2fsck", "-f", "-n", f.Name()); err != nil {
			t.Fatalf("e2fsck: %v\n%s", err, out)
		}
		return f.Name()
	}
}

// tool runs a program and returns what it prints.
func tool(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		t.Fatalf("%s not installed: run lab doctor --install", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func debugfs(t testing.TB, image, request string) string {
	t.Helper()
	out, err := tool(t, "debugfs", "-R", request, image)
	if err != nil {
		t.Fatalf("debugfs %s: %v\n%s", request, err, out)
	}
	return out
}

func add(t testing.TB, w *Writer, h tar.Header, data string) {
	t.Helper()
	h.Size = int64(len(data))
	if err := w.Add(&h, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func xattrRecords(pairs ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m["SCHILY.xattr."+pairs[i]] = pairs[i+1]
	}
	return m
}

// wireACL is an access control list as an attribute has it: tag, permissions, id.
func wireACL(entries ...[3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}

const noID = 0xffffffff

var testACL = wireACL([3]uint32{1, 6, noID}, [3]uint32{2, 4, 1}, [3]uint32{2, 6, 70000}, [3]uint32{4, 4, noID}, [3]uint32{16, 6, noID}, [3]uint32{32, 4, noID})

// testACLDisk is what ext4 keeps of testACL.
const testACLDisk = "\x01\x00\x00\x00" + "\x01\x00\x06\x00" + "\x02\x00\x04\x00\x01\x00\x00\x00" + "\x02\x00\x06\x00\x70\x11\x01\x00" + "\x04\x00\x04\x00" + "\x10\x00\x06\x00" + "\x20\x00\x04\x00"

// zoo adds one of everything that is odd.
func zoo(t testing.TB, w *Writer) {
	t.Helper()
	at := time.Unix
	name255 := strings.Repeat("n", 255)
	for _, e := range []struct {
		h    tar.Header
		data string
	}{
		{tar.Header{Name: "implicit/parents/file", Mode: 0o644}, "hello\n"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "implicit/", Mode: 0o2750, Uid: 5, Gid: 6, ModTime: at(7, 8)}, ""},
		{tar.Header{Name: "owner", Mode: 0o4755, Uid: 70000, Gid: 4294967294}, "x"},
		{tar.Header{Name: "before1970", ModTime: at(-86400*365, 123456789)}, ""},
		{tar.Header{Name: "before1901", ModTime: at(-1<<40, 5)}, ""},
		{tar.Header{Name: "after2038", ModTime: at(1<<31+5, 999999999), AccessTime: at(1<<32, 1), ChangeTime: at(9<<30, 2)}, ""},
		{tar.Header{Name: "empty"}, ""},
		{tar.Header{Name: "block"}, strings.Repeat("b", 4096)},
		{tar.Header{Name: "block+1"}, strings.Repeat("b", 4097)},
		{tar.Header{Name: "sparse"}, string(make([]byte, 10*4096)) + "end" + string(make([]byte, 5*4096))},
		{tar.Header{Name: "zeros"}, string(make([]byte, 3<<20))},
		{tar.Header{Name: name255 + "/" + name255}, "long"},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link1", Linkname: "x"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link59", Linkname: strings.Repeat("l", 59)}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link60", Linkname: strings.Repeat("l", 60)}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "link4095", Linkname: strings.Repeat("l", 4095)}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "big", Mode: 0o600, Devmajor: 4095, Devminor: 1048575}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""},
		{tar.Header{Name: "socket", Mode: modeSocket | 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "hard/early", Linkname: "hard/late"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "hard/chain", Linkname: "/hard/early"}, ""},
		{tar.Header{Name: "hard/late"}, "linked"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "hard/after", Linkname: "./hard/late"}, ""},
		{tar.Header{Name: "replaced"}, strings.Repeat("old", 100000)},
		{tar.Header{Name: "replaced"}, "new"},
		{tar.Header{Name: "xattr/small", PAXRecords: xattrRecords("user.a", "1", "user.empty", "")}, ""},
		{tar.Header{Name: "xattr/capability", PAXRecords: xattrRecords("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}, ""},
		{tar.Header{Name: "xattr/large1", PAXRecords: xattrRecords("user.big", strings.Repeat("v", 3000), "trusted.x", "y")}, ""},
		{tar.Header{Name: "xattr/large2", PAXRecords: xattrRecords("user.big", strings.Repeat("v", 3000), "trusted.x", "z")}, ""},
		{tar.Header{Name: "xattr/acl", Mode: 0o664, PAXRecords: xattrRecords("system.posix_acl_access", testACL)}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "xattr/dir", Mode: 0o775, PAXRecords: xattrRecords("system.posix_acl_default", testACL)}, ""},
		{tar.Header{Name: "xattr/mac", PAXRecords: xattrRecords("com.apple.provenance", "dropped")}, ""},
		{tar.Header{Name: "xattr/libarchive", PAXRecords: map[string]string{"LIBARCHIVE.xattr.user.a%20b": "dmFsdWU"}}, ""},
		{tar.Header{Name: "xattr/star", Mode: 0o664, PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-,user:bin:r--:1,user:70000:rw-,group::r--,mask::rw-,other::r--"}}, ""},
	} {
		if e.h.Typeflag == 0 {
			e.h.Typeflag = tar.TypeReg
		}
		if e.h.ModTime.IsZero() {
			e.h.ModTime = at(1_234_567_890, 987654321)
		}
		add(t, w, e.h, e.data)
	}
	for i := range 700 {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("many/%d-%s", i, strings.Repeat("x", i%100)), ModTime: at(1, 1)}, "")
	}
}

func TestZoo(t *testing.T) {
	w, finish := newFS(t)
	zoo(t, w)
	image := finish(8 << 20)
	r := readImage(t, image)
	get := func(path string) readInode {
		t.Helper()
		n, err := r.lookup(path)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	check := func(path, what string, got, want any) {
		t.Helper()
		if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
			t.Errorf("%s: %s is %.100s, not %.100s", path, what, g, w)
		}
	}
	octal := func(n uint16) string { return fmt.Sprintf("%o", n) }

	n := get("implicit")
	check("implicit", "mode", octal(n.mode), "42750")
	check("implicit", "owner", []uint32{n.uid, n.gid}, []uint32{5, 6})
	check("implicit", "mtime", n.mtime, [2]int64{7, 8})
	n = get("implicit/parents")
	check("implicit/parents", "mode", octal(n.mode), "40755")
	check("implicit/parents", "mtime", n.mtime, [2]int64{1_000_000_000, 0})
	check("implicit/parents/file", "data", string(r.data(get("implicit/parents/file"))), "hello\n")
	n = get("owner")
	check("owner", "mode", octal(n.mode), "104755")
	check("owner", "owner", []uint32{n.uid, n.gid}, []uint32{70000, 4294967294})
	check("before1970", "mtime", get("before1970").mtime, [2]int64{-86400 * 365, 123456789})
	check("before1901", "mtime", get("before1901").mtime, [2]int64{-1 << 31, 0})
	n = get("after2038")
	check("after2038", "times", [][2]int64{n.mtime, n.atime, n.ctime}, [][2]int64{{1<<31 + 5, 999999999}, {1 << 32, 1}, {9 << 30, 2}})
	check("block", "sectors", get("block").sectors, 8)
	check("block+1", "sectors", get("block+1").sectors, 16)
	n = get("sparse")
	check("sparse", "size", n.size, 15*4096+3)
	check("sparse", "sectors", n.sectors, 8)
	check("zeros", "sectors", get("zeros").sectors, 0)
	check("link59", "sectors", get("link59").sectors, 0)
	check("link60", "sectors", get("link60").sectors, 8)
	check("link4095", "target", string(r.data(get("link4095"))), strings.Repeat("l", 4095))
	check("socket", "mode", octal(get("socket").mode), "140755")
	n = get("hard/late")
	check("hard/late", "links", n.links, 4)
	for _, name := range []string{"hard/early", "hard/chain", "hard/after"} {
		check(name, "inode", get(name).ino, n.ino)
	}
	check("replaced", "data", string(r.data(get("replaced"))), "new")
	n = get("xattr/small")
	check("xattr/small", "xattrs", n.xattrs, map[string]string{"user.a": "1", "user.empty": ""})
	check("xattr/small", "block", n.xattrBlock, 0)
	one, two := get("xattr/large1"), get("xattr/large2")
	check("xattr/large2", "block", two.xattrBlock, one.xattrBlock)
	check("xattr/large2", "references", two.refs, 2)
	check("xattr/large2", "xattrs", two.xattrs, map[string]string{"user.big": strings.Repeat("v", 3000), "trusted.x": "z"})
	check("xattr/mac", "xattrs", get("xattr/mac").xattrs, map[string]string{})
	check("xattr/libarchive", "xattrs", get("xattr/libarchive").xattrs, map[string]string{"user.a b": "value"})
	acl := get("xattr/acl").xattrs["system.posix_acl_access"]
	check("xattr/acl", "acl", []byte(acl), []byte(testACLDisk))
	check("xattr/star", "acl", get("xattr/star").xattrs["system.posix_acl_access"], acl)
	check("xattr/dir", "acl", get("xattr/dir").xattrs["system.posix_acl_default"], acl)

	// What e2fsprogs makes of it, which shares nothing with us.
	for _, c := range []struct{ request, want string }{
		{"stat null", "Device major/minor number: 01:03"},
		{"stat big", "Device major/minor number: 4095:1048575"},
		{"stat fifo", "Type: FIFO"},
		{"stat socket", "Type: socket"},
		{"stat hard/late", "Links: 4"},
		{"stat link59", `Fast link dest: "` + strings.Repeat("l", 59) + `"`},
		{"stat before1970", ":1d6f3454 -- Wed Jan  1 00:00:00 1969"},
		{"cat implicit/parents/file", "hello\n"},
		{"ea_get xattr/capability security.capability", "security.capability (20) = 01 00 00 02 00 04"},
		{"ea_list xattr/large1", "user.big (3000)"},
		{"htree_dump many", "Hash Version: 1"},
	} {
		if out := debugfs(t, image, c.request); !strings.Contains(out, c.want) {
			t.Errorf("debugfs %s does not say %q:\n%s", c.request, c.want, out)
		}
	}

	checkGolden(t, image)
}

// checkGolden compares the digest of the zoo's bytes with the one on record, so
// that no byte changes unseen. Whoever renews it (-update) must also raise
// formatVersion in lab/disk.
func checkGolden(t *testing.T, image string) {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%x\n", sha256.Sum256(b))
	const golden = "testdata/zoo.sha256"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("file system has digest %snot %s", got, want)
	}
}

func TestZeroOptions(t *testing.T) {
	w, finish := newFSWith(t, Options{})
	add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "file"}, "data")
	finish(0)
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

func TestLargeDirectory(t *testing.T) {
	w, finish := newFS(t)
	for i := range 100_000 {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%d%s", i, strings.Repeat("\xe4n", i%100))}, "")
	}
	for i := range 70_000 {
		add(t, w, tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("dirs/%d", i)}, "")
	}
	image := finish(1 << 20)
	r := readImage(t, image)
	if got := len(r.names(r.inode(2))); got != 100_002 {
		t.Errorf("read back %d names, not 100002", got)
	}
	dirs, err := r.lookup("dirs")
	if err != nil {
		t.Fatal(err)
	}
	if dirs.links != 1 {
		t.Errorf("a directory of 70000 counts %d links, not 1", dirs.links)
	}
	if out := debugfs(t, image, "htree_dump /"); !strings.Contains(out, "Indirect levels: 1") {
		t.Errorf("the tree has no second level:\n%.500s", out)
	}
}

// pattern is a file of alternating blocks of data and zeros.
type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0
		if block := p.at / blockSize; block%2 == 0 {
			b[i] = byte(block%255) + 1
		}
		p.at++
	}
	return len(b), nil
}

// TestDeepExtents has a file with 3000 extents, which take two levels of nodes.
func TestDeepExtents(t *testing.T) {
	const size = 6000*blockSize - 1
	w, finish := newFS(t)
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: size}, &pattern{}); err != nil {
		t.Fatal(err)
	}
	r := readImage(t, finish(0))
	n, err := r.lookup("f")
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	(&pattern{}).Read(want)
	if !bytes.Equal(r.data(n), want) {
		t.Error("read back something else")
	}
	if depth := n.block[6]; depth != 2 {
		t.Errorf("extent tree has depth %d, not 2", depth)
	}
}

// TestLargeFiles crosses the ends of groups, the copies of the superblock and 4
// GiB.
func TestLargeFiles(t *testing.T) {
	w, finish := newFS(t)
	const size = 4<<30 + 5
	tail := io.MultiReader(io.LimitReader(zeroReader{}, size-5), strings.NewReader("tail!"))
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "sparse", Size: size}, tail); err != nil {
		t.Fatal(err)
	}
	const full = 300 << 20
	if err := w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "full", Size: full}, onesReader{}); err != nil {
		t.Fatal(err)
	}
	r := readImage(t, finish(1<<20))
	n, err := r.lookup("sparse")
	if err != nil {
		t.Fatal(err)
	}
	if n.size != size || n.sectors != 8 {
		t.Errorf("sparse file has %d bytes in %d sectors", n.size, n.sectors)
	}
	n, err = r.lookup("full")
	if err != nil {
		t.Fatal(err)
	}
	blocks := uint32(0)
	r.extents(n.block, func(logical, physical, length uint32) {
		if logical != blocks {
			t.Errorf("extent begins at block %d of the file, not %d", logical, blocks)
		}
		for i := range length {
			if r.blockAt(physical + i)[4095] != 1 {
				t.Fatalf("block %d of the file is not its data", logical+i)
			}
		}
		blocks += length
	})
	if blocks != full/blockSize {
		t.Errorf("file has %d blocks, not %d", blocks, full/blockSize)
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

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type onesReader struct{}

func (onesReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 1
	}
	return len(b), nil
}

// TestSharedXattrs has more inodes with the same attributes than one block may
// have references, and takes some of them back.
func TestSharedXattrs(t *testing.T) {
	w, finish := newFS(t)
	records := xattrRecords("user.big", strings.Repeat("v", 2000))
	for i := range 2500 {
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), PAXRecords: records}, "")
	}
	for i := range 2000 { // all of the first block's, and some of the second's
		add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i)}, "")
	}
	r := readImage(t, finish(0))
	blocks := make(map[uint32]uint32)
	for _, ino := range r.names(r.inode(2)) {
		if n := r.inode(ino); n.xattrBlock != 0 {
			blocks[n.xattrBlock] = n.refs
		}
	}
	if got := fmt.Sprint(len(blocks)); got != "2" {
		t.Errorf("attributes are in %s blocks, not 2: %v", got, blocks)
	}
}

func TestErrors(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	for _, c := range []struct {
		name    string
		entries []tar.Header
		want    string
	}{
		{"name", []tar.Header{file("dir/" + strings.Repeat("n", 256))}, "has 256 bytes, at most 255"},
		{"directory name", []tar.Header{file(strings.Repeat("n", 256) + "/f")}, "has 256 bytes, at most 255"},
		{"path", []tar.Header{file(strings.Repeat("n/", 2049))}, "path of more than 4096 bytes"},
		{"zero byte", []tar.Header{file("a\x00b")}, "zero byte"},
		{"parent", []tar.Header{file("a"), file("a/b")}, `add "a/b" to ext4: "a" above it is not a directory`},
		{"root", []tar.Header{file("/")}, "root can only be a directory"},
		{"over directory", []tar.Header{file("a/b"), file("a")}, "already there"},
		{"link to nothing", []tar.Header{{Typeflag: tar.TypeLink, Name: "l", Linkname: "gone"}}, `add "l" to ext4: hard link to "gone", which is not there`},
		{"link to itself", []tar.Header{{Typeflag: tar.TypeLink, Name: "a", Linkname: "b"}, {Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}}, "leads back to itself"},
		{"link to directory", []tar.Header{file("d/f"), {Typeflag: tar.TypeLink, Name: "l", Linkname: "d"}}, "hard link to directory"},
		{"symlink", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: strings.Repeat("x", 4096)}}, "target of 4096 bytes, at most 4095"},
		{"symlink to nothing", []tar.Header{{Typeflag: tar.TypeSymlink, Name: "l"}}, "no target"},
		{"device", []tar.Header{{Typeflag: tar.TypeChar, Name: "d", Devmajor: 4096}}, "device number 4096:0"},
		{"owner", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", Uid: 1<<32 - 1}}, "owner 4294967295:0"},
		{"type", []tar.Header{{Typeflag: 'Z', Name: "f"}}, "unknown type 'Z'"},
		{"size", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", Size: 1 << 60}}, "file of 1152921504606846976 bytes: ext4 holds up to"},
		{"truncated", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", Size: 5}}, "unexpected EOF"},
		{"xattrs", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", PAXRecords: xattrRecords("user.a", strings.Repeat("v", 5000))}}, `add "f" to ext4: extended attributes need 5056 bytes`},
		{"xattr name", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", PAXRecords: xattrRecords("user."+strings.Repeat("n", 256), "")}}, "has 256 bytes, at most 255"},
		{"acl", []tar.Header{{Typeflag: tar.TypeReg, Name: "f", PAXRecords: xattrRecords("system.posix_acl_access", "junk!")}}, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := NewWriter(discard{}, 0, testOptions)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.entries {
				if err == nil {
					err = w.Add(&c.entries[i], strings.NewReader(""))
				}
			}
			if err == nil {
				_, err = w.Close(0)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error is %v, not %s", err, c.want)
			}
			if _, again := w.Close(0); again == nil {
				t.Error("Close is content after an error")
			}
		})
	}
}

func TestMaxLinks(t *testing.T) {
	w, err := NewWriter(discard{}, 0, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "f"}, "")
	for i := range maxLinks {
		err = w.Add(&tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: "f"}, nil)
		if err != nil && i < maxLinks-1 {
			t.Fatal(err)
		}
	}
	if err == nil || !strings.Contains(err.Error(), `"f" has 65000 names`) {
		t.Errorf("error is %v", err)
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
	err = w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Size: 9 << 20}, onesReader{})
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

type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// failing is a disk that is full after some bytes.
type failing struct{ left int }

var errNoSpace = errors.New("no space left")

func (f *failing) WriteAt(b []byte, _ int64) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errNoSpace
	}
	return len(b), nil
}

// TestWriteErrors lets the disk fill up at every write there is.
func TestWriteErrors(t *testing.T) {
	for left := 0; ; left += 64 << 10 {
		w, err := NewWriter(&failing{left}, 0, testOptions)
		if err == nil {
			for i := range 64 {
				if err == nil {
					err = w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Size: 100 << 10}, onesReader{})
				}
			}
		}
		if err == nil {
			_, err = w.Close(1 << 20)
		}
		if err == nil {
			return
		}
		if !errors.Is(err, errNoSpace) {
			t.Fatalf("with room for %d bytes: %v", left, err)
		}
	}
}
