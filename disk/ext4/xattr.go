package ext4

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Extended attributes (Documentation/filesystems/ext4/attributes.rst): entries
// grow from the front of an area, values from its end. What fits behind the
// inode's own fields goes there, the rest into one block, which all inodes with
// the same rest share.
const (
	xattrMagic      = 0xea020000
	xattrEntrySize  = 16
	xattrInodeArea  = inodeSize - 128 - extraIsize - 4 // behind the magic number
	xattrHeaderSize = 32                               // of an attribute block
	xattrRefs       = 4                                // offsets in it
	xattrChecksum   = 16
	xattrMaxRefs    = 1024 // inodes that share one block
	xattrMaxName    = 255
)

// Name indexes: the namespace of an attribute, as a number.
const (
	xattrUser       = 1
	xattrACLAccess  = 2
	xattrACLDefault = 3
)

var xattrNamespaces = []struct {
	prefix string
	index  uint8
	whole  bool // prefix is the whole name
}{
	{"user.", xattrUser, false},
	{"system.posix_acl_access", xattrACLAccess, true},
	{"system.posix_acl_default", xattrACLDefault, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

// xattr is one attribute as it is on the disk.
type xattr struct {
	index uint8
	name  string // without the namespace
	value string
}

// size is the space that an attribute takes: entry and value, each rounded up to
// four bytes.
func (x xattr) size() int { return x.entrySize() + round4(len(x.value)) }

func (x xattr) entrySize() int { return xattrEntrySize + round4(len(x.name)) }

func round4(n int) int { return (n + 3) &^ 3 }

// newXattr takes an attribute of a file of that mode by its full name. ok is
// false for one that Linux refuses to set on ext4: in a namespace that it does not
// keep, such as macOS's com.apple.provenance, or on a kind of file that has none
// of these.
func newXattr(name, value string, mode uint16) (x xattr, ok bool, err error) {
	for _, ns := range xattrNamespaces {
		rest, found := strings.CutPrefix(name, ns.prefix)
		if !found || ns.whole != (rest == "") {
			continue
		}
		if !settable(ns.index, mode&modeType) {
			return xattr{}, false, nil
		}
		if len(rest) > xattrMaxName {
			return xattr{}, false, fmt.Errorf("name of extended attribute %.64q… has %d bytes, at most %d are allowed", name, len(rest), xattrMaxName)
		}
		if strings.ContainsRune(rest, 0) {
			return xattr{}, false, fmt.Errorf("name of extended attribute %q holds a zero byte", name)
		}
		if ns.whole {
			disk, err := aclToDisk([]byte(value))
			if err != nil {
				return xattr{}, false, fmt.Errorf("extended attribute %s: %w", name, err)
			}
			if disk != nil && ns.index == xattrACLAccess {
				disk = aclForMode(disk, mode)
			}
			if disk == nil {
				return xattr{}, false, nil
			}
			value = string(disk)
		}
		return xattr{ns.index, rest, value}, true, nil
	}
	return xattr{}, false, nil
}

// settable tells whether a kind of file has attributes of a namespace: user ones
// are for regular files and directories (fs/xattr.c, xattr_permission), access
// lists not for symlinks, default ones for directories (fs/posix_acl.c).
func settable(index uint8, kind uint16) bool {
	switch index {
	case xattrUser:
		return kind == modeRegular || kind == modeDir
	case xattrACLAccess:
		return kind != modeSymlink
	case xattrACLDefault:
		return kind == modeDir
	}
	return true
}

// headerXattrs finds the attributes among the PAX records of a tar header of a
// file of that mode: raw ones (SCHILY.xattr, by GNU tar, star and the OCI image
// spec), libarchive's in base64, and access control lists in text form; the first
// wins. They come out as an attribute block has to hold them: by namespace, length
// of name, name.
func headerXattrs(h *tar.Header, mode uint16) ([]xattr, error) {
	if len(h.PAXRecords) == 0 {
		return nil, nil
	}
	named := make(map[string]string)
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "LIBARCHIVE.xattr."); ok {
			name, err := url.PathUnescape(name)
			if err != nil {
				return nil, fmt.Errorf("read PAX record %s: %w", key, err)
			}
			raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
			if err != nil {
				return nil, fmt.Errorf("read PAX record %s: %w", key, err)
			}
			named[name] = string(raw)
		}
	}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			named[name] = value
		}
	}
	for _, kind := range []string{"access", "default"} {
		name, key := "system.posix_acl_"+kind, "SCHILY.acl."+kind
		text, ok := h.PAXRecords[key]
		if _, raw := named[name]; !ok || raw {
			continue
		}
		raw, err := aclFromText(text)
		if err != nil {
			return nil, fmt.Errorf("read PAX record %s: %w", key, err)
		}
		named[name] = string(raw)
	}

	var list []xattr
	for _, name := range slices.Sorted(maps.Keys(named)) {
		x, ok, err := newXattr(name, named[name], mode)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, x)
		}
	}
	slices.SortFunc(list, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), strings.Compare(a.name, b.name))
	})
	return list, nil
}

// encodeXattrs fills area, whose offsets count from base bytes before it. Hashes
// are only kept in blocks.
func encodeXattrs(area []byte, base int, list []xattr, hashed bool) {
	le := binary.LittleEndian
	end := len(area)
	for p := area; len(list) > 0; list = list[1:] {
		x := list[0]
		p[0] = uint8(len(x.name))
		p[1] = x.index
		if len(x.value) > 0 {
			end -= round4(len(x.value))
			copy(area[end:], x.value)
			le.PutUint16(p[2:], uint16(base+end))
		}
		le.PutUint32(p[8:], uint32(len(x.value)))
		if hashed {
			le.PutUint32(p[12:], x.hash())
		}
		copy(p[xattrEntrySize:], x.name)
		p = p[x.entrySize():]
	}
}

// hash is the hash of an entry, as in fs/ext4/xattr.c, ext4_xattr_hash_entry,
// with the bytes of the name taken as unsigned.
func (x xattr) hash() uint32 {
	var h uint32
	for _, c := range []byte(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(c)
	}
	padded := make([]byte, round4(len(x.value)))
	copy(padded, x.value)
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

// encodeXattrBlock gives an attribute block with one reference and no checksum.
func encodeXattrBlock(list []xattr) []byte {
	le := binary.LittleEndian
	b := make([]byte, blockSize)
	var hash uint32
	for _, x := range list {
		h := x.hash()
		if h == 0 { // the kernel does not share such a block
			hash = 0
			break
		}
		hash = hash<<16 ^ hash>>16 ^ h
	}
	le.PutUint32(b[0:], xattrMagic)
	le.PutUint32(b[xattrRefs:], 1)
	le.PutUint32(b[8:], 1) // blocks
	le.PutUint32(b[12:], hash)
	encodeXattrs(b[xattrHeaderSize:], xattrHeaderSize, list, true)
	return b
}

// xattrBlocks remembers the attribute blocks by content, to share them.
type xattrBlocks struct {
	seed      uint32 // of the checksums
	blocks    []xattrBlock
	byContent map[[sha256.Size]byte]int // index of the block that still has room
	byBlock   map[uint32]int            // index of a block by its number
}

type xattrBlock struct {
	block uint32
	refs  uint32
	sum   uint32 // with one reference
}

// setXattrs gives an inode its attributes.
func (w *Writer) setXattrs(n *inode, list []xattr) error {
	var here, there []xattr
	left := xattrInodeArea - 4 // the list ends with four zero bytes
	size := xattrHeaderSize + 4
	for _, x := range list {
		if x.size() <= left {
			here, left = append(here, x), left-x.size()
		} else {
			there, size = append(there, x), size+x.size()
		}
	}
	if size > blockSize {
		return fmt.Errorf("extended attributes need %d bytes beside the inode, ext4 has one block of %d for them", size, blockSize)
	}
	n.xattrs, n.xattrBlock = "", 0
	if len(here) > 0 {
		b := make([]byte, 4+xattrInodeArea)
		binary.LittleEndian.PutUint32(b, xattrMagic)
		encodeXattrs(b[4:], 0, here, false)
		n.xattrs = string(b)
	}
	if len(there) > 0 {
		var err error
		n.xattrBlock, err = w.xattrs.share(&w.out, encodeXattrBlock(there))
		return err
	}
	return nil
}

// share gives the block with this content, writing it if there is none, with a
// checksum put into content.
func (s *xattrBlocks) share(out *output, content []byte) (uint32, error) {
	sum := sha256.Sum256(content)
	i, ok := s.byContent[sum]
	if ok && s.blocks[i].refs > 0 && s.blocks[i].refs < xattrMaxRefs {
		s.blocks[i].refs++
		return s.blocks[i].block, nil
	}
	block := out.upcoming()
	n := checksum(s.seed, binary.LittleEndian.AppendUint64(nil, uint64(block)), content)
	binary.LittleEndian.PutUint32(content[xattrChecksum:], n)
	if _, err := out.append(content); err != nil {
		return 0, err
	}
	if s.byContent == nil {
		s.byContent, s.byBlock = make(map[[sha256.Size]byte]int), make(map[uint32]int)
	}
	s.byContent[sum], s.byBlock[block] = len(s.blocks), len(s.blocks)
	s.blocks = append(s.blocks, xattrBlock{block, 1, n})
	return block, nil
}

// release takes back one reference.
func (s *xattrBlocks) release(out *output, block uint32) {
	b := &s.blocks[s.byBlock[block]]
	b.refs--
	if b.refs == 0 {
		out.unused = append(out.unused, span{block, block + 1})
	}
}

// finish writes the numbers of references that are not one, and the checksums
// that go with them. A crc is linear: what two blocks differ by has the checksum,
// begun with zero, that their checksums differ by. So no content has to be kept.
func (s *xattrBlocks) finish(out *output) error {
	le := binary.LittleEndian
	for _, b := range s.blocks {
		if b.refs <= 1 {
			continue
		}
		var difference [blockSize]byte
		le.PutUint32(difference[xattrRefs:], 1^b.refs)
		sum := b.sum ^ checksum(0, difference[:])
		start := int64(b.block) * blockSize
		if err := out.writeAt(le.AppendUint32(nil, b.refs), start+xattrRefs); err != nil {
			return err
		}
		if err := out.writeAt(le.AppendUint32(nil, sum), start+xattrChecksum); err != nil {
			return err
		}
	}
	return nil
}
