package kernel

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Limits on a package. A distribution kernel with all of its modules unpacks
// to less than a gigabyte.
const (
	maxMembers  = 16       // of the ar archive; a .deb has three
	maxControl  = 16 << 20 // bytes of control.tar, unpacked
	maxData     = 2 << 30  // bytes of data.tar, unpacked
	maxEntries  = 200_000  // files and directories in data.tar
	zstdMemory  = 256 << 20
	maxMetadata = 1 << 20 // bytes of the control file
)

// arMagic begins an ar archive (man 5 ar).
const arMagic = "!<arch>\n"

// deb is a Debian package: an ar archive of debian-binary, control.tar.* and
// data.tar.*, in this order (man 5 deb).
type deb struct {
	control, data member
	fields        map[string]string // of the control file
}

// member is a file in an ar archive.
type member struct {
	name string
	*io.SectionReader
}

// openDeb reads the package's outline and its control file.
func openDeb(r io.ReaderAt, size int64) (deb, error) {
	members, err := readAr(r, size)
	if err != nil {
		return deb{}, err
	}
	var d deb
	for i, m := range members {
		switch {
		case i == 0:
			version := make([]byte, 2)
			if m.name != "debian-binary" || m.Size() < 2 {
				return deb{}, errors.New("not a Debian package: it does not begin with debian-binary")
			}
			if _, err := m.ReadAt(version, 0); err != nil {
				return deb{}, err
			}
			if string(version) != "2." {
				return deb{}, fmt.Errorf("a Debian package of format %q, not 2.0", version)
			}
		case d.control.SectionReader == nil && strings.HasPrefix(m.name, "control.tar"):
			d.control = m
		case d.data.SectionReader == nil && strings.HasPrefix(m.name, "data.tar"):
			d.data = m
		}
	}
	if d.control.SectionReader == nil || d.data.SectionReader == nil {
		return deb{}, errors.New("a Debian package without control.tar or data.tar")
	}
	if d.fields, err = readControl(d.control); err != nil {
		return deb{}, fmt.Errorf("read %s: %w", d.control.name, err)
	}
	return d, nil
}

// readAr reads the headers of an ar archive (man 5 ar): 60 bytes of text each,
// the content padded to an even length.
func readAr(r io.ReaderAt, size int64) ([]member, error) {
	const headerLen = 60
	head := make([]byte, headerLen)
	if _, err := r.ReadAt(head[:len(arMagic)], 0); err != nil || string(head[:len(arMagic)]) != arMagic {
		return nil, errors.New("neither a Debian nor an RPM package: not an ar archive")
	}
	var members []member
	for at := int64(len(arMagic)); at < size; {
		if len(members) == maxMembers {
			return nil, fmt.Errorf("ar archive of more than %d members", maxMembers)
		}
		if _, err := r.ReadAt(head, at); err != nil {
			return nil, errors.New("truncated ar archive: it ends inside a header")
		}
		if string(head[58:]) != "`\n" {
			return nil, fmt.Errorf("damaged ar archive: no header at byte %d", at)
		}
		length, err := strconv.ParseInt(strings.TrimRight(string(head[48:58]), " "), 10, 64)
		if err != nil || length < 0 {
			return nil, fmt.Errorf("damaged ar archive: no size in the header at byte %d", at)
		}
		name := strings.TrimSuffix(strings.TrimRight(string(head[:16]), " "), "/")
		at += headerLen
		if length > size-at {
			return nil, fmt.Errorf("truncated ar archive: %d bytes of %s are missing", length-(size-at), printable([]byte(name)))
		}
		members = append(members, member{name, io.NewSectionReader(r, at, length)})
		at += length + length&1
	}
	return members, nil
}

// decompress returns the plain bytes of a stream that is compressed as the
// ending of its name says.
func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	r = bufio.NewReaderSize(r, 1<<20)
	switch path.Ext(name) {
	case ".xz":
		x, err := xz.NewReader(r)
		return io.NopCloser(x), err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(zstdMemory))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".bz2":
		return io.NopCloser(bzip2.NewReader(r)), nil
	case ".tar", ".ko", ".cpio":
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("%s is compressed in an unknown way", printable([]byte(name)))
}

// contents are the package's files.
func (d deb) contents() contents {
	return contents{
		kind: "package", name: d.fields["Package"], version: d.fields["Version"], depends: d.kernelDepends(),
		walk: func(ctx context.Context, visit func(string, io.Reader) error) error {
			if err := walkTar(d.data, maxData, regular(ctx, visit)); err != nil {
				return fmt.Errorf("read %s: %w", d.data.name, err)
			}
			return nil
		},
	}
}

// regular visits regular files only, for as long as ctx lasts.
func regular(ctx context.Context, visit func(string, io.Reader) error) func(string, *tar.Header, io.Reader) error {
	return func(name string, h *tar.Header, r io.Reader) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		return visit(name, r)
	}
}

// walkTar calls visit for each entry of a compressed tar with its clean path,
// "boot/vmlinuz-6.1", and its content. At most limit bytes are unpacked.
func walkTar(m member, limit int64, visit func(name string, h *tar.Header, r io.Reader) error) error {
	plain, err := decompress(m.name, io.NewSectionReader(m, 0, m.Size()))
	if err != nil {
		return err
	}
	defer plain.Close()
	return walkPlainTar(plain, limit, visit)
}

func walkPlainTar(plain io.Reader, limit int64, visit func(name string, h *tar.Header, r io.Reader) error) error {
	limited := &io.LimitedReader{R: plain, N: limit}
	archive := tar.NewReader(limited)
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && n == maxEntries && limit != math.MaxInt64 {
			err = fmt.Errorf("more than %d entries", maxEntries)
		}
		if err == nil {
			err = visit(strings.TrimPrefix(path.Clean("/"+h.Name), "/"), h, archive)
		}
		if err != nil {
			return errors.Join(err, tooMuch(limited, limit))
		}
	}
	// Read to its very end, where the checksum is.
	_, err := io.Copy(io.Discard, limited)
	return errors.Join(err, tooMuch(limited, limit))
}

// tooMuch explains what the end of a limited reader looks like to others.
func tooMuch(r *io.LimitedReader, limit int64) error {
	if r.N > 0 {
		return nil
	}
	return fmt.Errorf("unpacks to more than %d MiB", limit>>20)
}

// readControl returns the fields of the package's control file (man 5
// deb-control), folded lines joined.
func readControl(m member) (map[string]string, error) {
	var text []byte
	err := walkTar(m, maxControl, func(name string, h *tar.Header, r io.Reader) (err error) {
		if name == "control" && h.Typeflag == tar.TypeReg && text == nil {
			text, err = readAll(r, maxMetadata)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	last := ""
	for line := range bytes.Lines(text) {
		line := printable(bytes.TrimRight(line, "\r\n"))
		if strings.HasPrefix(line, " ") {
			fields[last] += "\n" + strings.TrimSpace(line)
		} else if name, value, ok := strings.Cut(line, ":"); ok {
			last = name
			fields[name] = strings.TrimSpace(value)
		}
	}
	if fields["Package"] == "" {
		return nil, errors.New("the control file names no package")
	}
	return fields, nil
}

// readAll is io.ReadAll for what must not be larger than limit.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return data, err
}

// kernelDepends names the packages that the package depends on and that may
// hold a kernel: linux-image-… and the like.
func (d deb) kernelDepends() []string {
	var names []string
	for _, field := range []string{"Pre-Depends", "Depends"} {
		for clause := range strings.SplitSeq(d.fields[field], ",") {
			clause, _, _ = strings.Cut(clause, "|")
			clause = strings.TrimSpace(clause)
			for _, prefix := range []string{"linux-image-", "linux-binary-", "linux-modules-"} {
				if strings.HasPrefix(clause, prefix) {
					names = append(names, clause)
				}
			}
		}
	}
	return names
}
