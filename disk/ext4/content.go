package ext4

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// setHeader takes kind, permissions, owner and times from a tar header.
func (n *inode) setHeader(h *tar.Header) error {
	n.mode = uint16(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeReg, '\x00', tar.TypeCont, tar.TypeGNUSparse:
		n.mode |= modeRegular
		if h.Mode&modeType == modeSocket && h.Size == 0 {
			n.mode = n.mode&^modeType | modeSocket
		}
	case tar.TypeLink: // has no mode of its own
	case tar.TypeSymlink:
		n.mode |= modeSymlink
	case tar.TypeChar:
		n.mode |= modeChar
	case tar.TypeBlock:
		n.mode |= modeBlock
	case tar.TypeDir:
		n.mode |= modeDir
	case tar.TypeFifo:
		n.mode |= modeFIFO
	default:
		return fmt.Errorf("tar entry of unknown type %q", h.Typeflag)
	}
	const maxID = 1<<32 - 2 // the number above means "no one"
	if h.Uid < 0 || h.Uid > maxID || h.Gid < 0 || h.Gid > maxID {
		return fmt.Errorf("owner %d:%d is outside of what Linux has", h.Uid, h.Gid)
	}
	n.uid, n.gid = uint32(h.Uid), uint32(h.Gid)
	orModTime := func(t time.Time) time.Time {
		if t.IsZero() {
			return h.ModTime
		}
		return t
	}
	n.mtime = newTimestamp(h.ModTime)
	n.atime = newTimestamp(orModTime(h.AccessTime))
	n.ctime = newTimestamp(orModTime(h.ChangeTime))
	return nil
}

// setContent gives a file that is no directory what it consists of.
func (w *Writer) setContent(n *inode, ino uint32, h *tar.Header, r io.Reader) error {
	first := w.out.next
	w.extents.reset(inodeSeed(w.seed, ino))
	var err error
	switch n.mode & modeType {
	case modeRegular:
		err = w.setData(n, h.Size, r)
	case modeSymlink:
		err = w.setTarget(n, h.Linkname)
	case modeChar, modeBlock:
		err = n.setDevice(h.Devmajor, h.Devminor)
	}
	n.span = span{first, w.out.next}
	return err
}

// setTarget keeps a symlink's target in the inode when it is short enough, else
// in a block.
func (w *Writer) setTarget(n *inode, target string) error {
	switch {
	case target == "":
		return errors.New("symbolic link has no target")
	case len(target) >= blockSize:
		return fmt.Errorf("symbolic link has a target of %d bytes, at most %d are allowed", len(target), blockSize-1)
	case strings.ContainsRune(target, 0):
		return errors.New("target of symbolic link holds a zero byte")
	case len(target) < len(n.block):
		copy(n.block[:], target)
		n.size = int64(len(target))
		return nil
	}
	return w.setData(n, int64(len(target)), strings.NewReader(target))
}

var zeros [blockSize]byte

// setData writes the data of a file, straight from the reader into the buffer
// that is written out. Blocks of zeros become holes.
func (w *Writer) setData(n *inode, size int64, r io.Reader) error {
	if size < 0 || size > maxFileSize {
		return fmt.Errorf("file of %d bytes: ext4 holds up to %d", size, maxFileSize)
	}
	n.size = size
	logical := uint32(0)
	for left := size; left > 0; {
		room, err := w.out.room()
		if err != nil {
			return err
		}
		want := int(min(left, int64(len(room))))
		if got, err := io.ReadFull(r, room[:want]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read at %d of %d bytes: %w", size-left+int64(got), size, err)
		}
		left -= int64(want)
		blocks := (want + blockSize - 1) / blockSize
		clear(room[want : blocks*blockSize])
		if err := w.addData(room[:blocks*blockSize], logical); err != nil {
			return err
		}
		logical += uint32(blocks)
	}
	return w.extents.finish(n)
}

// addData takes the blocks of room that are not all zeros, moving them together,
// as blocks from logical on of the file.
func (w *Writer) addData(room []byte, logical uint32) error {
	var runs []span // in blocks of room
	kept := 0
	for i := 0; i < len(room); i += blockSize {
		b := room[i : i+blockSize]
		if bytes.Equal(b, zeros[:]) {
			continue
		}
		at := uint32(i / blockSize)
		if len(runs) > 0 && runs[len(runs)-1].end == at {
			runs[len(runs)-1].end++
		} else {
			runs = append(runs, span{at, at + 1})
		}
		if kept != i {
			copy(room[kept:], b)
		}
		kept += blockSize
	}
	physical := w.out.take(uint32(kept / blockSize))
	for _, r := range runs {
		length := r.end - r.first
		if err := w.extents.add(extent{logical + r.first, physical, length}); err != nil {
			return err
		}
		physical += length
	}
	return nil
}
