package bundle

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// RefusedError says why a bundle is not used: it is damaged, incomplete, or
// not what a bundle may be. Any other error of this package is about the
// machine it runs on.
type RefusedError struct {
	Bundle string // its path
	Member string // empty when it is about the bundle as a whole
	Reason string
}

func (e *RefusedError) Error() string {
	if e.Member == "" {
		return fmt.Sprintf("refuse bundle %s: %s", e.Bundle, e.Reason)
	}
	return fmt.Sprintf("refuse bundle %s: %s: %s", e.Bundle, e.Member, e.Reason)
}

// Bundle is an open bundle: verified, its members extracted.
type Bundle struct {
	Manifest  Manifest
	Signature *Signature // nil where there is none
	path      string
	dir       string
}

// Open verifies the whole bundle at path and extracts it into dir, which it
// makes and which must not exist yet. Files there are readable by their owner
// alone and never executable. When Open returns an error dir is gone again. What
// it refuses, it refuses with a *RefusedError.
func Open(ctx context.Context, path, dir string) (_ *Bundle, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", path, err)
	}
	defer func() {
		if err == nil {
			return
		}
		if removed := os.RemoveAll(dir); removed != nil {
			err = errors.Join(err, removed)
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", path, err)
	}
	defer root.Close()
	return open(ctx, path, dir, extractor{root}.create)
}

// Verify is Open without extracting anything.
func Verify(ctx context.Context, path string) (*Bundle, error) {
	return open(ctx, path, "", func(string) (io.WriteCloser, error) { return discard{}, nil })
}

// discard is io.Discard to be closed.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func open(ctx context.Context, path, dir string, create func(name string) (io.WriteCloser, error)) (*Bundle, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close()
	m, signature, err := read(contextReader{ctx, f}, create)
	var refused *RefusedError
	if errors.As(err, &refused) {
		refused.Bundle = path
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", path, err)
	}
	return &Bundle{Manifest: m, Signature: signature, path: path, dir: dir}, nil
}

// Path gives the path of an extracted member, or "" when the manifest lists no
// member of that name, or nothing was extracted.
func (b *Bundle) Path(member string) string {
	if b.dir == "" || !slices.ContainsFunc(b.Manifest.Members, func(m Member) bool { return m.Name == member }) {
		return ""
	}
	return filepath.Join(b.dir, filepath.FromSlash(member))
}

// Close removes what was extracted.
func (b *Bundle) Close() error { return os.RemoveAll(b.dir) }

// extractor makes the files of a bundle below a directory of its own.
type extractor struct{ root *os.Root }

func (x extractor) create(name string) (io.WriteCloser, error) {
	if err := x.root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return nil, err
	}
	return x.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// read verifies a bundle and writes each member to what create gives for it. It
// refuses with a *RefusedError.
func read(r io.Reader, create func(name string) (io.WriteCloser, error)) (m Manifest, signature *Signature, err error) {
	t := tarReader{r: bufio.NewReader(r), buffer: make([]byte, 64<<10)}
	manifest, err := t.small(manifestName, maxManifest)
	if err != nil {
		return Manifest{}, nil, err
	}
	var newer struct{ Format int }
	if json.Unmarshal(manifest, &newer) == nil && newer.Format > Format {
		return Manifest{}, nil, refuse(manifestName, "made by a newer lab: format %d, this lab knows format %d", newer.Format, Format)
	}
	listed, err := t.small(sumsName, maxManifest)
	if err != nil {
		return Manifest{}, nil, err
	}
	if !bytes.HasPrefix(listed, sums(manifest, nil)) {
		return Manifest{}, nil, refuse(manifestName, "damaged: its sha256 is %s, %s has another", digest(manifest), sumsName)
	}
	if m, err = decode(manifest); err != nil {
		return Manifest{}, nil, refuse(manifestName, "%v", err)
	}
	if !bytes.Equal(listed, sums(manifest, m.Members)) {
		return Manifest{}, nil, refuse(sumsName, "does not agree with %s", manifestName)
	}
	for _, member := range m.Members {
		if err := t.member(member, create); err != nil {
			return Manifest{}, nil, err
		}
	}
	// The first bytes of a header are the name, which zeros end.
	if next, _ := t.r.Peek(len(signatureName) + 1); string(next) == signatureName+"\x00" {
		armored, err := t.small(signatureName, maxSignature)
		if err != nil {
			return Manifest{}, nil, err
		}
		if signature, err = parseSignature(armored, listed); err != nil {
			return Manifest{}, nil, refuse(signatureName, "%v", err)
		}
	}
	return m, signature, t.end()
}

func refuse(member, format string, args ...any) error {
	return &RefusedError{Member: member, Reason: fmt.Sprintf(format, args...)}
}

// tarReader reads the members of a bundle that must be there.
type tarReader struct {
	r      *bufio.Reader
	buffer []byte // for contents
}

// small reads a member that is not in the manifest's list.
func (t tarReader) small(name string, limit int64) ([]byte, error) {
	// The size is the one thing not known beforehand.
	block, err := t.r.Peek(blockSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var size int64
	if len(block) == blockSize {
		size, err = strconv.ParseInt(strings.TrimRight(string(block[124:136]), "\x00 "), 8, 64)
		if err != nil || size < 0 {
			size = 0 // and the header will differ
		}
	}
	if err := t.header(name, 0o644, size); err != nil {
		return nil, err
	}
	if size > limit {
		return nil, refuse(name, "has %d bytes, more than %d", size, limit)
	}
	var content bytes.Buffer
	err = t.content(name, size, &content)
	return content.Bytes(), err
}

// member reads the next member of the manifest's list.
func (t tarReader) member(m Member, create func(string) (io.WriteCloser, error)) (err error) {
	if err := t.header(m.Name, m.Mode, m.Size); err != nil {
		return err
	}
	w, err := create(m.Name)
	if err != nil {
		return fmt.Errorf("extract: %w", err)
	}
	sum := newCounter()
	err = t.content(m.Name, m.Size, io.MultiWriter(sum, w))
	if closed := w.Close(); err == nil && closed != nil {
		err = fmt.Errorf("extract: %w", closed)
	}
	if err == nil && sum.digest() != m.SHA256 {
		err = refuse(m.Name, "damaged: its sha256 is %s, not %s", sum.digest(), m.SHA256)
	}
	return err
}

func (t tarReader) header(name string, mode, size int64) error {
	want, err := header(name, mode, size)
	if err != nil {
		return err
	}
	block := make([]byte, blockSize)
	if n, err := io.ReadFull(t.r, block); err != nil {
		return ended(err, name, "truncated: the tar ends after %d of the %d bytes of its header", n, blockSize)
	}
	if !bytes.Equal(block, want) {
		return refuse(name, "%s", oddity(block, want, name))
	}
	return nil
}

// content copies a member's content and reads its padding.
func (t tarReader) content(name string, size int64, w io.Writer) error {
	n, err := io.CopyBuffer(w, io.LimitReader(t.r, size), t.buffer)
	if err != nil {
		return fmt.Errorf("extract %s: %w", name, err)
	}
	if n < size {
		return refuse(name, "truncated at byte %d of %d", n, size)
	}
	pad := make([]byte, padding(size))
	if _, err := io.ReadFull(t.r, pad); err != nil {
		return ended(err, name, "truncated in the padding after its %d bytes", size)
	}
	if !allZero(pad) {
		return refuse(name, "its padding is not zero")
	}
	return nil
}

// end reads the end of the tar, two blocks of zeros, and makes sure that nothing
// follows.
func (t tarReader) end() error {
	tail, err := io.ReadAll(io.LimitReader(t.r, 2*blockSize+1))
	if err != nil {
		return err
	}
	switch {
	case len(tail) >= blockSize && entryName(tail[:blockSize]) != "":
		return refuse("", "the tar has %.120q, which the manifest does not have", entryName(tail[:blockSize]))
	case !allZero(tail) || len(tail) > 2*blockSize:
		return refuse("", "there is something after the last member")
	case len(tail) < 2*blockSize:
		return refuse("", "truncated: %d of the %d bytes that end the tar are there", len(tail), 2*blockSize)
	}
	return nil
}

// ended is a refusal if a read failed because there was no more.
func ended(err error, name, format string, args ...any) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(name, format, args...)
	}
	return err
}
