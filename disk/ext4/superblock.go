package ext4

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// The geometry. Blocks of 4 KiB are the only size that every architecture and
// kernel mounts; groups are as large as one bitmap block can describe
// (Documentation/filesystems/ext4/blockgroup.rst).
const (
	blockSize   = 4096
	groupBlocks = 8 * blockSize // blocks in a group
	groupInodes = 8 * blockSize // inodes in a group, at most
	inodeSize   = 256
	blockInodes = blockSize / inodeSize
	descSize    = 32 // of a group descriptor without the 64bit feature
	blockDescs  = blockSize / descSize

	// maxBlocks is what 32-bit block numbers reach: 16 TiB.
	maxBlocks = 1<<32 - 1
)

// Features, by Documentation/filesystems/ext4/super.rst. All of them are older
// than Linux 3.14, and none needs a journal.
const (
	compatExtAttr  = 0x0008 // extended attributes
	compatDirIndex = 0x0020 // hashed directories

	incompatFiletype = 0x0002 // directory entries say the kind of file
	incompatExtents  = 0x0040 // extents in place of block maps
	incompatFlexBG   = 0x0200 // a group's bitmaps and inodes may lie anywhere

	roCompatSparseSuper = 0x0001 // superblock copies in groups 0, 1 and 3^n, 5^n, 7^n
	roCompatLargeFile   = 0x0002 // files of 2 GiB and more
	roCompatHugeFile    = 0x0008 // 48 bits of i_blocks
	roCompatDirNlink    = 0x0020 // a directory may have more than 65000 folders
	roCompatExtraIsize  = 0x0040 // nanoseconds and more in the large inode
	roCompatChecksums   = 0x0400 // metadata_csum
)

// geometry is the shape of the finished file system.
type geometry struct {
	blocks         uint32 // in the file system
	groups         uint32
	inodesPerGroup uint32
	descBlocks     uint32 // blocks of group descriptors behind each superblock
	freeBlocks     uint32
	freeInodes     uint32
}

// tableBlocks is the size of one group's inode table.
func (g geometry) tableBlocks() uint32 { return g.inodesPerGroup / blockInodes }

// headBlocks is what a group begins with: the copies of superblock and
// descriptors, or nothing.
func (g geometry) headBlocks(group int64) int64 {
	if !hasSuper(uint32(group)) {
		return 0
	}
	return 1 + int64(g.descBlocks)
}

// hasSuper tells whether a group begins with a copy of the superblock and the
// group descriptors (sparse_super).
func hasSuper(group uint32) bool {
	if group <= 1 {
		return true
	}
	if group%2 == 0 {
		return false
	}
	for _, p := range []uint32{3, 5, 7} {
		n := group
		for n%p == 0 {
			n /= p
		}
		if n == 1 {
			return true
		}
	}
	return false
}

// encodeSuper gives the superblock as it stands in group
// (Documentation/filesystems/ext4/super.rst).
func (o *Options) encodeSuper(g geometry, group uint32) []byte {
	b := make([]byte, 1024)
	le := binary.LittleEndian
	le.PutUint32(b[0x00:], g.groups*g.inodesPerGroup)
	le.PutUint32(b[0x04:], g.blocks)
	le.PutUint32(b[0x0c:], g.freeBlocks)
	le.PutUint32(b[0x10:], g.freeInodes)
	le.PutUint32(b[0x18:], uint32(bits.TrailingZeros(blockSize))-10) // log2 of the block size in KiB
	le.PutUint32(b[0x1c:], uint32(bits.TrailingZeros(blockSize))-10) // and of the cluster size
	le.PutUint32(b[0x20:], groupBlocks)
	le.PutUint32(b[0x24:], groupBlocks)
	le.PutUint32(b[0x28:], g.inodesPerGroup)
	le.PutUint32(b[0x30:], unix32(o.Epoch)) // written
	le.PutUint16(b[0x36:], 0xffff)          // no check after so many mounts
	le.PutUint16(b[0x38:], 0xef53)          // magic
	le.PutUint16(b[0x3a:], 1)               // state: clean
	le.PutUint16(b[0x3c:], 1)               // on errors: continue
	le.PutUint32(b[0x40:], unix32(o.Epoch)) // checked
	le.PutUint32(b[0x4c:], 1)               // revision: dynamic
	le.PutUint32(b[0x54:], firstInode)
	le.PutUint16(b[0x58:], inodeSize)
	le.PutUint16(b[0x5a:], uint16(group))
	le.PutUint32(b[0x5c:], compatExtAttr|compatDirIndex)
	le.PutUint32(b[0x60:], incompatFiletype|incompatExtents|incompatFlexBG)
	le.PutUint32(b[0x64:], roCompatSparseSuper|roCompatLargeFile|roCompatHugeFile|roCompatDirNlink|roCompatExtraIsize|roCompatChecksums)
	copy(b[0x68:0x78], o.UUID[:])
	copy(b[0x78:0x88], o.Label)
	copy(b[0xec:0xfc], o.HashSeed[:])
	b[0xfc] = hashHalfMD4
	le.PutUint32(b[0x100:], 0x000c)          // mount with user_xattr and acl
	le.PutUint32(b[0x108:], unix32(o.Epoch)) // made
	le.PutUint16(b[0x15c:], extraIsize)      // every inode has so much
	le.PutUint16(b[0x15e:], extraIsize)      // and a new one wants it
	le.PutUint32(b[0x160:], 0x0002)          // directory hashes take bytes as unsigned
	b[0x174] = 4                             // 2^4 groups are one flexible group
	b[0x175] = checksumCRC32C
	le.PutUint32(b[0x3fc:], checksum(^uint32(0), b[:0x3fc]))
	return b
}

// group is what the descriptor of a block group says
// (Documentation/filesystems/ext4/group_descr.rst).
type group struct {
	blockBitmap, inodeBitmap, inodeTable uint32 // blocks
	freeBlocks, freeInodes, dirs         uint16
	unusedInodes                         uint16 // at the end of the table, never yet used
	flags                                uint16
	blockSum, inodeSum                   uint16 // of the bitmaps, the lower half
}

// Flags of a group. A bitmap that is not initialized is made up by whoever reads
// it, and holds nothing but the group's own metadata.
const (
	groupInodeUninit = 0x1 // inode bitmap not initialized, no inode in use
	groupBlockUninit = 0x2 // block bitmap not initialized
	groupZeroed      = 0x4 // unused inodes are zeros: the kernel need not write them
)

// encode writes descriptor number i.
func (d *group) encode(b []byte, i, seed uint32) {
	le := binary.LittleEndian
	le.PutUint32(b[0x00:], d.blockBitmap)
	le.PutUint32(b[0x04:], d.inodeBitmap)
	le.PutUint32(b[0x08:], d.inodeTable)
	le.PutUint16(b[0x0c:], d.freeBlocks)
	le.PutUint16(b[0x0e:], d.freeInodes)
	le.PutUint16(b[0x10:], d.dirs)
	le.PutUint16(b[0x12:], d.flags)
	le.PutUint16(b[0x18:], d.blockSum)
	le.PutUint16(b[0x1a:], d.inodeSum)
	le.PutUint16(b[0x1c:], d.unusedInodes)
	sum := checksum(seed, le.AppendUint32(nil, i), b[:descSize])
	le.PutUint16(b[0x1e:], uint16(sum))
}

// unix32 is a time in the superblock: seconds since 1970, as far as they go.
func unix32(t time.Time) uint32 {
	return uint32(max(0, min(t.Unix(), 1<<32-1)))
}
