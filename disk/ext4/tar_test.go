package ext4

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{'d'}, int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAddTar(t *testing.T) {
	w, finish := newFS(t)
	one := tarOf(t,
		tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "comment", PAXRecords: map[string]string{"comment": "x"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700, ModTime: time.Unix(5, 0)},
		tar.Header{Name: "/etc/passwd", Size: 5},
		tar.Header{Typeflag: tar.TypeLink, Name: "./etc/link", Linkname: "/etc/passwd"},
		tar.Header{Name: "f", Size: 5000, PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y\x00z"}},
	)
	for _, prefix := range []string{"a/b", "/a/c/"} {
		if err := w.AddTar(prefix, iotest.HalfReader(bytes.NewReader(one))); err != nil {
			t.Fatal(err)
		}
	}
	r := readImage(t, finish(0))
	for _, prefix := range []string{"a/b", "a/c"} {
		root, err := r.lookup(prefix)
		if err != nil || root.mode != modeDir|0o700 || root.mtime[0] != 5 {
			t.Errorf("%s: mode %o, mtime %v, error %v", prefix, root.mode, root.mtime, err)
		}
		n, err := r.lookup(prefix + "/etc/link")
		if err != nil || string(r.data(n)) != "ddddd" || n.links != 2 {
			t.Errorf("%s/etc/link: %q in %d links, error %v", prefix, r.data(n), n.links, err)
		}
		n, err = r.lookup(prefix + "/f")
		if err != nil || n.size != 5000 || n.xattrs["user.x"] != "y\x00z" {
			t.Errorf("%s/f: %d bytes, attributes %q, error %v", prefix, n.size, n.xattrs, err)
		}
	}
}

func TestAddTarErrors(t *testing.T) {
	good := tarOf(t, tar.Header{Name: "f", Size: 5000})
	broken := errors.New("layer 3 is broken")
	for _, c := range []struct {
		name string
		r    io.Reader
		want string
	}{
		{"name leads out", bytes.NewReader(tarOf(t, tar.Header{Name: "../f"})), `"../f" to ext4: path leads out`},
		{"name leads out inside", bytes.NewReader(tarOf(t, tar.Header{Name: "a/../../f"})), "leads out"},
		{"link leads out", bytes.NewReader(tarOf(t, tar.Header{Typeflag: tar.TypeLink, Name: "f", Linkname: "a/.."})), "leads out"},
		{"junk", strings.NewReader(strings.Repeat("junk", 500)), "read tar stream for p: archive/tar: invalid tar header"},
		{"truncated", bytes.NewReader(good[:3000]), `add "p/f" to ext4: read at 2488 of 5000 bytes: unexpected EOF`},
		{"broken", io.MultiReader(bytes.NewReader(good[:3000]), iotest.ErrReader(broken)), "layer 3 is broken"},
		{"broken at its end", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(broken)), "layer 3 is broken"},
	} {
		w, err := NewWriter(discard{}, 0, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.AddTar("p", c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error is %v, not %s", c.name, err, c.want)
		}
	}
}

// FuzzAddTar takes any bytes for a tar stream: an error or a file system that
// e2fsck has nothing to say about.
func FuzzAddTar(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "a", Size: 10}, tar.Header{Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}))
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "d/l", Linkname: "x"}))
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 1}, tar.Header{Name: "x", PAXRecords: xattrRecords("user.x", "y", "system.posix_acl_access", testACL)}))
	f.Add(tarOf(f, tar.Header{Name: strings.Repeat("n", 255), ModTime: time.Unix(-5, 5), Format: tar.FormatPAX}))
	f.Fuzz(func(t *testing.T, stream []byte) {
		w, err := NewWriter(discard{}, 0, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		if err = w.AddTar("p", bytes.NewReader(stream)); err != nil {
			return
		}
		if _, err := w.Close(0); err != nil {
			return
		}
		w, finish := newFS(t)
		if err := w.AddTar("p", bytes.NewReader(stream)); err != nil {
			t.Fatal(err)
		}
		finish(0)
	})
}

// FuzzACL: what is accepted comes out with every entry, in the size that the
// kernel expects for so many (fs/ext4/acl.h, ext4_acl_count).
func FuzzACL(f *testing.F) {
	f.Add([]byte(testACL))
	f.Add([]byte(wireACL()))
	f.Add([]byte(wireACL([3]uint32{1, 7, noID}, [3]uint32{4, 5, noID}, [3]uint32{32, 5, noID})))
	f.Fuzz(func(t *testing.T, wire []byte) {
		disk, err := aclToDisk(wire)
		if err != nil || disk == nil {
			return
		}
		back := binary.LittleEndian.AppendUint32(nil, 2)
		for e := disk[4:]; len(e) > 0; {
			back = append(back, e[:4]...)
			tag := e[0]
			e = e[4:]
			if tag == aclUser || tag == aclGroup {
				back = append(back, e[:4]...)
				e = e[4:]
			} else {
				back = append(back, wire[len(back):][:4]...) // of no meaning
			}
		}
		if !bytes.Equal(back, wire) {
			t.Errorf("%x became %x", wire, disk)
		}
	})
}

func FuzzACLText(f *testing.F) {
	f.Add("user::rw-,user:bin:r--:1,user:70000:rw-,group::r--,mask::rw-,other::r--")
	f.Add("user::rwx\ngroup::r-x\nmask:r-x #effective:r--\nother:---\n")
	f.Fuzz(func(t *testing.T, text string) {
		wire, err := aclFromText(text)
		if err == nil && (len(wire)%8 != 4 || len(wire) > 4+8*(len(text)/2)) {
			t.Errorf("%q became %x", text, wire)
		}
	})
}
