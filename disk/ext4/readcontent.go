package ext4

import (
	"encoding/binary"
	"fmt"
	"io"
	"sort"
)

// Content is the bytes of a file; what was never written reads as zeros. It
// remembers where it read last, so that each goroutine needs its own.
type Content struct {
	fsys *Reader
	node *Node
	last segment
}

// segment is a piece of a file, in blocks of the file: data that lies in one
// piece from block physical on, or zeros, where that is 0.
type segment struct{ first, end, physical int64 }

// Content opens a regular file.
func (fsys *Reader) Content(n *Node) (*Content, error) {
	if n.Mode&modeType != modeRegular {
		return nil, fmt.Errorf("inode %d is not a regular file", n.Ino)
	}
	return fsys.content(n)
}

func (fsys *Reader) content(n *Node) (*Content, error) {
	switch {
	case n.flags&flagEncrypted != 0:
		return nil, fmt.Errorf("inode %d is encrypted", n.Ino)
	case n.flags&flagInline != 0:
		return nil, fmt.Errorf("inode %d keeps its content in itself (inline_data), which is not read here", n.Ino)
	}
	return &Content{fsys: fsys, node: n}, nil
}

// Size is the size of the file in bytes.
func (c *Content) Size() int64 { return c.node.Size }

// Hole tells whether the bytes from off on are zeros of which the disk has
// nothing, and up to which byte, or that of the file's end, it stays so.
func (c *Content) Hole(off int64) (end int64, hole bool, err error) {
	s, err := c.segment(off / c.fsys.Super.BlockSize)
	if err != nil {
		return 0, false, err
	}
	return min(s.end*c.fsys.Super.BlockSize, c.node.Size), s.physical == 0, nil
}

// ReadAt is as io.ReaderAt has it.
func (c *Content) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read inode %d: negative offset", c.node.Ino)
	}
	size := c.fsys.Super.BlockSize
	done := 0
	for done < len(b) {
		at := off + int64(done)
		if at >= c.node.Size {
			return done, io.EOF
		}
		s, err := c.segment(at / size)
		if err != nil {
			return done, err
		}
		part := b[done:]
		part = part[:min(int64(len(part)), s.end*size-at, c.node.Size-at)]
		if s.physical == 0 {
			clear(part)
		} else if err := c.fsys.readAt(part, s.physical*size+at-s.first*size); err != nil {
			return done, fmt.Errorf("read inode %d: %w", c.node.Ino, err)
		}
		done += len(part)
	}
	return done, nil
}

// segment finds the piece of the file that a block is in. It always ends behind
// that block.
func (c *Content) segment(block int64) (segment, error) {
	if block >= c.last.first && block < c.last.end {
		return c.last, nil
	}
	find := c.findMapped
	if c.node.flags&flagExtents != 0 {
		find = c.findExtent
	}
	s, err := find(block)
	if err != nil {
		return s, fmt.Errorf("read inode %d: block %d: %w", c.node.Ino, block, err)
	}
	if s.physical != 0 && s.physical > c.fsys.Super.Blocks-(s.end-s.first) {
		return s, fmt.Errorf("read inode %d: block %d: its data at block %d is outside of the file system", c.node.Ino, block, s.physical)
	}
	c.last = s
	return s, nil
}

const (
	maxDepth      = 5       // of an extent tree: EXT4_MAX_EXTENT_DEPTH
	unwrittenSize = 1 << 15 // lengths above are of extents that nothing was written to
)

// findExtent goes down the extent tree (Documentation/filesystems/ext4/ifork.rst).
// Each node is asked only for what lies before its right neighbour, so that every
// step leads on, whatever the tree is made of.
func (c *Content) findExtent(block int64) (segment, error) {
	le := binary.LittleEndian
	node := c.node.block[:]
	end := int64(1) << 32
	for above := -1; ; {
		entries, depth := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
		if le.Uint16(node) != extentMagic || (entries+1)*extentSize > len(node) || depth > maxDepth || above >= 0 && depth != above-1 {
			return segment{}, fmt.Errorf("extent tree has a node with magic %#x, %d entries and depth %d", le.Uint16(node), entries, depth)
		}
		above = depth
		entry := func(i int) []byte { return node[(i+1)*extentSize:][:extentSize] }
		i := sort.Search(entries, func(i int) bool { return int64(le.Uint32(entry(i))) > block })
		if i < entries {
			end = min(end, int64(le.Uint32(entry(i))))
		}
		if i == 0 {
			return segment{block, end, 0}, nil
		}
		e := entry(i - 1)
		if depth == 0 {
			first, length := int64(le.Uint32(e)), int64(le.Uint16(e[4:]))
			physical := int64(le.Uint32(e[8:])) | int64(le.Uint16(e[6:]))<<32
			if length > unwrittenSize {
				length, physical = length-unwrittenSize, 0
			} else if physical == 0 {
				return segment{}, fmt.Errorf("extent at block 0")
			}
			if block >= first+length {
				return segment{block, end, 0}, nil
			}
			return segment{first, min(first+length, end), physical}, nil
		}
		var err error
		if node, err = c.fsys.readBlock(int64(le.Uint32(e[4:])) | int64(le.Uint16(e[8:]))<<32); err != nil {
			return segment{}, fmt.Errorf("extent tree: %w", err)
		}
	}
}

// findMapped goes through the block map of ext2 and ext3: twelve blocks, then
// blocks of numbers, of numbers of such blocks, and once more
// (Documentation/filesystems/ext4/ifork.rst, "Direct/Indirect Block Addressing").
func (c *Content) findMapped(block int64) (segment, error) {
	const direct = 12
	numbers := c.fsys.Super.BlockSize / 4
	first, span, slot, level := int64(0), int64(1), block, 0
	if block >= direct {
		first, slot = direct, direct
		for level, span = 1, numbers; block >= first+span; {
			if level++; level > 3 {
				return segment{}, fmt.Errorf("block map does not reach so far")
			}
			first, span, slot = first+span, span*numbers, slot+1
		}
	} else {
		first = block
	}
	number := int64(binary.LittleEndian.Uint32(c.node.block[slot*4:]))
	for ; level > 0 && number != 0; level-- {
		b, err := c.fsys.readBlock(number)
		if err != nil {
			return segment{}, fmt.Errorf("block map: %w", err)
		}
		span /= numbers
		slot := (block - first) / span
		first += slot * span
		number = int64(binary.LittleEndian.Uint32(b[slot*4:]))
	}
	return segment{first, first + span, number}, nil
}
