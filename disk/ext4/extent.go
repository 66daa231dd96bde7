package ext4

import "encoding/binary"

// extent maps blocks of a file to as many blocks of the file system
// (Documentation/filesystems/ext4/ifork.rst, "Extent Tree").
type extent struct {
	logical  uint32
	physical uint32
	length   uint32 // at most maxExtent; more would mean "not written yet"
}

const (
	maxExtent     = 32768
	extentMagic   = 0xf30a
	extentSize    = 12                               // of a header, an extent and an index entry alike
	rootExtents   = 60/extentSize - 1                // that an inode holds
	blockExtents  = (blockSize-4)/extentSize - 1     // that a block holds, with a checksum behind them
	maxFileBlocks = 1<<32 - 1                        // block numbers in a file are 32 bits
	maxFileSize   = int64(maxFileBlocks) * blockSize // 16 TiB
)

// extentTree builds the extent tree of one file while its extents come by, in
// the order of the file. Nodes are written as they fill, so that a file with
// ever so many holes needs one block of memory for each level of its tree.
type extentTree struct {
	out    *output
	seed   uint32     // of the checksums of its nodes
	blocks uint32     // blocks of data and nodes
	levels [][]extent // levels[0] extents, above them the nodes below, as (logical, physical) pairs
}

// reset begins the tree of another file, whose inode has this seed.
func (t *extentTree) reset(seed uint32) {
	t.seed, t.blocks = seed, 0
	for i := range t.levels {
		t.levels[i] = t.levels[i][:0]
	}
}

// add appends an extent, of any length.
func (t *extentTree) add(e extent) error {
	t.blocks += e.length
	if len(t.levels) == 0 {
		t.levels = append(t.levels, nil)
	}
	if n := len(t.levels[0]); n > 0 {
		last := &t.levels[0][n-1]
		if last.logical+last.length == e.logical && last.physical+last.length == e.physical {
			grow := min(e.length, maxExtent-last.length)
			last.length += grow
			e = extent{e.logical + grow, e.physical + grow, e.length - grow}
		}
	}
	for e.length > 0 {
		n := min(e.length, maxExtent)
		if err := t.push(0, extent{e.logical, e.physical, n}); err != nil {
			return err
		}
		e = extent{e.logical + n, e.physical + n, e.length - n}
	}
	return nil
}

// push adds an entry to a level. A level that is full goes out as a node first,
// which becomes an entry one level higher.
func (t *extentTree) push(level int, e extent) error {
	if level == len(t.levels) {
		t.levels = append(t.levels, nil)
	}
	if len(t.levels[level]) == blockExtents {
		if err := t.flush(level); err != nil {
			return err
		}
	}
	t.levels[level] = append(t.levels[level], e)
	return nil
}

// flush writes a level's entries as a node.
func (t *extentTree) flush(level int) error {
	node := make([]byte, blockSize)
	end := extentSize * (1 + blockExtents)
	encodeExtents(node[:end], t.levels[level], level)
	binary.LittleEndian.PutUint32(node[end:], checksum(t.seed, node[:end]))
	block, err := t.out.append(node)
	if err != nil {
		return err
	}
	t.blocks++
	first := t.levels[level][0].logical
	t.levels[level] = t.levels[level][:0]
	return t.push(level+1, extent{logical: first, physical: block})
}

// finish writes what is left and puts the tree's root into an inode.
func (t *extentTree) finish(n *inode) error {
	level := 0
	for ; level < len(t.levels); level++ {
		higher := level+1 < len(t.levels) && len(t.levels[level+1]) > 0
		if !higher && len(t.levels[level]) <= rootExtents {
			break
		}
		if err := t.flush(level); err != nil {
			return err
		}
	}
	var root []extent
	if level < len(t.levels) {
		root = t.levels[level]
	}
	encodeExtents(n.block[:], root, level)
	n.flags |= flagExtents
	n.blocks = t.blocks
	return nil
}

// encodeExtents writes a node: header and entries. Above depth 0 the entries are
// index entries, which point to nodes.
func encodeExtents(b []byte, entries []extent, depth int) {
	le := binary.LittleEndian
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], uint16(len(entries)))
	le.PutUint16(b[4:], uint16(len(b)/extentSize-1))
	le.PutUint16(b[6:], uint16(depth))
	for i, e := range entries {
		p := b[extentSize*(i+1):]
		le.PutUint32(p[0:], e.logical)
		if depth == 0 {
			le.PutUint16(p[4:], uint16(e.length))
			le.PutUint32(p[8:], e.physical)
		} else {
			le.PutUint32(p[4:], e.physical)
		}
	}
}
