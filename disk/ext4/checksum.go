package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

// Metadata checksums (Documentation/filesystems/ext4/checksums.rst): crc32c of
// whatever is protected, begun with a seed that says where it belongs, so that a
// block which strays to another file or file system is found out too.
const (
	checksumCRC32C = 1 // s_checksum_type

	// direntTail is the size of the entry without inode and name that ends a
	// directory block and holds its checksum; direntTailKind is its kind.
	direntTail     = 12
	direntTailKind = 0xde

	indexTail = 8 // behind the last index entry there is room for
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is crc32c over the parts, begun with seed. As in the kernel
// (fs/ext4/ext4.h, ext4_chksum) the register is neither inverted before nor
// after, so that the result is the seed of what follows.
func checksum(seed uint32, parts ...[]byte) uint32 {
	sum := ^seed
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return ^sum
}

// fsSeed is the seed of all checksums in a file system but the superblock's.
func fsSeed(uuid [16]byte) uint32 { return checksum(^uint32(0), uuid[:]) }

// inodeSeed is the seed of the inode and of the blocks that are its own: extent
// tree nodes and directory blocks. The generation is zero.
func inodeSeed(fs, ino uint32) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], ino)
	return checksum(fs, b[:])
}
