package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/klauspost/compress/gzip"
)

// File is a member to be written. Its content is Data or, when Data is nil and
// Source is not empty, that of the file at the path Source.
type File struct {
	Name       string
	Executable bool // mode 0755, not 0644
	Data       []byte
	Source     string
	Gzip       bool // compress the content on the way
}

// Write writes a bundle. It fills in the manifest's format and members, makes
// its free text plain, and demands of it all that Open will. Sources are read
// twice: once for their digests, and again to be copied; one that changes in
// between is an error. After an error w may hold a part of a bundle: it should be
// a temporary file.
func Write(ctx context.Context, w io.Writer, m Manifest, files []File) error {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return compareNames(a.Name, b.Name) })
	m, err := describe(ctx, m, files)
	if err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	manifest, err := encode(m)
	if err != nil {
		return err
	}
	if len(manifest) > maxManifest {
		return fmt.Errorf("write bundle: the manifest has %d bytes, more than %d", len(manifest), maxManifest)
	}
	if _, err := decode(manifest); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}

	t := tarWriter{w: w}
	t.data(manifestName, manifest)
	t.data(sumsName, sums(manifest, m.Members))
	for i, f := range files {
		t.file(ctx, m.Members[i], f)
	}
	t.write(make([]byte, 2*blockSize))
	return t.err
}

func clonePackage(p *Package) *Package {
	if p == nil {
		return nil
	}
	clone := *p
	return &clone
}

// Plain is the manifest as it will be written: its free text made plain, its times
// in UTC.
func (m Manifest) Plain() Manifest {
	m.Format = Format
	m.Kernels = slices.Clone(m.Kernels)
	m.Images = slices.Clone(m.Images)
	m.Patches = slices.Clone(m.Patches)
	m.Runs = slices.Clone(m.Runs)
	m.Machine.Clock = m.Machine.Clock.UTC()
	if m.Culprit != nil {
		culprit := *m.Culprit
		culprit.Date = culprit.Date.UTC()
		culprit.Package = clonePackage(culprit.Package)
		m.Culprit = &culprit
	}
	for i := range m.Kernels {
		k := &m.Kernels[i]
		k.Package = clonePackage(k.Package)
		if k.Toolchain != nil {
			made := *k.Toolchain
			made.Tools = slices.Clone(made.Tools)
			k.Toolchain = &made
		}
	}
	for _, t := range m.texts() {
		*t.value = plain(*t.value)
	}
	return m
}

// describe gives the manifest as it will be written, from a first reading of
// all files.
func describe(ctx context.Context, m Manifest, files []File) (Manifest, error) {
	m = m.Plain()
	m.Members = make([]Member, len(files))
	for i, f := range files {
		content, raw := newCounter(), newCounter()
		if err := f.copy(ctx, content, raw); err != nil {
			return m, err
		}
		m.Members[i] = Member{Name: f.Name, Size: content.n, Mode: 0o644, SHA256: content.digest()}
		if f.Executable {
			m.Members[i].Mode = 0o755
		}
		want, compressed := m.compressed()[f.Name]
		if compressed != f.Gzip {
			return m, fmt.Errorf("add %s: Gzip is %v for it, and %v in the manifest", f.Name, f.Gzip, compressed)
		}
		if is := (Compressed{f.Name, "sha256:" + raw.digest(), raw.n}); compressed && is != want {
			return m, fmt.Errorf("add %s: %s has %d bytes and the digest %s, expected %d bytes and %s", f.Name, f.Source, is.Size, is.Digest, want.Size, want.Digest)
		}
	}
	return m, nil
}

// copy writes the file's content, as it is in the bundle, to w and, as it was
// before any compression, to raw.
func (f File) copy(ctx context.Context, w, raw io.Writer) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("add %s: %w", f.Name, err)
		}
	}()
	r := io.Reader(bytes.NewReader(f.Data))
	if f.Data == nil && f.Source != "" {
		source, err := openRegular(f.Source)
		if err != nil {
			return err
		}
		defer source.Close()
		r = source
	}
	r = io.TeeReader(contextReader{ctx, r}, raw)
	buffer := make([]byte, 1<<20)
	if !f.Gzip {
		_, err = io.CopyBuffer(w, r, buffer)
		return err
	}
	z, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(z, r, buffer); err != nil {
		return err
	}
	return z.Close()
}

// tarWriter writes members until the first error.
type tarWriter struct {
	w   io.Writer
	err error
}

func (t *tarWriter) write(p []byte) {
	if t.err == nil {
		if _, err := t.w.Write(p); err != nil {
			t.err = fmt.Errorf("write bundle: %w", err)
		}
	}
}

func (t *tarWriter) header(name string, mode, size int64) {
	if t.err != nil {
		return
	}
	block, err := header(name, mode, size)
	if err != nil {
		t.err = err
		return
	}
	t.write(block)
}

func (t *tarWriter) data(name string, content []byte) {
	size := int64(len(content))
	t.header(name, 0o644, size)
	t.write(content)
	t.write(make([]byte, padding(size)))
}

func (t *tarWriter) file(ctx context.Context, m Member, f File) {
	t.header(m.Name, m.Mode, m.Size)
	if t.err != nil {
		return
	}
	content := newCounter()
	err := f.copy(ctx, io.MultiWriter(content, &atMost{t.w, m.Size}), io.Discard)
	if errors.Is(err, errGrown) || err == nil && (content.n != m.Size || content.digest() != m.SHA256) {
		err = fmt.Errorf("add %s: %s changed while it was read", f.Name, f.Source)
	}
	if err != nil {
		t.err = err
		return
	}
	t.write(make([]byte, padding(m.Size)))
}

var errGrown = errors.New("more bytes than before")

// atMost passes on no more than n bytes.
type atMost struct {
	w io.Writer
	n int64
}

func (a *atMost) Write(p []byte) (int, error) {
	if a.n -= int64(len(p)); a.n < 0 {
		return 0, errGrown
	}
	return a.w.Write(p)
}

// counter takes the size and digest of what is written to it.
type counter struct {
	hash.Hash
	n int64
}

func newCounter() *counter { return &counter{Hash: sha256.New()} }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.Hash.Write(p)
}

func (c *counter) digest() string { return hex.EncodeToString(c.Sum(nil)) }

// contextReader ends with the context's cause when that is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// openRegular opens a file for reading. Anything but a regular file is an error,
// and a FIFO does not block.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
