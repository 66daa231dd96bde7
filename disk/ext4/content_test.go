package ext4

import (
	"bytes"
	"io"
	"slices"
)

// content is what a file of any size consists of: pieces of one byte repeated.
type content []piece

type piece struct {
	end  int64 // where it ends in the file
	fill byte
}

// add appends n bytes.
func (c *content) add(n int64, fill byte) {
	end := c.size() + n
	switch last := len(*c) - 1; {
	case n == 0:
	case last >= 0 && (*c)[last].fill == fill:
		(*c)[last].end = end
	default:
		*c = append(*c, piece{end, fill})
	}
}

func (c content) size() int64 {
	if len(c) == 0 {
		return 0
	}
	return c[len(c)-1].end
}

// each calls f for the pieces that bytes first to end-1 consist of.
func (c content) each(first, end int64, f func(n int64, fill byte)) {
	i, _ := slices.BinarySearchFunc(c, first+1, func(p piece, at int64) int { return int(max(-1, min(1, p.end-at))) })
	for ; first < end; i++ {
		n := min(c[i].end, end) - first
		f(n, c[i].fill)
		first += n
	}
}

// equal tells whether b is what begins at first.
func (c content) equal(first int64, b []byte) bool {
	same := true
	c.each(first, first+int64(len(b)), func(n int64, fill byte) {
		part := b[:n]
		b = b[n:]
		same = same && part[0] == fill && bytes.Equal(part[1:], part[:n-1])
	})
	return same
}

// equalZeros tells whether bytes first to end-1 are zeros.
func (c content) equalZeros(first, end int64) bool {
	same := true
	c.each(first, max(first, end), func(_ int64, fill byte) { same = same && fill == 0 })
	return same
}

// holes tells whether there is a block of zeros.
func (c content) holes() bool {
	start := int64(0)
	for _, p := range c {
		first := (start + 4095) &^ 4095
		if p.fill == 0 && (first+4096 <= p.end || first < p.end && p.end == c.size()) {
			return true
		}
		start = p.end
	}
	return false
}

func (c content) reader() io.Reader { return &contentReader{c: c} }

type contentReader struct {
	c  content
	at int64
}

func (r *contentReader) Read(b []byte) (int, error) {
	n := int(min(int64(len(b)), r.c.size()-r.at))
	if n == 0 {
		return 0, io.EOF
	}
	first := r.at
	r.at += int64(n)
	rest := b[:n]
	r.c.each(first, r.at, func(n int64, fill byte) {
		part := rest[:n]
		rest = rest[n:]
		if fill == 0 {
			clear(part)
			return
		}
		part[0] = fill
		for done := 1; done < len(part); done *= 2 {
			copy(part[done:], part[:done])
		}
	})
	return n, nil
}

// fillReader is an endless file of one byte.
type fillReader byte

func (r fillReader) Read(b []byte) (int, error) {
	return content{{end: int64(len(b)), fill: byte(r)}}.reader().Read(b)
}
