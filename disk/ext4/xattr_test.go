package ext4

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

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

// TestACLForMode: what is on the disk agrees with the mode, as after chmod(2).
func TestACLForMode(t *testing.T) {
	for _, c := range []struct {
		name string
		mode uint16
		wire string
		want string // tags and permissions; empty: no list
	}{
		{"agrees", 0o664, testACL, "1:6 2:4 2:6 4:4 16:6 32:4"},
		{"mask and owner differ", 0o751, testACL, "1:7 2:4 2:6 4:4 16:5 32:1"},
		{"mask without names", 0o640, wireACL([3]uint32{1, 7, noID}, [3]uint32{4, 7, noID}, [3]uint32{16, 7, noID}, [3]uint32{32, 7, noID}), "1:6 4:7 16:4 32:0"},
		{"no more than the mode", 0o640, wireACL([3]uint32{1, 7, noID}, [3]uint32{4, 7, noID}, [3]uint32{32, 7, noID}), ""},
		{"empty", 0o640, wireACL(), ""},
		{"no value", 0o640, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, ok, err := newXattr("system.posix_acl_access", c.wire, modeRegular|c.mode)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for e := []byte(x.value); ok && len(e) > 4; {
				tag := e[4]
				got = append(got, fmt.Sprintf("%d:%d", tag, e[6]))
				if e = e[4:]; tag == aclUser || tag == aclGroup {
					e = e[4:]
				}
			}
			if strings.Join(got, " ") != c.want || ok != (c.want != "") {
				t.Errorf("list is %q, want %q", got, c.want)
			}
		})
	}
}
