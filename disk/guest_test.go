package disk

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

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
	console, listing := bootGuest(t, image.Path)
	if bad := regexp.MustCompile(`(?m)^.*(EXT4-fs (error|warning)|BUG|WARNING|Oops|Call Trace|I/O error).*$`).FindString(console); bad != "" {
		t.Errorf("the kernel complains: %s", bad)
	}
	fsck(t, image.Path)

	want := []string{
		expectedDir(".", 2+2, s.Epoch),
		expectedDir("debian", 2+1, s.Epoch),
		expectedDir("odd", 2+1, s.Epoch),
		expectedFile("debian/config.json", s.Epoch),
		expectedFile("odd/config.json", s.Epoch),
	}
	want = append(want, expected(t, "debian/rootfs", debian)...)
	want = append(want, expected(t, "odd/rootfs", odd)...)
	compareListings(t, listing, want, free)
}

// needE2E leaves out what boots kernels, unless asked for.
func needE2E(t testing.TB) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
}

// compareListings compares what the guest saw, line by line.
func compareListings(t *testing.T, listing string, want []string, free int64) {
	t.Helper()
	lines := strings.Split(listing, "\n")
	var available int64
	if _, err := fmt.Sscanf(lines[0], "available %d", &available); err != nil || available < free {
		t.Errorf("%d bytes were asked for, the guest says %s", free, lines[0])
	}
	if len(lines) < 2 || lines[len(lines)-2] != "end" {
		t.Fatalf("the listing ends after %d lines", len(lines))
	}
	got := lines[1 : len(lines)-2]
	slices.Sort(got)
	slices.Sort(want)
	t.Logf("%d files, %d bytes available", len(got), available)
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

// bootGuest boots the kernel with testdata/guest as init on a disk, and gives
// the console and what was written to the second disk.
func bootGuest(t *testing.T, image string) (console, listing string) {
	t.Helper()
	dir := t.TempDir()
	kernel, modules := debianKernel(t)
	initrd := filepath.Join(dir, "initrd")
	f, err := os.Create(initrd)
	if err != nil {
		t.Fatal(err)
	}
	guest := filepath.Join(dir, "guest")
	cmd := exec.Command("go", "build", "-o", guest, "lab/disk/testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	files := append(slices.Clone(modules), File{Path: "/init", Mode: 0o755, Source: guest}, File{Path: "/mnt", Mode: fs.ModeDir | 0o755})
	if err := WriteInitramfs(f, files); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "listing")
	if err := os.WriteFile(out, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(out, 64<<20); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	var serial bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg", "-machine", "q35", "-m", "512",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 loglevel=7",
		"-drive", "file="+image+",format=raw,if=virtio,cache=unsafe", "-drive", "file="+out+",format=raw,if=virtio,cache=unsafe",
		"-serial", "stdio")
	qemu.Stdout, qemu.Stderr = &serial, &serial
	if err := qemu.Run(); err != nil {
		t.Fatalf("qemu: %v\n%s", err, serial.Bytes())
	}
	if !strings.Contains(serial.String(), "GUEST DONE") {
		t.Fatalf("the guest did not come to its end:\n%s", serial.Bytes())
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return serial.String(), string(bytes.TrimRight(b, "\x00"))
}

// debianKernel unpacks a kernel package: the kernel, and the modules that ext4 on
// virtio-blk takes, in the order to load.
func debianKernel(t *testing.T) (kernel string, modules []File) {
	t.Helper()
	dir := t.TempDir()
	deb := debiantest.Kernel(t)
	tool(t, "dpkg-deb", "-x", deb, dir)
	kernels, _ := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if len(kernels) != 1 {
		t.Fatalf("%s holds %d kernels", deb, len(kernels))
	}

	found := make(map[string]string)
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if name, _, ok := strings.Cut(filepath.Base(path), ".ko"); ok {
			found[strings.ReplaceAll(name, "-", "_")] = path
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	var load func(name string)
	load = func(name string) {
		path, ok := found[name]
		if !ok {
			return // loaded already, or built into the kernel
		}
		delete(found, name)
		data, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(path, ".xz") {
			var r io.Reader
			if r, err = xz.NewReader(bytes.NewReader(data)); err == nil {
				data, err = io.ReadAll(r)
			}
		}
		if err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
		// What a module needs is named in its .modinfo section.
		if _, after, ok := bytes.Cut(data, []byte("\x00depends=")); ok {
			depends, _, _ := bytes.Cut(after, []byte{0})
			for name := range strings.SplitSeq(string(depends), ",") {
				load(strings.ReplaceAll(name, "-", "_"))
			}
		}
		modules = append(modules, File{Path: "/modules/" + name, Mode: 0o644, Data: data})
		fmt.Fprintln(&list, name)
	}
	for _, name := range []string{"crc32c_generic", "ext4", "virtio_pci", "virtio_blk"} {
		load(name)
	}
	modules = append(modules, File{Path: "/modules/order", Mode: 0o644, Data: []byte(list.String())})
	return kernels[0], modules
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
	put(tar.Header{Typeflag: tar.TypeDir, Name: "xattr/dir/", Mode: 0o775, PAXRecords: xattr("system.posix_acl_default", string(acl), "system.posix_acl_access", string(acl))}, nil)
	for i := range 20000 {
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

// seen is one file as the guest should see it.
type seen struct {
	name, link                 string // link: the target of a hard link
	mode, uid, gid             int64
	size, major, minor         int64
	mtime, atime, ctime        time.Time
	links                      int
	inode, content, attributes string
}

func (s seen) String() string {
	stamp := func(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
	return fmt.Sprintf("file %q mode=%o owner=%d:%d size=%d mtime=%s atime=%s ctime=%s links=%d rdev=%d:%d inode=%q content=%q xattrs=%s",
		s.name, s.mode, s.uid, s.gid, s.size, stamp(s.mtime), stamp(s.atime), stamp(s.ctime), s.links, s.major, s.minor, s.inode, s.content, s.attributes)
}

func expectedDir(name string, links int, epoch time.Time) string {
	if name == "." {
		name = "/mnt/containers" // which the walk does not shorten
	}
	return seen{name: name, mode: 0o40755, mtime: epoch, atime: epoch, ctime: epoch, links: links, inode: name, content: "-"}.String()
}

func expectedFile(name string, epoch time.Time) string {
	sum := sha256.Sum256([]byte("{}"))
	return seen{name: name, mode: 0o100644, size: 2, mtime: epoch, atime: epoch, ctime: epoch, links: 1, inode: name, content: hex.EncodeToString(sum[:])}.String()
}

// expected reads a tar into the lines that the guest should write for it.
func expected(t *testing.T, prefix, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := make(map[string]*seen)
	kinds := map[byte]int64{tar.TypeReg: 0o100000, tar.TypeDir: 0o40000, tar.TypeSymlink: 0o120000, tar.TypeChar: 0o20000, tar.TypeBlock: 0o60000, tar.TypeFifo: 0o10000, tar.TypeLink: 0}
	r := tar.NewReader(bufio.NewReaderSize(f, 1<<20))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kind, ok := kinds[h.Typeflag]
		if !ok {
			t.Fatalf("%s is of type %q", h.Name, h.Typeflag)
		}
		s := &seen{name: path.Join(prefix, h.Name), mode: kind | h.Mode, uid: int64(h.Uid), gid: int64(h.Gid), major: h.Devmajor, minor: h.Devminor, mtime: h.ModTime, atime: h.AccessTime, ctime: h.ChangeTime, content: "-"}
		if h.Mode&0o170000 == 0o140000 {
			s.mode = h.Mode
		}
		if s.atime.IsZero() {
			s.atime = s.mtime
		}
		if s.ctime.IsZero() {
			s.ctime = s.mtime
		}
		switch {
		case h.Typeflag == tar.TypeLink:
			s.link = path.Join(prefix, h.Linkname)
		case h.Typeflag == tar.TypeSymlink:
			s.mode, s.size, s.content = 0o120000|h.Mode, int64(len(h.Linkname)), h.Linkname
		case s.mode&0o170000 == 0o100000:
			sum := sha256.New()
			if s.size, err = io.Copy(sum, r); err != nil {
				t.Fatal(err)
			}
			s.content = hex.EncodeToString(sum.Sum(nil))
		}
		var attributes []string
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				attributes = append(attributes, fmt.Sprintf("%q=%x", name, value))
			}
		}
		slices.Sort(attributes)
		s.attributes = strings.Join(attributes, ",")
		files[s.name] = s
	}

	// Hard links are the same file; its inode is called by its first name.
	names := make(map[*seen][]string)
	links := make(map[string]int)
	for name, s := range files {
		target := s
		for target.link != "" {
			target = files[target.link]
		}
		names[target] = append(names[target], name)
		if s.mode&0o170000 == 0o40000 {
			links[name] += 2
			links[path.Dir(name)]++
		}
	}
	var lines []string
	for s, all := range names {
		slices.SortFunc(all, func(a, b string) int { // as a walk comes by
			return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
		})
		for _, name := range all {
			line := *s
			line.name, line.inode, line.links = name, all[0], len(all)
			if n := links[name]; n > 0 {
				line.links = n
			}
			lines = append(lines, line.String())
		}
	}
	return lines
}
