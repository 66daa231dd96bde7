package ext4

import (
	"errors"
	"fmt"
	"io"
)

// errFull is more data than Options.MaxSize has room for.
var errFull = errors.New("file system is full")

// span is blocks first to end-1.
type span struct{ first, end uint32 }

// output hands out the blocks of the file system in rising order and writes them
// in large pieces. It never goes back: what is known only at the end has its
// place kept free (the head of each group that holds a superblock).
type output struct {
	w    io.WriterAt
	base int64 // offset of the file system in w

	limit    uint32 // blocks from here on do not exist
	reserved uint32 // blocks kept at the head of a group with a superblock
	next     uint32 // the next block to hand out
	unused   []span // blocks below next that hold nothing after all

	buf   []byte // bytes not yet written; the capacity is fixed
	start uint32 // the block that buf begins with
}

const bufferSize = 1 << 20

// skipReserved moves on when the next block is the head of a group with a
// superblock.
func (o *output) skipReserved() {
	if o.next%groupBlocks == 0 && hasSuper(o.next/groupBlocks) {
		o.next += o.reserved
	}
}

// upcoming is the block that will be handed out next.
func (o *output) upcoming() uint32 {
	o.skipReserved()
	return o.next
}

// room is memory for the next blocks: one at least, all in one run. What it holds
// has no meaning. Blocks of it that have been filled are to be taken.
func (o *output) room() ([]byte, error) {
	o.skipReserved()
	if o.next >= o.limit {
		return nil, errFull
	}
	if err := o.seek(o.next); err != nil {
		return nil, err
	}
	run := min(int64(o.limit), int64(o.next/groupBlocks+1)*groupBlocks) - int64(o.next)
	n := min(run*blockSize, int64(cap(o.buf)-len(o.buf)))
	return o.buf[len(o.buf) : len(o.buf)+int(n)], nil
}

// take hands out the first n blocks of what room gave.
func (o *output) take(n uint32) (first uint32) {
	first = o.next
	o.next += n
	o.buf = o.buf[:len(o.buf)+int(n)*blockSize]
	return first
}

// append hands out one block with this content.
func (o *output) append(b []byte) (uint32, error) {
	room, err := o.room()
	if err != nil {
		return 0, err
	}
	clear(room[copy(room[:blockSize], b):blockSize])
	return o.take(1), nil
}

// allocate hands out n blocks in a row, fewer than a group has, to be put later
// or never.
func (o *output) allocate(n uint32) (uint32, error) {
	o.skipReserved()
	first := int64(o.next)
	head := (first/groupBlocks + 1) * groupBlocks // of the next group
	skip := first+int64(n) > head && hasSuper(uint32(head/groupBlocks))
	if skip {
		first = head + int64(o.reserved)
	}
	if first+int64(n) > int64(o.limit) {
		return 0, errFull
	}
	if skip {
		o.unused = append(o.unused, span{o.next, uint32(head)})
	}
	o.next = uint32(first) + n
	return uint32(first), nil
}

// mark is the state before blocks are allocated, for reset to go back to.
func (o *output) mark() mark { return mark{o.next, len(o.unused)} }

func (o *output) reset(m mark) { o.next, o.unused = m.next, o.unused[:m.unused] }

type mark struct {
	next   uint32
	unused int
}

// put writes one block that has been handed out. Blocks in rising order join
// into large writes.
func (o *output) put(block uint32, b []byte) error {
	if err := o.seek(block); err != nil {
		return err
	}
	o.buf = append(o.buf, b[:blockSize]...)
	return nil
}

// seek makes the end of the buffer stand for block, with room for one more.
func (o *output) seek(block uint32) error {
	if len(o.buf) < cap(o.buf) && block == o.start+uint32(len(o.buf)/blockSize) {
		return nil
	}
	if err := o.flush(); err != nil {
		return err
	}
	o.start = block
	return nil
}

func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	err := o.writeAt(o.buf, int64(o.start)*blockSize)
	o.start += uint32(len(o.buf) / blockSize)
	o.buf = o.buf[:0]
	return err
}

// writeAt writes straight to the file system.
func (o *output) writeAt(b []byte, off int64) error {
	if _, err := o.w.WriteAt(b, o.base+off); err != nil {
		return fmt.Errorf("write file system at %d: %w", off, err)
	}
	return nil
}
