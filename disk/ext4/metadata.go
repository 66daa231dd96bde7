package ext4

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

// writeMetadata writes bitmaps, inode tables, superblocks and group descriptors
// where they have been laid out.
func (w *Writer) writeMetadata(g geometry, groups []group) error {
	if err := w.writeBlockBitmaps(&g, groups); err != nil {
		return err
	}
	if err := w.writeInodeBitmaps(&g, groups); err != nil {
		return err
	}
	if err := w.writeInodes(g, groups); err != nil {
		return err
	}
	if err := w.out.flush(); err != nil {
		return err
	}
	if err := w.xattrs.finish(&w.out); err != nil {
		return err
	}
	return w.writeSupers(g, groups)
}

// writeBlockBitmaps marks what is used, by group, and counts what is not
// (Documentation/filesystems/ext4/bitmaps.rst).
func (w *Writer) writeBlockBitmaps(g *geometry, groups []group) error {
	unused := w.out.unused
	slices.SortFunc(unused, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	for i := range groups {
		var m bitmap
		first := int64(i) * groupBlocks
		m.fill(-first, int64(w.out.next)-first, true)
		for _, s := range unused {
			if int64(s.first) >= first+groupBlocks {
				break
			}
			m.fill(int64(s.first)-first, int64(s.end)-first, false)
			if int64(s.end) <= first+groupBlocks { // else it goes on in the next group
				unused = unused[1:]
			}
		}
		if hasSuper(uint32(i)) {
			m.fill(0, int64(w.out.reserved), false)
			m.fill(0, int64(1+g.descBlocks), true)
		}
		m.fill(int64(g.blocks)-first, groupBlocks, true) // past the end
		d := &groups[i]
		d.freeBlocks = uint16(m.zeros())
		g.freeBlocks += uint32(d.freeBlocks)
		if first >= int64(w.out.next) && i < len(groups)-1 { // the last has an end to be marked
			d.flags |= groupBlockUninit
			continue
		}
		d.blockSum = uint16(checksum(w.seed, m[:]))
		if err := w.out.put(d.blockBitmap, m[:]); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) writeInodeBitmaps(g *geometry, groups []group) error {
	ino := uint32(0)
	for i := range groups {
		var m bitmap
		d := &groups[i]
		d.flags |= groupZeroed
		m.fill(int64(g.inodesPerGroup), groupInodes, true) // past the end
		used := uint32(0)                                  // inodes up to the last in use
		for bit := range g.inodesPerGroup {
			ino++
			if ino > w.inodes.last {
				break
			}
			n := w.inodes.get(ino)
			if n.mode != 0 || ino < firstInode {
				m.set(int(bit))
				used = bit + 1
			}
			if n.mode&modeType == modeDir {
				d.dirs++
			}
		}
		d.freeInodes = uint16(m.zeros())
		d.unusedInodes = uint16(g.inodesPerGroup - used)
		g.freeInodes += uint32(d.freeInodes)
		if used == 0 {
			d.flags |= groupInodeUninit
			continue
		}
		d.inodeSum = uint16(checksum(w.seed, m[:g.inodesPerGroup/8]))
		if err := w.out.put(d.inodeBitmap, m[:]); err != nil {
			return err
		}
	}
	return nil
}

// writeInodes writes the inode tables as far as there are inodes.
func (w *Writer) writeInodes(g geometry, groups []group) error {
	crtime := newTimestamp(w.opt.Epoch)
	var b [blockSize]byte
	for first := uint32(1); first <= w.inodes.last; first += blockInodes {
		clear(b[:])
		for i := range uint32(blockInodes) {
			if first+i > w.inodes.last {
				break
			}
			if n := w.inodes.get(first + i); n.mode != 0 {
				n.encode(b[i*inodeSize:][:inodeSize], crtime, inodeSeed(w.seed, first+i))
			}
		}
		table := groups[(first-1)/g.inodesPerGroup].inodeTable
		if err := w.out.put(table+(first-1)%g.inodesPerGroup/blockInodes, b[:]); err != nil {
			return err
		}
	}
	return nil
}

// writeSupers writes superblock and group descriptors, and their copies.
func (w *Writer) writeSupers(g geometry, groups []group) error {
	descs := make([]byte, g.descBlocks*blockSize)
	for i := range groups {
		groups[i].encode(descs[i*descSize:][:descSize], uint32(i), w.seed)
	}
	for i := range g.groups {
		if !hasSuper(i) {
			continue
		}
		start := int64(i) * groupBlocks * blockSize
		at := start
		if i == 0 {
			at += 1024 // the boot sector's
		}
		if err := w.out.writeAt(w.opt.encodeSuper(g, i), at); err != nil {
			return err
		}
		if err := w.out.writeAt(descs, start+blockSize); err != nil {
			return err
		}
	}
	return nil
}

// bitmap is one block of bits, for the blocks or the inodes of a group.
type bitmap [blockSize]byte

func (m *bitmap) set(i int) { m[i/8] |= 1 << (i % 8) }

// fill sets or clears the bits from first to end-1, as far as there are such.
func (m *bitmap) fill(first, end int64, used bool) {
	first, end = max(first, 0), min(end, 8*blockSize)
	for i := first; i < end; i++ {
		switch {
		case i%8 == 0 && i+8 <= end && used:
			m[i/8] = 0xff
			i += 7
		case i%8 == 0 && i+8 <= end:
			m[i/8] = 0
			i += 7
		case used:
			m[i/8] |= 1 << (i % 8)
		default:
			m[i/8] &^= 1 << (i % 8)
		}
	}
}

// zeros counts the bits that are not set.
func (m *bitmap) zeros() int {
	n := 8 * blockSize
	for i := 0; i < blockSize; i += 8 {
		n -= bits.OnesCount64(binary.LittleEndian.Uint64(m[i:]))
	}
	return n
}
