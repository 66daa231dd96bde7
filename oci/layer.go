package oci

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const bufferSize = 256 << 10

// The first bytes by which a compressed stream is known. Media types are not
// trusted for this: registries are full of layers that say one thing and are
// another.
var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	magicXz    = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	magicBzip2 = []byte("BZh")
)

// decompress reads gzip, zstd or what is not compressed. Several gzip members
// or zstd frames after one another are one stream, as their specifications
// say; anything else after the end is an error. After stop, r is not read any
// more; it stays open.
func decompress(r io.Reader) (plain io.Reader, stop func(), err error) {
	br := bufio.NewReaderSize(r, bufferSize)
	magic, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, magicGzip):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, nil, fmt.Errorf("gunzip: %w", explainEnd(err))
		}
		return &namedReader{"gunzip", z}, func() {}, nil
	case bytes.HasPrefix(magic, magicZstd) || skippable(magic):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, nil, fmt.Errorf("unzstd: %w", explainEnd(err))
		}
		return &namedReader{"unzstd", z}, z.Close, nil
	case bytes.HasPrefix(magic, magicXz), bytes.HasPrefix(magic, magicBzip2):
		return nil, nil, errors.New("compressed with xz or bzip2, which images must not be: use gzip, zstd or nothing")
	}
	return br, func() {}, nil
}

// decompressFile reads xz too, for files that the user has on disk. It is kept
// from what registries give, for an xz stream names its own price in memory,
// up to 4 GiB.
func decompressFile(r io.Reader) (plain io.Reader, stop func(), err error) {
	br := bufio.NewReaderSize(r, bufferSize)
	if magic, _ := br.Peek(len(magicXz)); !bytes.Equal(magic, magicXz) {
		return decompress(br)
	}
	z, err := xz.NewReader(br)
	if err != nil {
		return nil, nil, fmt.Errorf("unxz: %w", explainEnd(err))
	}
	return &namedReader{"unxz", z}, func() {}, nil
}

// skippable knows the frames by which zstd streams carry other things.
func skippable(b []byte) bool {
	return len(b) >= 4 && b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

// namedReader says in its errors which decompressor they came from.
type namedReader struct {
	name string
	r    io.Reader
}

func (r *namedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", r.name, explainEnd(err))
	}
	return n, err
}

func explainEnd(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("the stream is truncated: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, gzip.ErrHeader) || errors.Is(err, zstd.ErrMagicMismatch):
		return fmt.Errorf("there is something else behind the stream or inside it: %w", err)
	}
	return err
}

// layerReader reads a layer's tar in order, entry by entry.
type layerReader struct {
	*tar.Reader
	raw   io.ReadCloser // the blob, verified at its end
	sum   hash.Hash32   // of the blob as far as it is read; nil: not wanted
	stop  func()        // ends decompression
	count *counter
	next  int // index of the entry that Next gives next
}

// counter watches the decompressed bytes go by.
type counter struct {
	ctx    context.Context
	r      io.Reader
	hash   hash.Hash // nil: not wanted
	n      int64
	budget *budget // nil: already spent
}

func (c *counter) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if c.hash != nil {
		c.hash.Write(p[:n])
	}
	c.n += int64(n)
	if c.budget != nil {
		if over := c.budget.addBytes(int64(n)); over != nil {
			return n, over
		}
	}
	return n, err
}

// castagnoli's CRC is the one that processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openLayer opens a layer to be read whole: the bytes count against the budget,
// finishTar checks the diff id, and sum is what reopenLayer asks for.
func openLayer(ctx context.Context, l v1.Layer, b *budget) (*layerReader, error) {
	diffID, err := l.DiffID()
	if err != nil {
		return nil, err
	}
	digest, err := l.Digest()
	if err != nil {
		return nil, err
	}
	c := &counter{ctx: ctx, budget: b}
	if digest != diffID { // else the diff id is verified with the digest
		if c.hash, err = v1.Hasher(diffID.Algorithm); err != nil {
			return nil, err
		}
	}
	raw, err := verified(l)
	if err != nil {
		return nil, err
	}
	sum := crc32.New(castagnoli)
	return newLayerReader(c, &summedReader{raw, sum}, sum)
}

// reopenLayer opens a layer that was read before. A digest keeps out what others
// have changed on purpose, and takes its time; for a blob that lies in the store
// since it was checked, the sum says as well whether the disk has damaged it.
func reopenLayer(ctx context.Context, l v1.Layer, sum uint32) (*layerReader, error) {
	c := &counter{ctx: ctx}
	var raw io.ReadCloser
	var err error
	if stored, ok := l.(*storeLayer); ok {
		raw, err = stored.open(crc32.New(castagnoli), fmt.Sprintf("%08x", sum))
	} else {
		raw, err = verified(l)
	}
	if err != nil {
		return nil, err
	}
	return newLayerReader(c, raw, nil)
}

// verified is a layer's blob, checked at its end.
func verified(l v1.Layer) (io.ReadCloser, error) {
	if _, ok := l.(*storeLayer); ok { // does so itself
		return l.Compressed()
	}
	digest, err := l.Digest()
	if err != nil {
		return nil, err
	}
	size, err := l.Size()
	if err != nil {
		return nil, err
	}
	h, err := v1.Hasher(digest.Algorithm)
	if err != nil {
		return nil, err
	}
	raw, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	return &verifier{ReadCloser: raw, hash: h, sum: digest.Hex, size: size, wrong: fmt.Errorf("blob %s is not what its digest and size say", digest)}, nil
}

func newLayerReader(c *counter, raw io.ReadCloser, sum hash.Hash32) (*layerReader, error) {
	plain, stop, err := decompress(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	c.r = plain
	return &layerReader{Reader: tar.NewReader(c), raw: raw, sum: sum, stop: stop, count: c}, nil
}

type summedReader struct {
	io.ReadCloser
	sum hash.Hash32
}

func (r *summedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.sum.Write(p[:n])
	return n, err
}

func (r *layerReader) Next() (*tar.Header, error) {
	hdr, err := r.Reader.Next()
	if errors.Is(err, tar.ErrInsecurePath) && hdr != nil {
		err = nil // names are checked by entryOf, which says more
	}
	if err == nil {
		r.next++
	}
	return hdr, explainTar(err)
}

func explainTar(err error) error {
	switch {
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("not a tar archive, or a damaged one: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the archive is truncated: %w", err)
	}
	return err
}

// finishTar reads on to the end behind the archive's end marker. Zeros may
// follow, as tar pads its output to whole records; other bytes would be files
// that one tool sees and another does not.
func (r *layerReader) finishTar(diffID v1.Hash) error {
	buf := make([]byte, bufferSize)
	for {
		n, err := r.count.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return fmt.Errorf("there is data behind the end of the archive, within 256 KiB of byte %d", r.count.n)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if r.count.hash == nil {
		return nil
	}
	if got := hex.EncodeToString(r.count.hash.Sum(nil)); got != diffID.Hex {
		return fmt.Errorf("diff id is %s:%s, the image's config says %s", diffID.Algorithm, got, diffID)
	}
	return nil
}

// finishBlob verifies the blob without decompressing what is left of it.
func (r *layerReader) finishBlob() error {
	r.stop()
	r.stop = func() {}
	buf := make([]byte, bufferSize)
	for {
		if err := r.count.ctx.Err(); err != nil {
			return err
		}
		if _, err := r.raw.Read(buf); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (r *layerReader) Close() error {
	r.stop()
	return r.raw.Close()
}
