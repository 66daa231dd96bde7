package oci

import (
	"context"
	"io"
)

const chunkSize = 512 << 10

// chunkPipe passes bytes from a writing goroutine to a reader some chunks
// behind it. Unlike io.Pipe it lets the two work at the same time: one
// decompresses while the other writes a disk.
type chunkPipe struct {
	ctx    context.Context // ends when the reader goes away
	cancel context.CancelFunc
	full   chan []byte   // closed by the writer at its end
	free   chan []byte   // chunks to fill
	done   chan struct{} // closed when the writer has returned
	err    error         // of the writer; read after full is closed

	filling []byte // the writer's
	reading []byte // the reader's: what is left of chunk
	chunk   []byte
}

// pipe runs write in a goroutine and gives what it writes. Its error comes
// from Read after all bytes that were written before it.
func pipe(ctx context.Context, write func(context.Context, io.Writer) error) *chunkPipe {
	ctx, cancel := context.WithCancel(ctx)
	const chunks = 4
	p := &chunkPipe{
		ctx: ctx, cancel: cancel, done: make(chan struct{}),
		full: make(chan []byte, chunks), free: make(chan []byte, chunks),
	}
	for range chunks {
		p.free <- nil
	}
	go func() {
		defer close(p.done)
		defer close(p.full)
		p.err = write(ctx, p)
		if p.err == nil {
			p.err = p.flush()
		}
	}()
	return p
}

func (p *chunkPipe) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		if p.filling == nil {
			select {
			case c := <-p.free:
				if c == nil {
					c = make([]byte, 0, chunkSize)
				}
				p.filling = c[:0]
			case <-p.ctx.Done():
				return written, context.Cause(p.ctx)
			}
		}
		n := min(len(b), chunkSize-len(p.filling))
		p.filling = append(p.filling, b[:n]...)
		b, written = b[n:], written+n
		if len(p.filling) == chunkSize {
			if err := p.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (p *chunkPipe) flush() error {
	if len(p.filling) == 0 {
		return nil
	}
	select {
	case p.full <- p.filling:
		p.filling = nil
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

func (p *chunkPipe) Read(b []byte) (int, error) {
	for len(p.reading) == 0 {
		if p.chunk != nil {
			p.free <- p.chunk // has room for every chunk there is
			p.chunk = nil
		}
		c, ok := <-p.full
		if !ok {
			if p.err != nil {
				return 0, p.err
			}
			return 0, io.EOF
		}
		p.chunk, p.reading = c, c
	}
	n := copy(b, p.reading)
	p.reading = p.reading[n:]
	return n, nil
}

// Close stops the writer and waits for it.
func (p *chunkPipe) Close() error {
	p.cancel()
	<-p.done
	return nil
}
