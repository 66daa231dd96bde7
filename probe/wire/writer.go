package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// A Writer writes frames, each with exactly one Write of the whole frame, so
// that a frame is never interleaved with another and a guest that dies leaves
// whole frames behind. It may be used by several goroutines at once.
type Writer struct {
	w   io.Writer
	mu  sync.Mutex
	seq uint16
	buf []byte
	err error
}

// NewWriter makes a Writer whose first frame has sequence number 0.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends one frame. After the first error nothing more is written and
// every call returns that error: a reader could not follow any longer.
func (w *Writer) Write(f Frame) error {
	if !f.Type.valid() {
		return fmt.Errorf("write frame: %s is not defined", f.Type)
	}
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("write %s frame: payload of %d bytes, at most %d are allowed", f.Type, len(f.Payload), MaxPayload)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf = appendFrame(w.buf[:0], f, w.seq)
	w.seq++
	n, err := w.w.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("write %s frame: %w", f.Type, err)
	}
	return w.err
}

func appendFrame(b []byte, f Frame, seq uint16) []byte {
	b = append(b, magic...)
	b = append(b, Version, byte(f.Type))
	b = binary.LittleEndian.AppendUint16(b, seq)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Payload)))
	b = binary.LittleEndian.AppendUint32(b, checksum(b[4:12], f.Payload))
	return append(b, f.Payload...)
}

func checksum(header, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once by hash/crc32
	return crc32.Update(crc32.Update(0, table, header), table, payload)
}
