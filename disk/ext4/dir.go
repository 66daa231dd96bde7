package ext4

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// directory is the names in a directory. An entry is the number of an inode or,
// with pendingLink set, the index of a hard link whose target has not come yet.
type directory struct {
	ino, parent uint32
	entries     map[string]uint32
}

const (
	pendingLink = 1 << 31
	maxName     = 255
	direntSize  = 8 // of a directory entry without its name
)

// dirent is an entry on the way to the disk.
type dirent struct {
	ino  uint32
	kind uint8
	name string
}

// size is what the entry takes (Documentation/filesystems/ext4/directory.rst).
func (d dirent) size() int { return direntSize + round4(len(d.name)) }

// encode writes the entry with the given record length.
func (d dirent) encode(b []byte, length int) {
	binary.LittleEndian.PutUint32(b[0:], d.ino)
	binary.LittleEndian.PutUint16(b[4:], uint16(length))
	b[6] = uint8(len(d.name))
	b[7] = d.kind
	copy(b[8:], d.name)
}

// direntKind is the kind of file in a directory entry, by the type bits of mode.
func direntKind(mode uint16) uint8 {
	switch mode & modeType {
	case modeRegular:
		return 1
	case modeDir:
		return 2
	case modeChar:
		return 3
	case modeBlock:
		return 4
	case modeFIFO:
		return 5
	case modeSocket:
		return 6
	case modeSymlink:
		return 7
	}
	return 0
}

// direntBlockSize is what the entries of a directory block may take.
const direntBlockSize = blockSize - direntTail

// direntBlock fills one directory block. The last entry reaches to the tail.
type direntBlock struct {
	b    [blockSize]byte
	used int
	last int // offset of the last entry
}

func (d *direntBlock) reset() { *d = direntBlock{} }

// add puts an entry behind the others. Whoever calls it has made sure that
// there is room.
func (d *direntBlock) add(e dirent) {
	e.encode(d.b[d.used:], e.size())
	d.last, d.used = d.used, d.used+e.size()
}

// bytes is the finished block, for the directory whose inode has this seed.
func (d *direntBlock) bytes(seed uint32) []byte {
	binary.LittleEndian.PutUint16(d.b[d.last+4:], uint16(direntBlockSize-d.last))
	tail := d.b[direntBlockSize:]
	dirent{kind: direntTailKind}.encode(tail, direntTail)
	binary.LittleEndian.PutUint32(tail[8:], checksum(seed, d.b[:direntBlockSize]))
	return d.b[:]
}

// writeDirectories gives every directory its blocks.
func (w *Writer) writeDirectories() error {
	for ino := uint32(rootInode); ino <= w.inodes.last; ino++ {
		n := w.inodes.get(ino)
		if n.dir == nil {
			continue
		}
		if err := w.writeDirectory(n); err != nil {
			return fmt.Errorf("write directory of %d entries: %w", len(n.dir.entries), err)
		}
		n.dir = nil
	}
	return nil
}

func (w *Writer) writeDirectory(n *inode) error {
	d := n.dir
	dots := []dirent{{d.ino, 2, "."}, {d.parent, 2, ".."}}
	total := dots[0].size() + dots[1].size()
	for name := range d.entries {
		total += dirent{name: name}.size()
	}

	blocks := dirBlocks{w: w, seed: inodeSeed(w.seed, d.ino)}
	w.extents.reset(blocks.seed)
	var err error
	if total <= direntBlockSize {
		w.dirBlock.reset()
		for _, e := range dots {
			w.dirBlock.add(e)
		}
		for _, name := range slices.Sorted(maps.Keys(d.entries)) {
			w.dirBlock.add(w.dirent(name, d.entries[name]))
		}
		err = blocks.append(w.dirBlock.bytes(blocks.seed))
	} else {
		n.flags |= flagIndex
		err = w.writeHashed(&blocks, d, dots)
	}
	if err != nil {
		return err
	}
	if d.ino == w.lostFound {
		for blocks.n < lostFoundBlocks {
			w.dirBlock.reset()
			if err := blocks.append(w.dirBlock.bytes(blocks.seed)); err != nil {
				return err
			}
		}
	}
	n.size = int64(blocks.n) * blockSize
	return w.extents.finish(n)
}

func (w *Writer) dirent(name string, ino uint32) dirent {
	return dirent{ino, direntKind(w.inodes.get(ino).mode), name}
}

// dirBlocks appends the blocks of one directory.
type dirBlocks struct {
	w    *Writer
	seed uint32 // of the directory's checksums
	n    uint32
}

func (d *dirBlocks) append(b []byte) error {
	block, err := d.w.out.append(b)
	if err != nil {
		return err
	}
	d.n++
	return d.w.extents.add(extent{d.n - 1, block, 1})
}
