package ext4

import "fmt"

// inodeRatio is the free space, in bytes, that comes with one free inode, as
// mke2fs.conf(5) has it.
const (
	inodeRatio    = 16 << 10
	minFreeInodes = 1024
	sizeUnit      = 1 << 20 / blockSize // the file system is so many blocks, or a multiple
)

// Close writes all that could not be known before, and returns the size of the
// file system in bytes, a multiple of 1 MiB: it lies from base to base+size, and
// the file may have to be made so long. free is the space in bytes that statfs(2)
// will call available; one inode is free for each 16 KiB of it, and at least
// 1024.
func (w *Writer) Close(free int64) (size int64, err error) {
	return w.close(func() (geometry, []group, error) { return w.layOutFree(free) })
}

// CloseSize is Close for a file system of exactly size bytes, a multiple of 4096
// and at most Options.MaxSize; one inode is free for each 16 KiB of it that is. An
// error says how many bytes the content needs. When a few blocks at the end are
// too little for a block group of their own, they stay unused, as with mke2fs.
func (w *Writer) CloseSize(size int64) error {
	_, err := w.close(func() (geometry, []group, error) { return w.layOutSize(size) })
	return err
}

func (w *Writer) close(layOut func() (geometry, []group, error)) (size int64, err error) {
	if w.err != nil {
		return 0, w.err
	}
	w.err = fmt.Errorf("write ext4: already closed")
	if err := w.resolveLinks(); err != nil {
		return 0, err
	}
	if err := w.writeDirectories(); err != nil {
		return 0, fmt.Errorf("write ext4: %w", err)
	}
	g, groups, err := layOut()
	if err == nil {
		err = w.writeMetadata(g, groups)
	}
	if err != nil {
		return 0, fmt.Errorf("write ext4: %w", err)
	}
	return int64(g.blocks) * blockSize, nil
}

// layOutFree finds the smallest file system that holds all and has so many bytes
// free.
func (w *Writer) layOutFree(free int64) (geometry, []group, error) {
	if free < 0 || free > maxBlocks*blockSize {
		return geometry{}, nil, fmt.Errorf("free space of %d bytes is not possible", free)
	}
	g, groups, err := w.smallest(max(minFreeInodes, free/inodeRatio), sizeUnit, func(used int64) int64 {
		total := used + divUp64(free, blockSize)
		// The kernel keeps a fiftieth, at most 4096 blocks, from everyone
		// (ext4_set_resv_clusters in fs/ext4/super.c).
		return total + min(4096, total/49+1)
	})
	if err != nil {
		err = fmt.Errorf("%d bytes of data and metadata and %d bytes free: %w", int64(w.out.next)*blockSize, free, err)
	}
	return g, groups, err
}

// smallest finds the smallest file system that holds all, some free inodes and
// what total makes of the blocks in use; its size is a multiple of unit blocks.
// More groups need more bitmaps and tables, and these more room, so it counts up
// until both agree.
func (w *Writer) smallest(freeInodes, unit int64, total func(used int64) int64) (geometry, []group, error) {
	end := w.out.mark()
	n := uint32(1)
	for {
		w.out.reset(end)
		g, ok := w.divide(n, freeInodes)
		if !ok {
			n++
			continue
		}
		groups, err := w.allocateGroups(g)
		if err != nil {
			return g, nil, err
		}
		last := int64(g.groups - 1)
		blocks := max(total(int64(w.out.next)), last*groupBlocks+1)
		blocks = divUp64(blocks, unit) * unit
		if last = blocks / groupBlocks; blocks%groupBlocks < g.headBlocks(last) && blocks%groupBlocks > 0 {
			blocks = divUp64(last*groupBlocks+g.headBlocks(last), unit) * unit
		}
		if blocks > int64(w.out.limit) {
			return g, nil, errFull
		}
		if need := uint32(divUp64(blocks, groupBlocks)); need > n {
			n = need
			continue
		}
		g.blocks = uint32(blocks)
		return g, groups, nil
	}
}

// divide gives each group its part of the inodes; ok is false when they are more
// than so many groups can have.
func (w *Writer) divide(groups uint32, freeInodes int64) (g geometry, ok bool) {
	inodes := divUp64(int64(w.inodes.last)+freeInodes, int64(groups))
	inodes = divUp64(inodes, blockInodes) * blockInodes
	return geometry{
		groups:         groups,
		inodesPerGroup: uint32(inodes),
		descBlocks:     divUp(groups, blockDescs),
	}, inodes <= groupInodes
}

// layOutSize lays out a file system of a size that is given. With the last group
// goes what is too short to be one, or to be worth its own bitmaps.
func (w *Writer) layOutSize(size int64) (geometry, []group, error) {
	if size <= 0 || size%blockSize != 0 {
		return geometry{}, nil, fmt.Errorf("size of %d bytes is not a multiple of %d", size, blockSize)
	}
	limit := w.out.limit
	if size/blockSize > int64(limit) {
		return geometry{}, nil, fmt.Errorf("size of %d bytes is more than the %d allowed for", size, int64(limit)*blockSize)
	}
	end := w.out.mark()
	blocks := uint32(size / blockSize)
	for _, n := range []uint32{divUp(blocks, groupBlocks), blocks / groupBlocks} {
		g := geometry{descBlocks: divUp(n, blockDescs)}
		if tail := int64(blocks % groupBlocks); n == 0 || n > blocks/groupBlocks && tail < g.headBlocks(int64(n-1)) {
			continue
		}
		w.out.limit = uint32(min(int64(blocks), int64(n)*groupBlocks))
		if g, groups, ok := w.fill(n); ok {
			return g, groups, nil
		}
		w.out.reset(end)
	}

	w.out.limit = limit
	g, _, err := w.smallest(minFreeInodes, 1, func(used int64) int64 { return used })
	if err != nil {
		return g, nil, fmt.Errorf("size of %d bytes is not enough, nor would be %d: %w", size, int64(limit)*blockSize, err)
	}
	return g, nil, fmt.Errorf("size of %d bytes is not enough, %d are needed: %w", size, int64(g.blocks)*blockSize, errFull)
}

// fill lays out so many groups in a file system that ends at the limit, with as
// many inodes as go with what then is free. ok is false when there is no room.
func (w *Writer) fill(n uint32) (g geometry, groups []group, ok bool) {
	end := w.out.mark()
	lay := func(freeInodes int64) bool {
		w.out.reset(end)
		if g, ok = w.divide(n, freeInodes); !ok {
			return false
		}
		var err error // which can only be that it is full
		groups, err = w.allocateGroups(g)
		g.blocks = w.out.limit
		return err == nil
	}
	if !lay(minFreeInodes) {
		return g, nil, false
	}
	free := int64(w.out.limit-w.out.next) * blockSize
	for inodes := free / inodeRatio; inodes > minFreeInodes; inodes /= 2 {
		if lay(inodes) {
			return g, groups, true
		}
	}
	return g, groups, lay(minFreeInodes)
}

func divUp64(n, by int64) int64 { return (n + by - 1) / by }

func (w *Writer) allocateGroups(g geometry) ([]group, error) {
	groups := make([]group, g.groups)
	var err error
	for _, part := range []struct {
		field  func(*group) *uint32
		blocks uint32
	}{
		{func(d *group) *uint32 { return &d.blockBitmap }, 1},
		{func(d *group) *uint32 { return &d.inodeBitmap }, 1},
		{func(d *group) *uint32 { return &d.inodeTable }, g.tableBlocks()},
	} {
		for i := range groups {
			if *part.field(&groups[i]), err = w.out.allocate(part.blocks); err != nil {
				return nil, err
			}
		}
	}
	return groups, nil
}
