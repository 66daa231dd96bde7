package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A reader of its own for what the writer wrote, by the same documentation and
// without the writer's code, so that a mistake has to be made twice.

type readFS struct {
	t        testing.TB
	b        []byte
	perGroup uint32 // inodes
}

// readInode is what a file is, as a guest would see it.
type readInode struct {
	ino              uint32
	mode             uint16
	links            uint16
	uid, gid         uint32
	size             int64
	atime, mtime     [2]int64 // seconds, nanoseconds
	ctime            [2]int64
	sectors          uint64
	flags            uint32
	block            []byte
	xattrs           map[string]string
	xattrBlock, refs uint32
}

func readImage(t testing.TB, path string) *readFS {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b) })
	sb := b[1024:]
	return &readFS{t, b, binary.LittleEndian.Uint32(sb[0x28:])}
}

func (r *readFS) blockAt(n uint32) []byte { return r.b[int64(n)*4096:][:4096] }

func (r *readFS) inode(ino uint32) readInode {
	le := binary.LittleEndian
	group := (ino - 1) / r.perGroup
	desc := r.b[4096+32*int(group):]
	table := le.Uint32(desc[8:])
	b := r.b[int64(table)*4096+int64((ino-1)%r.perGroup)*256:][:256]
	stamp := func(at, extra int) [2]int64 {
		x := le.Uint32(b[extra:])
		return [2]int64{int64(int32(le.Uint32(b[at:]))) + int64(x&3)<<32, int64(x >> 2)}
	}
	n := readInode{
		ino:     ino,
		mode:    le.Uint16(b[0:]),
		uid:     uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[0x78:]))<<16,
		gid:     uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16,
		size:    int64(le.Uint32(b[4:])) | int64(le.Uint32(b[0x6c:]))<<32,
		links:   le.Uint16(b[0x1a:]),
		sectors: uint64(le.Uint32(b[0x1c:])) | uint64(le.Uint16(b[0x74:]))<<32,
		flags:   le.Uint32(b[0x20:]),
		block:   b[0x28:0x64],
		atime:   stamp(0x08, 0x8c), ctime: stamp(0x0c, 0x84), mtime: stamp(0x10, 0x88),
		xattrs:     make(map[string]string),
		xattrBlock: le.Uint32(b[0x68:]),
	}
	if body := b[128+le.Uint16(b[0x80:]):]; le.Uint32(body) == 0xea020000 {
		n.readXattrs(body[4:], body[4:])
	}
	if n.xattrBlock != 0 {
		block := r.blockAt(n.xattrBlock)
		n.refs = le.Uint32(block[4:])
		n.readXattrs(block[32:], block)
	}
	return n
}

func (n *readInode) readXattrs(entries, values []byte) {
	le := binary.LittleEndian
	prefix := map[byte]string{1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}
	for p := entries; le.Uint32(p) != 0; p = p[(16+int(p[0])+3)&^3:] {
		name := prefix[p[1]] + string(p[16:16+int(p[0])])
		offset, size := le.Uint16(p[2:]), le.Uint32(p[8:])
		n.xattrs[name] = string(values[offset:][:size])
	}
}

// data is the content of a file, directory or symlink.
func (r *readFS) data(n readInode) []byte {
	if n.mode&0o170000 == 0o120000 && n.size < 60 {
		return n.block[:n.size]
	}
	out := make([]byte, n.size)
	r.extents(n.block, func(logical, physical, length uint32) {
		for i := range length {
			if at := int64(logical+i) * 4096; at < n.size {
				copy(out[at:], r.blockAt(physical+i))
			}
		}
	})
	return out
}

// holds tells whether a file has this content. Holes are not read, so that it may
// be larger than memory.
func (r *readFS) holds(n readInode, want content) bool {
	if n.size != want.size() {
		return false
	}
	next, same := int64(0), true
	r.extents(n.block, func(logical, physical, length uint32) {
		first, end := int64(logical)*4096, int64(logical+length)*4096
		data := r.b[int64(physical)*4096:][:end-first]
		for _, b := range data[min(end, n.size)-first:] {
			same = same && b == 0 // behind the end of the file
		}
		data = data[:min(end, n.size)-first]
		same = same && first >= next && want.equalZeros(next, first) && want.equal(first, data)
		next = end
	})
	return same && want.equalZeros(next, n.size)
}

// device is the number of a device file: major, minor.
func (n readInode) device() [2]int64 {
	word := binary.LittleEndian.Uint32(n.block)
	if word != 0 {
		return [2]int64{int64(word >> 8 & 0xff), int64(word & 0xff)}
	}
	word = binary.LittleEndian.Uint32(n.block[4:])
	return [2]int64{int64(word >> 8 & 0xfff), int64(word&0xff | word>>12&0xfff00)}
}

// extents calls f for every extent below a node, and checks the nodes.
func (r *readFS) extents(node []byte, f func(logical, physical, length uint32)) {
	le := binary.LittleEndian
	if magic := le.Uint16(node); magic != 0xf30a {
		r.t.Fatalf("extent node has magic %#x", magic)
	}
	depth := le.Uint16(node[6:])
	for i := range le.Uint16(node[2:]) {
		e := node[12*(i+1):]
		if depth > 0 {
			r.extents(r.blockAt(le.Uint32(e[4:])), f)
		} else {
			f(le.Uint32(e), le.Uint32(e[8:]), uint32(le.Uint16(e[4:])))
		}
	}
}

// names is what a directory holds, without "." and "..".
func (r *readFS) names(n readInode) map[string]uint32 {
	le := binary.LittleEndian
	names := make(map[string]uint32)
	data := r.data(n)
	for len(data) > 0 {
		for b := data[:4096]; len(b) > 0; {
			ino, length := le.Uint32(b), le.Uint16(b[4:])
			name := string(b[8 : 8+int(b[6])])
			if ino != 0 && name != "." && name != ".." {
				if kind := direntKind(r.inode(ino).mode); kind != b[7] {
					r.t.Fatalf("entry %q is of kind %d, its inode of %d", name, b[7], kind)
				}
				if _, twice := names[name]; twice {
					r.t.Fatalf("entry %q is there twice", name)
				}
				names[name] = ino
			}
			b = b[length:]
		}
		data = data[4096:]
	}
	return names
}

// lookup finds a path.
func (r *readFS) lookup(path string) (readInode, error) {
	n := r.inode(2)
	for _, element := range bytes.Split([]byte(path), []byte("/")) {
		ino, ok := r.names(n)[string(element)]
		if !ok {
			return n, fmt.Errorf("%q is not there", path)
		}
		n = r.inode(ino)
	}
	return n, nil
}
