package ext4

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// A directory of more than one block is a tree by the hashes of its names
// (Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories"): the
// first block is the root, whose entries point to leaves or to nodes that point
// to leaves; leaves are ordinary directory blocks. A kernel that knows nothing
// of it sees a directory with some empty blocks.
const (
	hashHalfMD4 = 1

	rootHead    = 32 // bytes before the entries of the root
	nodeHead    = 8
	rootEntries = (blockSize - rootHead - indexTail) / 8
	nodeEntries = (blockSize - nodeHead - indexTail) / 8
)

// hashed is a directory entry in the order of the tree.
type hashed struct {
	hash, minor uint32
	dirent
}

// leaf is a block of entries: the hashes in it are hash or more, and less than
// the next leaf's, except that names with one and the same hash may go on in the
// next leaf, whose hash then is odd.
type leaf struct{ hash, block uint32 }

// writeHashed writes the blocks of a hashed directory: root, nodes, leaves.
func (w *Writer) writeHashed(blocks *dirBlocks, d *directory, dots []dirent) error {
	list := make([]hashed, 0, len(d.entries))
	for name, ino := range d.entries {
		hash, minor := w.opt.hashName(name)
		list = append(list, hashed{hash, minor, w.dirent(name, ino)})
	}
	slices.SortFunc(list, func(a, b hashed) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.minor, b.minor), strings.Compare(a.name, b.name))
	})

	leaves := splitLeaves(list)
	first := uint32(1) // of the leaves' blocks
	nodes := 0
	if len(leaves) > rootEntries {
		nodes = (len(leaves) + nodeEntries - 1) / nodeEntries
		first += uint32(nodes)
	}
	if nodes > rootEntries {
		return fmt.Errorf("more names than a directory can hold")
	}
	index := make([]leaf, len(leaves))
	for i, l := range leaves {
		index[i] = leaf{l.hash, first + uint32(i)}
	}

	root := make([]byte, blockSize)
	dots[0].encode(root, dots[0].size())
	dots[1].encode(root[dots[0].size():], blockSize-dots[0].size())
	root[28] = hashHalfMD4
	root[29] = 8 // length of this information
	if nodes == 0 {
		encodeIndex(root, rootHead, index, blocks.seed)
	} else {
		root[30] = 1 // levels between root and leaves
		var upper []leaf
		for i := range nodes {
			upper = append(upper, leaf{index[i*nodeEntries].hash, uint32(1 + i)})
		}
		encodeIndex(root, rootHead, upper, blocks.seed)
	}
	if err := blocks.append(root); err != nil {
		return err
	}
	if nodes > 0 {
		for part := range slices.Chunk(index, nodeEntries) {
			node := make([]byte, blockSize)
			dirent{}.encode(node, blockSize)
			encodeIndex(node, nodeHead, part, blocks.seed)
			if err := blocks.append(node); err != nil {
				return err
			}
		}
	}
	for _, l := range leaves {
		w.dirBlock.reset()
		for _, e := range list[l.first:l.end] {
			w.dirBlock.add(e.dirent)
		}
		if err := blocks.append(w.dirBlock.bytes(blocks.seed)); err != nil {
			return err
		}
	}
	return nil
}

// entryRange is the entries of a list that make one leaf.
type entryRange struct {
	first, end int
	hash       uint32
}

// splitLeaves packs sorted entries into as few blocks as they need.
func splitLeaves(list []hashed) []entryRange {
	var leaves []entryRange
	used := direntBlockSize
	for i, e := range list {
		if used+e.size() > direntBlockSize {
			hash := e.hash
			if i > 0 && list[i-1].hash == hash {
				hash |= 1 // goes on from the leaf before
			}
			leaves = append(leaves, entryRange{first: i, hash: hash})
			used = 0
		}
		used += e.size()
		leaves[len(leaves)-1].end = i + 1
	}
	leaves[0].hash = 0
	return leaves
}

// encodeIndex writes index entries behind the head of a block: hash and block.
// The first entry stands for all hashes below the second's, so its hash is the
// place for limit and count. The checksum leaves out the entries not in use, and
// counts the four bytes before and of itself as zero (fs/ext4/namei.c,
// ext4_dx_csum).
func encodeIndex(block []byte, head int, entries []leaf, seed uint32) {
	le := binary.LittleEndian
	b := block[head : blockSize-indexTail]
	for i, e := range entries {
		le.PutUint32(b[8*i:], e.hash)
		le.PutUint32(b[8*i+4:], e.block)
	}
	le.PutUint16(b[0:], uint16(len(b)/8))
	le.PutUint16(b[2:], uint16(len(entries)))
	sum := checksum(seed, block[:head+8*len(entries)], zeros[:indexTail])
	le.PutUint32(block[blockSize-4:], sum)
}

// hashName is the half-MD4 hash of a name with the file system's seed
// (fs/ext4/hash.c, __ext4fs_dirhash), bytes taken as unsigned. hash is even; the
// odd numbers are for leaves that go on.
func (o *Options) hashName(name string) (hash, minor uint32) {
	buf := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if o.HashSeed != [16]byte{} {
		for i := range buf {
			buf[i] = binary.LittleEndian.Uint32(o.HashSeed[4*i:])
		}
	}
	for p := name; len(p) > 0; p = p[min(32, len(p)):] {
		in := hashInput(p)
		halfMD4(&buf, &in)
	}
	hash, minor = buf[1]&^1, buf[2]
	if hash == 0xfffffffe { // means the end of the directory
		hash = 0xfffffffc
	}
	return hash, minor
}

// hashInput is the next 32 bytes of a name as eight words, padded with its
// length.
func hashInput(name string) (in [8]uint32) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	for i := range in {
		in[i] = pad
		for _, c := range []byte(name[min(4*i, len(name)):min(4*i+4, len(name))]) {
			in[i] = in[i]<<8 + uint32(c)
		}
	}
	return in
}

// halfMD4 is the MD4 transformation over half of a block, fewer steps to each
// round.
func halfMD4(buf *[4]uint32, in *[8]uint32) {
	const k2, k3 = 0x5a827999, 0x6ed9eba1
	a, b, c, d := buf[0], buf[1], buf[2], buf[3]
	round := func(f func(x, y, z uint32) uint32, k uint32, order [8]int, shift [4]int) {
		for i, n := range order {
			a = bits.RotateLeft32(a+f(b, c, d)+in[n]+k, shift[i%4])
			a, b, c, d = d, a, b, c
		}
	}
	round(func(x, y, z uint32) uint32 { return z ^ x&(y^z) }, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19})
	round(func(x, y, z uint32) uint32 { return x&y + (x^y)&z }, k2, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13})
	round(func(x, y, z uint32) uint32 { return x ^ y ^ z }, k3, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15})
	buf[0] += a
	buf[1] += b
	buf[2] += c
	buf[3] += d
}
