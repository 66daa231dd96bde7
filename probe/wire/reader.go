package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxGarbage is how many bytes may come before the first frame. A serial line
// can carry what the firmware or the kernel said before the agent had it.
const MaxGarbage = 64 << 10

// A Reader reads frames from a peer that may be broken or hostile. It never
// holds more than one frame. Before the first frame it skips up to MaxGarbage
// bytes that are not a frame's beginning; after it, anything that is not the
// next frame is an error, and the Reader does not try to find a way back in:
// what follows a corruption would be evidence of nothing.
type Reader struct {
	r       *bufio.Reader
	seq     uint16
	started bool
	err     error
}

// NewReader makes a Reader that expects a stream from its first frame on.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 32<<10)}
}

// Read returns the next frame. It returns io.EOF when the stream ends between
// two frames (or before the first), an error that wraps io.ErrUnexpectedEOF
// when it ends within one, and an error that says what was found and what was
// expected when the bytes are not a frame. Once it failed it fails for ever.
// The payload belongs to the caller.
func (r *Reader) Read() (Frame, error) {
	if r.err != nil {
		return Frame{}, r.err
	}
	f, err := r.read()
	if err != nil {
		r.err = err
		return Frame{}, err
	}
	r.seq++
	r.started = true
	return f, nil
}

func (r *Reader) read() (Frame, error) {
	if !r.started {
		if err := r.skipGarbage(); err != nil {
			return Frame{}, err
		}
	}
	var h [headerSize]byte
	n, err := io.ReadFull(r.r, h[:])
	if errors.Is(err, io.EOF) {
		return Frame{}, io.EOF
	}
	if err != nil {
		return Frame{}, fmt.Errorf("read frame %d: header ends after %d of %d bytes: %w", r.seq, n, headerSize, err)
	}
	if string(h[:4]) != magic {
		return Frame{}, fmt.Errorf("read frame %d: begins with % x, want the magic % x", r.seq, h[:4], magic)
	}
	if h[4] != Version {
		return Frame{}, fmt.Errorf("read frame %d: version %d, this lab reads version %d", r.seq, h[4], Version)
	}
	t := Type(h[5])
	if !t.valid() {
		return Frame{}, fmt.Errorf("read frame %d: %s is not defined", r.seq, t)
	}
	if seq := binary.LittleEndian.Uint16(h[6:]); seq != r.seq {
		return Frame{}, fmt.Errorf("read frame %d: it is number %d: frames were lost or repeated", r.seq, seq)
	}
	length := binary.LittleEndian.Uint32(h[8:])
	if length > MaxPayload {
		return Frame{}, fmt.Errorf("read %s frame %d: payload of %d bytes, at most %d are allowed", t, r.seq, length, MaxPayload)
	}
	f := Frame{Type: t, Payload: make([]byte, length)}
	if n, err := io.ReadFull(r.r, f.Payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, fmt.Errorf("read %s frame %d: payload ends after %d of %d bytes: %w", t, r.seq, n, length, err)
	}
	if got, want := checksum(h[4:12], f.Payload), binary.LittleEndian.Uint32(h[12:]); got != want {
		return Frame{}, fmt.Errorf("read %s frame %d: checksum %08x, the frame says %08x", t, r.seq, got, want)
	}
	return f, nil
}

// skipGarbage leaves r.r at the first magic.
func (r *Reader) skipGarbage() error {
	skipped := 0
	for {
		if b, err := r.r.Peek(len(magic)); err == nil && string(b) == magic {
			return nil
		} else if err != nil {
			if errors.Is(err, io.EOF) && skipped+len(b) > 0 {
				return fmt.Errorf("read frame 0: the stream ends after %d bytes without a frame", skipped+len(b))
			}
			return err
		}
		// Peek the rest of what is buffered already: no need to wait for more.
		b, _ := r.r.Peek(r.r.Buffered())
		n := bytes.Index(b[1:], []byte(magic[:1])) + 1
		if n == 0 {
			n = len(b)
		}
		if skipped += n; skipped > MaxGarbage {
			return fmt.Errorf("read frame 0: no frame in the first %d bytes", MaxGarbage)
		}
		if _, err := r.r.Discard(n); err != nil {
			return err
		}
	}
}
