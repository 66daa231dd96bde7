package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// A Reader reads an ext2, ext3 or ext4 file system: by block map or by extents,
// with blocks of 1 to 64 KiB, of any writer. It trusts nothing: what points
// outside of the file system, repeats itself or is larger than it can be is an
// error, and no more memory is taken than what is really there needs. Checksums
// are not looked at; e2fsck(8) is for that.
//
// It holds no state but the superblock, so that any number of goroutines may use
// it at once.
type Reader struct {
	Super Super

	r          io.ReaderAt
	bytes      int64 // of the file system
	inodes     uint32
	perGroup   uint32 // inodes in a group
	inodeSize  int64
	descs      int64 // where the group descriptors begin
	descSize   int64
	largeNames bool // directories may be larger than 4 GiB
}

// Super is what the superblock tells of a file system.
type Super struct {
	Label      string
	UUID       [16]byte
	BlockSize  int64
	Blocks     int64
	FreeBlocks int64
	Inodes     uint32
	FreeInodes uint32
	Journal    bool
}

// Features of file systems that others write (Documentation/filesystems/ext4/super.rst).
const (
	compatJournal = 0x0004

	incompatRecover  = 0x0004  // the journal has to be replayed first
	incompat64bit    = 0x0080  // large group descriptors, 48-bit block numbers
	incompatMMP      = 0x0100  // a block that tells of who mounts it
	incompatEAInode  = 0x0400  // attributes may lie in inodes of their own
	incompatCsumSeed = 0x2000  // the checksums' seed is in the superblock
	incompatLargeDir = 0x4000  // directories of 4 GiB and more
	incompatInline   = 0x8000  // small files may lie in their inodes
	incompatEncrypt  = 0x10000 // some files are encrypted
	incompatCasefold = 0x20000 // some directories do not tell case

	incompatRead = incompatFiletype | incompatExtents | incompat64bit | incompatMMP | incompatFlexBG | incompatEAInode |
		incompatCsumSeed | incompatLargeDir | incompatInline | incompatEncrypt | incompatCasefold

	flagEncrypted = 0x00000800
	flagInline    = 0x10000000

	superOffset = 1024
	superMagic  = 0xef53
	smallInode  = 128 // without the fields that ext4 added
)

// IsFileSystem tells whether r begins with a superblock.
func IsFileSystem(r io.ReaderAt) bool {
	var b [2]byte
	_, err := r.ReadAt(b[:], superOffset+0x38)
	return err == nil && binary.LittleEndian.Uint16(b[:]) == superMagic
}

// NewReader looks at the superblock of a file system that begins at the first
// byte of r, in which there is room for size bytes.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, superOffset); err != nil {
		return nil, fmt.Errorf("read ext4 superblock: %w", noEOF(err))
	}
	le := binary.LittleEndian
	if le.Uint16(b[0x38:]) != superMagic {
		return nil, errors.New("read ext4 superblock: its magic number is not there")
	}
	incompat := le.Uint32(b[0x60:])
	if incompat&incompatRecover != 0 {
		return nil, errors.New("read ext4 superblock: its journal has to be replayed first: run e2fsck -p on a copy")
	}
	if unknown := incompat &^ incompatRead; unknown != 0 {
		return nil, fmt.Errorf("read ext4 superblock: the features %#x are not known", unknown)
	}
	logBlock := le.Uint32(b[0x18:])
	if logBlock > 6 {
		return nil, fmt.Errorf("read ext4 superblock: blocks of 2^%d bytes", uint64(logBlock)+10)
	}
	fsys := &Reader{
		r: r,
		Super: Super{
			Label:      string(bytes.TrimRight(b[0x78:0x88], "\x00")),
			UUID:       [16]byte(b[0x68:0x78]),
			BlockSize:  1024 << logBlock,
			Blocks:     int64(le.Uint32(b[0x04:])),
			FreeBlocks: int64(le.Uint32(b[0x0c:])),
			Inodes:     le.Uint32(b[0x00:]),
			FreeInodes: le.Uint32(b[0x10:]),
			Journal:    le.Uint32(b[0x5c:])&compatJournal != 0,
		},
		inodes:     le.Uint32(b[0x00:]),
		perGroup:   le.Uint32(b[0x28:]),
		inodeSize:  smallInode,
		descSize:   descSize,
		largeNames: incompat&incompatLargeDir != 0,
	}
	if le.Uint32(b[0x4c:]) > 0 { // the revision that has sizes
		fsys.inodeSize = int64(le.Uint16(b[0x58:]))
	}
	s := &fsys.Super
	if incompat&incompat64bit != 0 {
		fsys.descSize = int64(le.Uint16(b[0xfe:]))
		s.Blocks |= int64(le.Uint16(b[0x150:])) << 32 // of 32 bits, 16 are used
		s.FreeBlocks |= int64(le.Uint16(b[0x158:])) << 32
	}
	fsys.bytes = s.Blocks * s.BlockSize
	// The descriptors follow the block with the superblock.
	fsys.descs = (superOffset/s.BlockSize + 1) * s.BlockSize
	switch {
	case s.Blocks > math.MaxInt64/s.BlockSize || fsys.bytes > size:
		return nil, fmt.Errorf("read ext4 superblock: a file system of %d blocks of %d bytes, but there are only %d bytes: the image is cut off", s.Blocks, s.BlockSize, size)
	case fsys.inodeSize < smallInode || fsys.inodeSize > s.BlockSize || fsys.inodeSize&(fsys.inodeSize-1) != 0:
		return nil, fmt.Errorf("read ext4 superblock: inodes of %d bytes", fsys.inodeSize)
	case fsys.descSize < descSize || fsys.descSize > s.BlockSize || incompat&incompat64bit != 0 && fsys.descSize < 64:
		return nil, fmt.Errorf("read ext4 superblock: group descriptors of %d bytes", fsys.descSize)
	case fsys.perGroup == 0 || int64(fsys.perGroup) > 8*s.BlockSize:
		return nil, fmt.Errorf("read ext4 superblock: %d inodes in a group", fsys.perGroup)
	}
	return fsys, nil
}

// readAt reads within the file system.
func (fsys *Reader) readAt(b []byte, at int64) error {
	if at < 0 || at > fsys.bytes-int64(len(b)) {
		return fmt.Errorf("byte %d is outside of the file system", at)
	}
	_, err := fsys.r.ReadAt(b, at)
	return noEOF(err)
}

// readBlock reads a block of metadata.
func (fsys *Reader) readBlock(n int64) ([]byte, error) {
	if n <= 0 || n >= fsys.Super.Blocks {
		return nil, fmt.Errorf("block %d is outside of the file system", n)
	}
	b := make([]byte, fsys.Super.BlockSize)
	return b, fsys.readAt(b, n*fsys.Super.BlockSize)
}

// noEOF makes an error of an end that comes too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A Node is an inode: what stat(2) tells of a file.
type Node struct {
	Ino          uint32
	Mode         uint32 // st_mode, type bits and all
	UID, GID     uint32
	Links        uint32
	Size         int64
	Atime        time.Time
	Mtime        time.Time
	Ctime        time.Time
	Major, Minor uint32 // of a device

	flags uint32
	block [60]byte
}

// Root is the root directory.
func (fsys *Reader) Root() (*Node, error) { return fsys.Node(rootInode) }

// Node reads the inode of a number.
func (fsys *Reader) Node(ino uint32) (*Node, error) {
	b, err := fsys.inode(ino)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	n := &Node{
		Ino:   ino,
		Mode:  uint32(le.Uint16(b[0x00:])),
		UID:   uint32(le.Uint16(b[0x02:])) | uint32(le.Uint16(b[0x78:]))<<16,
		GID:   uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16,
		Links: uint32(le.Uint16(b[0x1a:])),
		Size:  int64(le.Uint32(b[0x04:])),
		flags: le.Uint32(b[0x20:]),
		block: [60]byte(b[0x28:0x64]),
	}
	n.Atime, n.Ctime, n.Mtime = inodeTime(b, 0x08, 0x8c), inodeTime(b, 0x0c, 0x84), inodeTime(b, 0x10, 0x88)
	kind := n.Mode & modeType
	if kind == modeRegular || kind == modeDir && fsys.largeNames {
		n.Size |= int64(le.Uint32(b[0x6c:])) << 32
	}
	if n.Size < 0 || n.Size > (maxFileBlocks+1)*fsys.Super.BlockSize {
		return nil, fmt.Errorf("inode %d has a size of %d bytes", ino, uint64(n.Size))
	}
	if kind == modeChar || kind == modeBlock {
		n.Major, n.Minor = n.device()
	}
	return n, nil
}

// inode reads the bytes of an inode, at least 128 of them.
func (fsys *Reader) inode(ino uint32) ([]byte, error) {
	if ino == 0 || ino > fsys.inodes {
		return nil, fmt.Errorf("inode %d is outside of the file system's %d", ino, fsys.inodes)
	}
	group, index := int64((ino-1)/fsys.perGroup), int64((ino-1)%fsys.perGroup)
	desc := make([]byte, fsys.descSize)
	if err := fsys.readAt(desc, fsys.descs+group*fsys.descSize); err != nil {
		return nil, fmt.Errorf("read descriptor of group %d: %w", group, err)
	}
	table := int64(binary.LittleEndian.Uint32(desc[8:]))
	if fsys.descSize >= 64 {
		table |= int64(binary.LittleEndian.Uint32(desc[0x28:])) << 32
	}
	if table <= 0 || table >= fsys.Super.Blocks {
		return nil, fmt.Errorf("read inode %d: the table of group %d is at block %d, outside of the file system", ino, group, table)
	}
	b := make([]byte, fsys.inodeSize)
	if err := fsys.readAt(b, table*fsys.Super.BlockSize+index*fsys.inodeSize); err != nil {
		return nil, fmt.Errorf("read inode %d: %w", ino, err)
	}
	return b, nil
}

// extraSize is how much of a large inode, behind its first 128 bytes, its fields
// take (i_extra_isize).
func extraSize(b []byte) int {
	if len(b) < smallInode+4 {
		return 0
	}
	return int(binary.LittleEndian.Uint16(b[smallInode:]))
}

// inodeTime reads a time: see timestamp.
func inodeTime(b []byte, seconds, extra int) time.Time {
	sec, more := int64(int32(binary.LittleEndian.Uint32(b[seconds:]))), uint32(0)
	if end := extra + 4; end <= len(b) && end <= smallInode+extraSize(b) {
		more = binary.LittleEndian.Uint32(b[extra:])
	}
	return time.Unix(sec+int64(more&3)<<32, int64(min(more>>2, 999_999_999))).UTC()
}

// device is what setDevice kept.
func (n *Node) device() (major, minor uint32) {
	le := binary.LittleEndian
	if old := le.Uint32(n.block[0:]); old != 0 {
		return old >> 8 & 0xff, old & 0xff
	}
	word := le.Uint32(n.block[4:])
	return word >> 8 & 0xfff, word&0xff | word>>12&0xfff00
}

// A Name is an entry of a directory.
type Name struct {
	Name string // neither "." nor "..", without '/' and zero bytes
	Ino  uint32
}

// maxNames bounds the memory for one directory, at some 50 bytes a name.
const maxNames = 1 << 22

// ReadDir reads the names in a directory, in the order of the disk. A hashed
// directory reads like any other: its index hides in entries without an inode
// (Documentation/filesystems/ext4/directory.rst).
func (fsys *Reader) ReadDir(n *Node) ([]Name, error) {
	if n.Mode&modeType != modeDir {
		return nil, fmt.Errorf("inode %d is not a directory", n.Ino)
	}
	c, err := fsys.content(n)
	if err != nil {
		return nil, err
	}
	if n.Size > fsys.bytes || n.Size%fsys.Super.BlockSize != 0 {
		return nil, fmt.Errorf("directory %d has a size of %d bytes", n.Ino, n.Size)
	}
	var names []Name
	block := make([]byte, fsys.Super.BlockSize)
	for at := int64(0); at < n.Size; at += fsys.Super.BlockSize {
		if _, hole, err := c.Hole(at); err != nil {
			return nil, err
		} else if hole {
			return nil, fmt.Errorf("directory %d has a hole at byte %d", n.Ino, at)
		}
		if _, err := c.ReadAt(block, at); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if names, err = appendNames(names, block); err != nil {
			return nil, fmt.Errorf("directory %d, byte %d: %w", n.Ino, at, err)
		}
		if len(names) > maxNames {
			return nil, fmt.Errorf("directory %d has more than %d names", n.Ino, maxNames)
		}
	}
	return names, nil
}

func appendNames(names []Name, b []byte) ([]Name, error) {
	le := binary.LittleEndian
	whole := len(b)
	for len(b) > 0 {
		if len(b) < direntSize {
			return nil, fmt.Errorf("an entry of %d bytes", len(b))
		}
		ino, length, size := le.Uint32(b), int(le.Uint16(b[4:])), int(b[6])
		if whole == 1<<16 && (length == 0 || length == 1<<16-1) { // ext4_rec_len_from_disk
			length = 1 << 16
		}
		if length < direntSize || length > len(b) || ino != 0 && direntSize+size > length {
			return nil, fmt.Errorf("an entry of %d bytes with a name of %d, with %d bytes left", length, size, len(b))
		}
		if ino != 0 {
			name := string(b[direntSize : direntSize+size])
			switch {
			case name == "" || strings.ContainsAny(name, "/\x00"):
				return nil, fmt.Errorf("an entry with the name %q", name)
			case name != "." && name != "..":
				names = append(names, Name{name, ino})
			}
		}
		b = b[length:]
	}
	return names, nil
}

// maxTarget bounds a symlink's target: PATH_MAX, and more than any Linux makes.
const maxTarget = 4096

// ReadLink gives the target of a symlink.
func (fsys *Reader) ReadLink(n *Node) (string, error) {
	switch {
	case n.Mode&modeType != modeSymlink:
		return "", fmt.Errorf("inode %d is not a symlink", n.Ino)
	case n.Size > maxTarget:
		return "", fmt.Errorf("symlink %d has a target of %d bytes", n.Ino, n.Size)
	case n.Size < int64(len(n.block)) && n.flags&(flagExtents|flagEncrypted) == 0:
		return string(n.block[:n.Size]), nil
	}
	c, err := fsys.content(n)
	if err != nil {
		return "", err
	}
	b := make([]byte, n.Size)
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(b), nil
}
