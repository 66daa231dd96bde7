package ext4

import (
	"archive/tar"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestZeroOptions(t *testing.T) {
	w, finish := newFSWith(t, Options{})
	add(t, w, tar.Header{Typeflag: tar.TypeReg, Name: "file"}, "data")
	finish(0)
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
		{"path", []tar.Header{file(strings.Repeat("n/", 4097))}, "path of more than 8192 bytes"},
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

// TestMaxKept: names, and what links wait for, may only take so much memory.
func TestMaxKept(t *testing.T) {
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "d/name"},
		{Typeflag: tar.TypeReg, Name: "directory/f"},
		{Typeflag: tar.TypeLink, Name: "l", Linkname: "target"},
	} {
		w, err := NewWriter(discard{}, 0, testOptions)
		if err != nil {
			t.Fatal(err)
		}
		w.kept = maxKept - 4
		err = w.Add(&h, strings.NewReader(""))
		if err == nil || !strings.Contains(err.Error(), "names are longer than 536870912 bytes, all together") {
			t.Errorf("%s: error is %v", h.Name, err)
		}
	}
}

// TestWriteErrors lets the disk fill up at every write there is.
func TestWriteErrors(t *testing.T) {
	for left := 0; ; left += 64 << 10 {
		w, err := NewWriter(&failing{left}, 0, testOptions)
		if err == nil {
			for i := range 64 {
				if err == nil {
					err = w.Add(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(i), Size: 100 << 10}, fillReader(1))
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
