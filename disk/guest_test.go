package disk

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lab/lab/corpus/listing"
	"lab/lab/debiantest"
)

// TestGuest boots a distribution's kernel on an image with a whole Debian root
// file system and one of everything odd, and compares each file that the kernel
// sees with the tar streams. Then the kernel writes to it, and e2fsck looks at
// what is left.
//
// LAB_TEST_KERNEL is a Debian package of a kernel, LAB_TEST_ROOTFS a tar of a
// root file system; without them both are fetched with apt and mmdebstrap.
func TestGuest(t *testing.T) {
	needE2E(t)
	const free = 96 << 20
	debian, odd := debiantest.Rootfs(t), oddRootfs(t)
	s := Spec{Free: free, Epoch: time.Unix(1_700_000_000, 123456789)}
	for _, c := range []struct{ name, path string }{{"debian", debian}, {"odd", odd}} {
		s.Containers = append(s.Containers, Container{
			Name:   c.name,
			Digest: c.name,
			Config: []byte("{}"),
			Open:   func(context.Context) (io.ReadCloser, error) { return os.Open(c.path) },
		})
	}
	image := build(t, s)
	fsck(t, image.Path)
	console, seen := debiantest.Guest{Disk: image.Path, Initramfs: guestInitramfs, Args: []string{"change"}}.Boot(t)
	if bad := regexp.MustCompile(`(?m)^.*(EXT4-fs (error|warning)|BUG|WARNING|Oops|Call Trace|I/O error).*$`).FindString(console); bad != "" {
		t.Errorf("the kernel complains: %s", bad)
	}
	fsck(t, image.Path)

	want := []string{
		expectedDir(".", 2+2, s.Epoch),
		expectedDir("debian", 2+1, s.Epoch),
		expectedDir("odd", 2+1, s.Epoch),
		expectedConfig("debian/config.json", s.Epoch),
		expectedConfig("odd/config.json", s.Epoch),
	}
	want = append(want, expected(t, "debian/rootfs", debian)...)
	want = append(want, expected(t, "odd/rootfs", odd)...)
	compareListings(t, seen, want, free)
}

// needE2E leaves out what boots kernels, unless asked for.
func needE2E(t testing.TB) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
}

// compareListings compares what the guest saw, line by line.
func compareListings(t *testing.T, got, want []string, free int64) {
	t.Helper()
	var available int64
	if _, err := fmt.Sscanf(got[0], "available %d", &available); err != nil || available < free {
		t.Errorf("%d bytes were asked for, the guest says %s", free, got[0])
	}
	t.Logf("%d files, %d bytes available", len(got)-1, available)
	compareLines(t, got[1:], want)
}

// compareLines compares two listings, in any order, and shows some of what differs.
func compareLines(t *testing.T, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	differences := 0
	for len(got)+len(want) > 0 && differences < 20 {
		switch {
		case len(want) == 0 || len(got) > 0 && got[0] < want[0]:
			t.Errorf("on the disk: %.1000s", got[0])
			got = got[1:]
		case len(got) == 0 || want[0] < got[0]:
			t.Errorf("in the tar:  %.1000s", want[0])
			want = want[1:]
		default:
			got, want = got[1:], want[1:]
			continue
		}
		differences++
	}
}

// oddRootfs makes a tar of what root file systems hold only now and then.
func oddRootfs(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "odd.tar")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := tar.NewWriter(buffered)
	put := func(h tar.Header, data []byte) {
		t.Helper()
		h.Format = tar.FormatPAX
		h.Size = int64(len(data))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_234_567_890, 987654321)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	xattr := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m["SCHILY.xattr."+pairs[i]] = pairs[i+1]
		}
		return m
	}
	fragments := make([]byte, 4000*4096)
	for i := 0; i < len(fragments); i += 2 * 4096 {
		fragments[i] = byte(i>>13) | 1
	}
	name255 := strings.Repeat("n", 255)
	big := strings.Repeat("v", 3000)
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, 1<<32 - 1}, {2, 4, 1}, {2, 6, 70000}, {4, 4, 1<<32 - 1}, {8, 5, 99999}, {16, 6, 1<<32 - 1}, {32, 4, 1<<32 - 1}} {
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[0]))
		acl = binary.LittleEndian.AppendUint16(acl, uint16(e[1]))
		acl = binary.LittleEndian.AppendUint32(acl, e[2])
	}

	for _, dir := range []string{".", "hard", "xattr", "large", "full", name255} {
		put(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	put(tar.Header{Name: name255 + "/" + name255, Mode: 0o644}, []byte("long"))
	put(tar.Header{Name: "setuid", Mode: 0o4755, Uid: 70000, Gid: 4294967294}, []byte("x"))
	put(tar.Header{Typeflag: tar.TypeDir, Name: "sticky/", Mode: 0o3777, Gid: 65536}, nil)
	put(tar.Header{Name: "before1970", ModTime: time.Unix(-86400*365, 123456789)}, nil)
	put(tar.Header{Name: "first", ModTime: time.Unix(-1<<31, 1)}, nil)
	put(tar.Header{Name: "after2038", ModTime: time.Unix(1<<31, 999999999), AccessTime: time.Unix(1<<32+5, 1), ChangeTime: time.Unix(1<<33, 2)}, nil)
	put(tar.Header{Name: "last", ModTime: time.Unix(5<<31-1, 999999999)}, nil)
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "link59", Linkname: strings.Repeat("l", 59), Mode: 0o777}, nil)
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "link60", Linkname: strings.Repeat("l", 60), Mode: 0o777}, nil)
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "link4095", Linkname: strings.Repeat("l", 4095), Mode: 0o777}, nil)
	put(tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	put(tar.Header{Typeflag: tar.TypeBlock, Name: "block", Mode: 0o600, Devmajor: 4095, Devminor: 1048575}, nil)
	put(tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, nil)
	put(tar.Header{Name: "socket", Mode: 0o140755}, nil)
	put(tar.Header{Name: "hard/target"}, []byte("linked"))
	put(tar.Header{Typeflag: tar.TypeLink, Name: "hard/link", Linkname: "hard/target"}, nil)
	put(tar.Header{Typeflag: tar.TypeLink, Name: "early", Linkname: "late"}, nil)
	put(tar.Header{Name: "late"}, []byte("linked early"))
	put(tar.Header{Name: "sparse"}, append(make([]byte, 8<<20), "end"...))
	put(tar.Header{Name: "fragments"}, fragments)
	put(tar.Header{Name: "xattr/small", PAXRecords: xattr("user.a", "1", "user.empty", "", "trusted.x", "\x00\xff")}, nil)
	put(tar.Header{Name: "xattr/capability", Mode: 0o755, PAXRecords: xattr("security.capability", "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}, nil)
	for i := range 5 {
		put(tar.Header{Name: fmt.Sprint("xattr/shared", i), PAXRecords: xattr("user.big", big, "user.b"+strings.Repeat("i", 200), "y", "security.x", fmt.Sprint(i))}, nil)
	}
	put(tar.Header{Name: "xattr/acl", Mode: 0o664, PAXRecords: xattr("system.posix_acl_access", string(acl))}, nil)
	put(tar.Header{Typeflag: tar.TypeDir, Name: "xattr/dir/", Mode: 0o664, PAXRecords: xattr("system.posix_acl_default", string(acl), "system.posix_acl_access", string(acl))}, nil)
	for i := range 40_000 { // an index of two levels; each found by its name: the kernel lists, then looks up
		put(tar.Header{Name: fmt.Sprintf("large/%d-%s", i, strings.Repeat("\xc3\xa4", i%100))}, nil)
	}
	for i := range 30 {
		put(tar.Header{Name: fmt.Sprintf("full/%d-%s", i, strings.Repeat("x", 120))}, []byte{byte(i)})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func expectedDir(name string, links uint32, epoch time.Time) string {
	at := stamp(epoch)
	return listing.File{Name: name, Mode: 0o40755, Mtime: at, Atime: at, Ctime: at, Links: links, Inode: name, Content: "-"}.String()
}

func expectedConfig(name string, epoch time.Time) string {
	at := stamp(epoch)
	return listing.File{Name: name, Mode: 0o100644, Size: 2, Mtime: at, Atime: at, Ctime: at, Links: 1, Inode: name, Content: fmt.Sprintf("%x", sha256.Sum256([]byte("{}")))}.String()
}

func stamp(t time.Time) listing.Time { return listing.Time{Sec: t.Unix(), Nsec: int64(t.Nanosecond())} }

// guestInitramfs writes an initramfs for [debiantest.Guest].
func guestInitramfs(w io.Writer, files []debiantest.File) error {
	var list []File
	for _, f := range files {
		list = append(list, File{Path: f.Path, Mode: f.Mode, Data: f.Data, Source: f.Source})
	}
	return WriteInitramfs(w, list)
}

// expected reads a tar into the lines that the guest should write for it.
func expected(t *testing.T, prefix, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files, err := listing.ReadTar(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return listing.Lines(listing.Below(prefix, files))
}
