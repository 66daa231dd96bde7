package ext4

import (
	"encoding/binary"
	"fmt"
	"time"
)

const (
	rootInode  = 2
	firstInode = 11 // the numbers below are the file system's own
	extraIsize = 32 // bytes that an inode uses beyond the first 128

	// maxLinks is EXT4_LINK_MAX: no file has more names. A directory with more
	// folders than that counts one link (dir_nlink).
	maxLinks = 65000
)

// Inode flags (Documentation/filesystems/ext4/inodes.rst).
const (
	flagIndex   = 0x00001000 // a hashed directory
	flagExtents = 0x00080000
)

// The type bits of i_mode, as in inode(7).
const (
	modeType    = 0o170000
	modeSocket  = 0o140000
	modeSymlink = 0o120000
	modeRegular = 0o100000
	modeBlock   = 0o060000
	modeDir     = 0o040000
	modeChar    = 0o020000
	modeFIFO    = 0o010000
)

// inode is an inode as long as the file system is being written: all that ends
// up on the disk, and where the file's blocks are. A mode of zero is an inode
// that is not in use.
type inode struct {
	mode       uint16
	links      uint32
	uid, gid   uint32
	flags      uint32
	size       int64
	blocks     uint32 // of the file system that this inode alone uses
	xattrBlock uint32 // shared, so not among blocks
	atime      timestamp
	ctime      timestamp
	mtime      timestamp
	block      [60]byte   // i_block: extents, a short symlink or a device number
	xattrs     string     // i_extra: attributes kept in the inode, encoded
	span       span       // every block of this inode is in here, and no one else's
	dir        *directory // of a directory
}

// encode writes the inode into its 256 bytes of the inode table
// (Documentation/filesystems/ext4/inodes.rst). seed is that of its number.
func (n *inode) encode(b []byte, crtime timestamp, seed uint32) {
	le := binary.LittleEndian
	links := n.links
	if links > maxLinks {
		links = 1
	}
	sectors := uint64(n.blocks) * (blockSize / 512)
	if n.xattrBlock != 0 {
		sectors += blockSize / 512
	}
	le.PutUint16(b[0x00:], n.mode)
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(n.size))
	le.PutUint32(b[0x08:], n.atime.seconds)
	le.PutUint32(b[0x0c:], n.ctime.seconds)
	le.PutUint32(b[0x10:], n.mtime.seconds)
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], uint16(links))
	le.PutUint32(b[0x1c:], uint32(sectors))
	le.PutUint32(b[0x20:], n.flags)
	copy(b[0x28:0x64], n.block[:])
	le.PutUint32(b[0x68:], n.xattrBlock)
	le.PutUint32(b[0x6c:], uint32(n.size>>32))
	le.PutUint16(b[0x74:], uint16(sectors>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], extraIsize)
	le.PutUint32(b[0x84:], n.ctime.extra)
	le.PutUint32(b[0x88:], n.mtime.extra)
	le.PutUint32(b[0x8c:], n.atime.extra)
	le.PutUint32(b[0x90:], crtime.seconds)
	le.PutUint32(b[0x94:], crtime.extra)
	copy(b[128+extraIsize:], n.xattrs)
	sum := checksum(seed, b) // of the inode with a checksum of zero
	le.PutUint16(b[0x7c:], uint16(sum))
	le.PutUint16(b[0x82:], uint16(sum>>16))
}

// timestamp is a time as an inode keeps it: the low 32 bits of the seconds, and
// a word of nanoseconds << 2 | two more bits of seconds. The low word counts as
// signed, so the two bits are the number of times that 2^32 has to be added
// (Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps").
type timestamp struct{ seconds, extra uint32 }

// newTimestamp takes a time outside of 1901-12-13 to 2310-04-04 to the nearest in
// it, as the kernel does with utimensat(2) and what ext4 cannot hold. ext4 itself
// would go on to 2446, but older kernels wrote times before 1970 like that, and
// e2fsck takes them for such (fs/ext4/ext4.h, ext4_encode_extra_time).
func newTimestamp(t time.Time) timestamp {
	const first, last = -1 << 31, 5<<31 - 1
	sec, nsec := t.Unix(), uint32(t.Nanosecond())
	switch {
	case sec < first:
		sec, nsec = first, 0
	case sec > last:
		sec, nsec = last, 0
	}
	return timestamp{uint32(sec), uint32((sec-int64(int32(sec)))>>32)&3 | nsec<<2}
}

// setDevice keeps a device number as the kernel does: the old 8:8 form in the
// first word when it fits, else 12:20 bits in the second
// (include/linux/kdev_t.h, old_encode_dev and new_encode_dev).
func (n *inode) setDevice(major, minor int64) error {
	le := binary.LittleEndian
	switch {
	case major < 0 || minor < 0 || major >= 1<<12 || minor >= 1<<20:
		return fmt.Errorf("device number %d:%d is larger than Linux's 4095:1048575", major, minor)
	case major < 256 && minor < 256:
		le.PutUint32(n.block[0:], uint32(major<<8|minor))
	default:
		le.PutUint32(n.block[4:], uint32(minor&0xff|major<<8|(minor&^0xff)<<12))
	}
	return nil
}

// inodeTable holds the inodes in pieces, so that they never move: a number and a
// pointer stay good, and growing copies nothing.
type inodeTable struct {
	pieces [][]inode
	last   uint32 // the highest number given out
}

const (
	inodePiece = 1024
	// maxInodes bounds the memory that a stream can ask for, at some 220 bytes
	// for each file. Large images have a million files.
	maxInodes = 1 << 22
)

// add gives out the next number.
func (t *inodeTable) add() (uint32, error) {
	if t.last == maxInodes {
		return 0, fmt.Errorf("more than %d files", maxInodes)
	}
	t.last++
	if int(t.last/inodePiece) == len(t.pieces) {
		t.pieces = append(t.pieces, make([]inode, inodePiece))
	}
	return t.last, nil
}

func (t *inodeTable) get(ino uint32) *inode {
	return &t.pieces[ino/inodePiece][ino%inodePiece]
}
