package ext4

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

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
