package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxArchive is how many files a layout or docker archive may hold; a layer
// has at most three there.
const maxArchive = 1 << 17

// archive is the files of an image in a tar, read where they are.
type archive struct {
	file  *os.File
	files map[string]archived
}

type archived struct {
	offset, size int64
	link         string // of a symbolic or hard link: its target, clean
}

// openArchive lists a tar. One that is compressed, or not a file to seek in,
// is unpacked into a file of the store's that has no name.
func (p *pull) openArchive(ctx context.Context, path string) (*archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f, err = p.seekable(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	a := &archive{file: f, files: map[string]archived{}}
	if err := a.list(ctx); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return a, nil
}

func (p *pull) seekable(ctx context.Context, f *os.File) (*os.File, error) {
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a directory")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if info.Mode().IsRegular() {
		head := make([]byte, 6)
		n, _ := f.ReadAt(head, 0)
		if !compressed(head[:n]) {
			return f, nil
		}
	}
	defer f.Close()
	plain, stop, err := decompressFile(&progressReader{ctx: ctx, r: f, p: &pull{}})
	if err != nil {
		return nil, err
	}
	defer stop()
	t, err := p.store.temp()
	if err != nil {
		return nil, err
	}
	os.Remove(t.Name())
	n, err := io.Copy(t, io.LimitReader(plain, p.budget.limits.Bytes+1))
	if err == nil && n > p.budget.limits.Bytes {
		err = &LimitError{"Bytes", p.budget.limits.Bytes}
	}
	if err == nil {
		_, err = t.Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func compressed(head []byte) bool {
	return bytes.HasPrefix(head, magicGzip) || bytes.HasPrefix(head, magicZstd) ||
		bytes.HasPrefix(head, magicXz) || bytes.HasPrefix(head, magicBzip2)
}

func (a *archive) list(ctx context.Context) error {
	tr := tar.NewReader(a.file)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return explainTar(err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(a.files) == maxArchive {
			return fmt.Errorf("archive has more than %d files", maxArchive)
		}
		file, err := cleanName(hdr.Name)
		if err != nil {
			return fmt.Errorf("entry %q: %w", hdr.Name, err)
		}
		switch hdr.Typeflag {
		case tar.TypeReg:
			if hdr.PAXRecords["GNU.sparse.major"] != "" || hdr.PAXRecords["GNU.sparse.map"] != "" {
				return fmt.Errorf("entry %q is sparse, which no image tool writes", hdr.Name)
			}
			// The reader has read this header and not a byte more.
			offset, err := a.file.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			a.files[file] = archived{offset: offset, size: hdr.Size}
		case tar.TypeLink:
			a.files[file] = archived{link: path.Clean(hdr.Linkname)}
		case tar.TypeSymlink: // docker save of old: a layer that was there already
			a.files[file] = archived{link: path.Join(path.Dir(file), hdr.Linkname)}
		}
	}
}

// find follows links to a file.
func (a *archive) find(file string) (archived, error) {
	file = path.Clean(file)
	for range maxSymlinks {
		f, ok := a.files[file]
		if !ok {
			return archived{}, fmt.Errorf("open %s in the archive: %w", file, fs.ErrNotExist)
		}
		if f.link == "" {
			return f, nil
		}
		file = f.link
	}
	return archived{}, fmt.Errorf("open %s in the archive: too many links", file)
}

// open gives the content of a file.
func (a *archive) open(file string) (io.ReadCloser, error) {
	f, err := a.find(file)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.NewSectionReader(a.file, f.offset, f.size)), nil
}

// size is that of a file, 0 when there is none.
func (a *archive) size(file string) int64 {
	f, err := a.find(file)
	if err != nil {
		return 0
	}
	return f.size
}

func (p *pull) fromLayoutArchive(ctx context.Context) (*storeImage, error) {
	a, err := p.openArchive(ctx, p.ref.path)
	if err != nil {
		return nil, err
	}
	defer a.file.Close()
	return p.fromFiles(ctx, a.open)
}

func (p *pull) fromLayout(ctx context.Context) (*storeImage, error) {
	info, err := os.Stat(p.ref.path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory; a file is read by oci-archive:, docker-archive: or rootfs: instead", p.ref.path)
	}
	return p.fromFiles(ctx, func(file string) (io.ReadCloser, error) {
		full := filepath.Join(p.ref.path, filepath.FromSlash(file))
		if info, err := os.Stat(full); err != nil {
			return nil, err
		} else if !info.Mode().IsRegular() { // opening a FIFO would wait for ever
			return nil, fmt.Errorf("%s is not a regular file", full)
		}
		return os.Open(full)
	})
}

func readAll(open func(string) (io.ReadCloser, error), file string, limit int64) ([]byte, error) {
	rc, err := open(file)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", file, limit)
	}
	return b, err
}

// fromFiles stores an image of a layout whose files open opens.
func (p *pull) fromFiles(ctx context.Context, open func(string) (io.ReadCloser, error)) (*storeImage, error) {
	marker, err := readAll(open, "oci-layout", 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not an OCI image layout: it has no file oci-layout", p.ref.path)
	}
	if err == nil {
		err = checkLayoutVersion(marker)
	}
	if err != nil {
		return nil, err
	}
	raw, err := readAll(open, "index.json", maxManifest)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse index.json: %w", err)
	}
	if index.Manifests, err = p.choose(index.Manifests); err != nil {
		return nil, err
	}
	index.MediaType = types.OCIImageIndex
	if raw, err = json.Marshal(index); err != nil {
		return nil, err
	}
	blobPath := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	get := func(d v1.Descriptor) ([]byte, error) { return readAll(open, blobPath(d.Digest), maxManifest) }
	manifest, err := selectManifest(raw, index.MediaType, p.want, get, -1) // index.json is no nesting
	if err != nil {
		return nil, err
	}
	resolved, _, _ := v1.SHA256(bytes.NewReader(manifest))
	if len(index.Manifests) == 1 {
		resolved = index.Manifests[0].Digest
	}
	blob := func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) { return open(blobPath(d.Digest)) }
	return p.fetch(ctx, source{manifest: manifest, resolved: resolved, blob: blob})
}

// choose picks what the reference's tag or digest names in index.json. Several
// with one name are one image for several platforms.
func (p *pull) choose(all []v1.Descriptor) ([]v1.Descriptor, error) {
	if p.ref.digest != (v1.Hash{}) {
		for _, d := range all {
			if d.Digest == p.ref.digest {
				return []v1.Descriptor{d}, nil
			}
		}
		return []v1.Descriptor{{Digest: p.ref.digest}}, nil // perhaps inside an index
	}
	var chosen []v1.Descriptor
	names := map[string]bool{}
	for _, d := range all {
		if d.MediaType != "" && !d.MediaType.IsImage() && !d.MediaType.IsIndex() {
			continue
		}
		// containerd's export writes the tag in the first and the whole
		// reference in the second.
		tag, full := d.Annotations[annotationRef], d.Annotations["io.containerd.image.name"]
		names[tag] = true
		if p.ref.tag == "" || tag == p.ref.tag || full == p.ref.tag {
			chosen = append(chosen, d)
		}
	}
	var list []string
	for n := range names {
		if n != "" {
			list = append(list, n)
		}
	}
	sort.Strings(list)
	switch {
	case len(chosen) == 0 && p.ref.tag != "" && len(list) > 0:
		return nil, fmt.Errorf("no image is tagged %s; there is %s", p.ref.tag, strings.Join(list, ", "))
	case len(chosen) == 0 && p.ref.tag != "":
		return nil, fmt.Errorf("no image is tagged %s, or anything", p.ref.tag)
	case len(chosen) == 0:
		return nil, errors.New("index.json names no image")
	case p.ref.tag == "" && len(names) > 1:
		return nil, fmt.Errorf("there are several images; name one by its tag: %s", strings.Join(list, ", "))
	}
	return chosen, nil
}
