package demo

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Bounds on a kernel source archive. Linux 6.1 has 78,000 files and 1.3 GB.
const (
	maxEntries = 1 << 20
	maxBytes   = 16 << 30
	maxKept    = 8 << 20 // one file that a commit edits
)

// A source is a kernel source archive being read.
type source struct {
	tar   *tar.Reader
	file  *os.File
	plain io.Reader           // the uncompressed tar
	done  func() error        // waits for the decompressor
	kept  map[string]keptFile // the files asked for, once they have gone by
}

type keptFile struct {
	mode string // git's
	data []byte
}

// openSource opens an archive and says how far it is whenever another
// mebibyte of it has been read.
func openSource(ctx context.Context, name string, progress func(done, total int64, what string)) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	what := "import " + filepath.Base(name)
	counted := &countingReader{r: contextReader{ctx, f}, report: func(n int64) { progress(n, info.Size(), what) }}
	plain, done, err := decompress(ctx, name, counted)
	if err != nil {
		f.Close()
		return nil, err
	}
	buffered := bufio.NewReaderSize(plain, 1<<20)
	return &source{tar: tar.NewReader(buffered), file: f, plain: buffered, done: done, kept: make(map[string]keptFile)}, nil
}

// decompress picks the decompressor by the archive's suffix. For xz the host's
// own tool, which is several times as fast, goes before the Go one.
func decompress(ctx context.Context, name string, r io.Reader) (io.Reader, func() error, error) {
	nothing := func() error { return nil }
	switch filepath.Ext(name) {
	case ".xz":
		tool, err := exec.LookPath("xz")
		if err != nil {
			x, err := xz.NewReader(bufio.NewReaderSize(r, 1<<20))
			return x, nothing, err
		}
		cmd := command(ctx, tool, "-dc")
		cmd.Stdin = r
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, nil, fmt.Errorf("start xz: %w", err)
		}
		return out, func() error {
			out.Close()
			if err := cmd.Wait(); err != nil {
				return fmt.Errorf("xz: %w: %s", err, firstLine(stderr.String()))
			}
			return nil
		}, nil
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, nil, err
		}
		return z, func() error { z.Close(); return nil }, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		return z, nothing, err
	case ".bz2":
		return bzip2.NewReader(r), nothing, nil
	case ".tar":
		return r, nothing, nil
	}
	return nil, nil, fmt.Errorf("open archive %s: not a .tar, .tar.xz, .tar.zst, .tar.bz2 or .tar.gz", name)
}

// close ends the reading; after all of the archive was read it also says
// whether the decompressor was content with it.
func (s *source) close() error {
	err := s.done()
	s.file.Close()
	return err
}

// each calls f for every file of the archive, in its order, with the path below
// the archive's one top directory and git's mode for it. A symbolic link's
// content is its target; a hard link comes with no content and the path of the
// file it equals.
func (s *source) each(keep map[string]bool, f func(name, mode string, size int64, content io.Reader, link string) error) error {
	var entries, total int64
	modes := make(map[string]string)
	for {
		h, err := s.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if entries++; entries > maxEntries {
			return fmt.Errorf("read archive: more than %d entries", maxEntries)
		}
		if total += h.Size; h.Size < 0 || total > maxBytes {
			return fmt.Errorf("read archive: more than %d bytes", int64(maxBytes))
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := below(h.Name)
		if err != nil {
			return err
		}
		if name == "" || h.Typeflag == tar.TypeDir {
			continue // git keeps no directories
		}
		mode, size, content, link := "100644", h.Size, io.Reader(s.tar), ""
		switch h.Typeflag {
		case tar.TypeReg:
			if h.FileInfo().Mode()&0o111 != 0 {
				mode = "100755"
			}
		case tar.TypeSymlink:
			mode, size, content = "120000", int64(len(h.Linkname)), strings.NewReader(h.Linkname)
		case tar.TypeLink:
			if link, err = below(h.Linkname); err != nil {
				return err
			}
			if mode = modes[link]; mode == "" {
				return fmt.Errorf("read archive: %s is a hard link to %s, which has not come before", name, link)
			}
		default:
			return fmt.Errorf("read archive: %s is of type %q: only files, directories and links are expected", name, h.Typeflag)
		}
		modes[name] = mode
		if keep[name] && link == "" {
			if size > maxKept {
				return fmt.Errorf("read archive: %s has %d bytes, more than %d", name, size, maxKept)
			}
			data, err := io.ReadAll(content)
			if err != nil {
				return fmt.Errorf("read archive: %s: %w", name, err)
			}
			s.kept[name] = keptFile{mode, data}
			content = bytes.NewReader(data)
		}
		if err := f(name, mode, size, content, link); err != nil {
			return err
		}
	}
	// The decompressor must have come to its end and found its checksums right.
	if _, err := io.Copy(io.Discard, s.plain); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	return nil
}

// below strips the archive's top directory off an entry's name and refuses
// names that mean something else to git or to a file system. The top
// directory itself gives "".
func below(name string) (string, error) {
	clean := strings.TrimSuffix(strings.TrimPrefix(name, "./"), "/")
	if clean == "" || clean == "." {
		return "", nil
	}
	if !fs.ValidPath(clean) || len(clean) > 4096 || strings.ContainsAny(clean, "\n\x00") {
		return "", fmt.Errorf("read archive: odd path %q", name)
	}
	_, rest, _ := strings.Cut(clean, "/")
	for dir := rest; dir != "." && dir != ""; dir = path.Dir(dir) {
		if strings.EqualFold(path.Base(dir), ".git") {
			return "", fmt.Errorf("read archive: odd path %q", name)
		}
	}
	if strings.HasPrefix(rest, `"`) {
		return "", fmt.Errorf("read archive: odd path %q", name)
	}
	return rest, nil
}

// countingReader reports at every mebibyte, and at the end.
type countingReader struct {
	r        io.Reader
	n, said  int64
	report   func(n int64)
	finished bool
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if ended := err != nil && !c.finished; c.n-c.said >= 1<<20 || ended {
		c.said, c.finished = c.n, c.finished || ended
		c.report(c.n)
	}
	return n, err
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
