package oci

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Store keeps images in a directory that is an OCI image layout
// (image-layout.md), so that other tools read it too:
//
//	oci-layout, index.json      index.json names each pinned manifest and the reference it came from
//	blobs/sha256/…              by digest; appear whole or not at all
//	headers/sha256/…            what is inside a layer (see table); made again when missing
//	tmp/                        files being written, and downloads to go on with
//
// Several processes may use one directory, and it may be deleted at any time.
type Store struct {
	dir string
}

// LayoutVersion is the content of the file oci-layout.
const LayoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// Annotations of a descriptor in index.json. The first is the layout
// specification's; the second is ours: the digest that a tag led to before
// the platform was chosen, by which a registry says cheaply 'still the same'.
const (
	annotationRef      = "org.opencontainers.image.ref.name"
	annotationResolved = "lab.resolved"
)

// Open makes dir a store, or opens the store that it is.
func Open(dir string) (*Store, error) {
	s, err := openLayout(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"headers/sha256", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
	}
	s.sweep()
	return s, nil
}

// openLayout is Open for somebody else's layout, which gets nothing of ours but
// the lock.
func openLayout(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	marker := filepath.Join(dir, "oci-layout")
	have, err := os.ReadFile(marker)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = renameio.WriteFile(marker, []byte(LayoutVersion), 0o644)
	case err == nil:
		err = checkLayoutVersion(have)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return &Store{dir: dir}, nil
}

func checkLayoutVersion(b []byte) error {
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("read oci-layout: %w", err)
	}
	if l.Version != "1.0.0" {
		return fmt.Errorf("oci-layout says version %q; only 1.0.0 is known", l.Version)
	}
	return nil
}

// sweep removes what a killed process left half written, and what it left of
// a download when nobody has gone on with it for a day. Whatever is younger
// may still be somebody's.
func (s *Store) sweep() {
	old := time.Now().Add(-24 * time.Hour)
	dir := filepath.Join(s.dir, "tmp")
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, err := f.Info(); err == nil && info.ModTime().Before(old) {
			removeUnlocked(filepath.Join(dir, f.Name()))
		}
	}
}

// removeUnlocked removes a file that nobody has locked.
func removeUnlocked(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		defer f.Close()
		if lockNamed(f, path) != nil {
			return
		}
	}
	os.Remove(path)
}

func (s *Store) blobPath(h v1.Hash) string {
	return filepath.Join(s.dir, "blobs", h.Algorithm, h.Hex)
}

// has says whether a blob is stored with the size it should have, and a small
// one with the right digest. What was damaged does not count: storing it again
// mends it.
func (s *Store) has(d v1.Descriptor) bool {
	info, err := os.Lstat(s.blobPath(d.Digest))
	if err != nil || !info.Mode().IsRegular() || info.Size() != d.Size {
		return false
	}
	const small = 1 << 20
	if d.Size > small {
		return true
	}
	_, err = s.bytes(d.Digest, small)
	return err == nil
}

// temp is a file in tmp/ that becomes a blob or goes away.
func (s *Store) temp() (*os.File, error) {
	dir := filepath.Join(s.dir, "tmp")
	if err := os.MkdirAll(dir, 0o755); err != nil { // somebody may have emptied the cache
		return nil, err
	}
	f, err := os.CreateTemp(dir, "blob-*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(0o644); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

// put stores what r holds, at most limit bytes, and says its digest. When
// want is given, other bytes than those are an error and nothing is stored.
func (s *Store) put(r io.Reader, want *v1.Descriptor, limit int64) (v1.Descriptor, error) {
	algorithm := "sha256"
	if want != nil {
		algorithm, limit = want.Digest.Algorithm, want.Size
	}
	h, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Descriptor{}, err
	}
	f, err := s.temp()
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	defer f.Close()
	n, err := io.CopyBuffer(io.MultiWriter(h, f), io.LimitReader(r, limit+1), make([]byte, 1<<20))
	if err != nil {
		return v1.Descriptor{}, err
	}
	got := v1.Descriptor{Size: n, Digest: v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(h.Sum(nil))}}
	switch {
	case want == nil && n > limit:
		return v1.Descriptor{}, &LimitError{Field: "Bytes", Limit: limit}
	case want != nil && n > want.Size:
		return v1.Descriptor{}, longer(*want)
	case want != nil && n < want.Size:
		return v1.Descriptor{}, &truncatedError{want.Digest, n, want.Size}
	case want != nil && got.Digest != want.Digest:
		return v1.Descriptor{}, &wrongBytesError{want: want.Digest, got: got.Digest}
	}
	if s.has(got) {
		return got, nil
	}
	if err := f.Sync(); err != nil {
		return v1.Descriptor{}, err
	}
	path := s.blobPath(got.Digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return v1.Descriptor{}, err
	}
	return got, os.Rename(f.Name(), path)
}

type truncatedError struct {
	digest    v1.Hash
	got, want int64
}

func (e *truncatedError) Error() string {
	return fmt.Sprintf("blob %s is truncated: %d of %d bytes arrived", e.digest, e.got, e.want)
}

// bytes reads a small blob and checks its digest.
func (s *Store) bytes(h v1.Hash, limit int64) ([]byte, error) {
	path := s.blobPath(h)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("blob %s is larger than %d bytes", h, limit)
	}
	if err := checkDigest(b, h); err != nil {
		return nil, &damagedError{digest: h, path: path}
	}
	return b, nil
}

func checkDigest(b []byte, want v1.Hash) error {
	h, err := v1.Hasher(want.Algorithm)
	if err != nil {
		return err
	}
	h.Write(b)
	if got := hex.EncodeToString(h.Sum(nil)); got != want.Hex {
		return fmt.Errorf("digest is %s:%s, not %s: the bytes are not those asked for", want.Algorithm, got, want)
	}
	return nil
}

// damagedError is a blob of the store that is no longer what its name says.
type damagedError struct {
	digest v1.Hash
	path   string
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("stored blob %s is damaged; remove %s and pull the image again", e.digest, e.path)
}

// Get gives an image that was pulled before, by the digest of its manifest.
// It never uses the network; an image that is not there is fs.ErrNotExist.
func (s *Store) Get(ctx context.Context, digest string) (Image, error) {
	h, err := v1.NewHash(digest)
	if err != nil {
		return Image{}, fmt.Errorf("get image %s: %w", digest, err)
	}
	if err := ctx.Err(); err != nil {
		return Image{}, fmt.Errorf("get image %s: %w", digest, err)
	}
	img, err := s.load(h)
	if err != nil {
		return Image{}, fmt.Errorf("get image %s: %w", digest, err)
	}
	pin := Pin{Digest: digest, Platform: img.platform().String()}
	if index, err := s.readIndex(); err == nil {
		for _, d := range index.Manifests {
			if d.Digest == h {
				pin.Reference = d.Annotations[annotationRef]
				if pin.Platform == "" && d.Platform != nil { // the config does not say: it is what was asked for
					pin.Platform = d.Platform.String()
				}
				break
			}
		}
	}
	return Image{Pin: pin, Image: img}, nil
}

// A Blob is a file of an image in the store, with the digest that it is named by.
type Blob struct {
	Digest v1.Hash
	Path   string
}

// Blobs gives the files of an image of the store: its manifest, its configuration
// and its layers, as they were pulled.
func (s *Store) Blobs(img Image) ([]Blob, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("list blobs of %s: %w", img.Pin.Digest, err)
	}
	manifest, err := v1.NewHash(img.Pin.Digest)
	if err != nil {
		return nil, fmt.Errorf("list blobs of %s: %w", img.Pin.Digest, err)
	}
	list := []Blob{{manifest, s.blobPath(manifest)}, {m.Config.Digest, s.blobPath(m.Config.Digest)}}
	for _, l := range m.Layers {
		list = append(list, Blob{l.Digest, s.blobPath(l.Digest)})
	}
	return list, nil
}

func (s *Store) readIndex() (*v1.IndexManifest, error) {
	f, err := os.Open(filepath.Join(s.dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return &v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxIndex))
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; remove it to begin afresh", f.Name(), err)
	}
	return index, nil
}

// lookup finds the descriptor that a reference was pinned to for a platform.
func (s *Store) lookup(ref string, p v1.Platform) (v1.Descriptor, bool) {
	index, err := s.readIndex()
	if err != nil {
		return v1.Descriptor{}, false
	}
	for _, d := range index.Manifests {
		if d.Annotations[annotationRef] == ref && d.Platform != nil && d.Platform.Equals(p) {
			return d, true
		}
	}
	return v1.Descriptor{}, false
}

// record writes into index.json what a reference means for a platform. The
// platform is the one asked for, which is what lookup has to go by.
func (s *Store) record(ctx context.Context, ref string, p v1.Platform, d v1.Descriptor, resolved v1.Hash) error {
	entry := v1.Descriptor{
		MediaType: d.MediaType, Size: d.Size, Digest: d.Digest, Platform: &p,
		Annotations: map[string]string{annotationRef: ref, annotationResolved: resolved.String()},
	}
	return s.name(ctx, entry, func(old v1.Descriptor) bool {
		return old.Annotations[annotationRef] == ref && old.Platform != nil && old.Platform.Equals(p)
	})
}

// name puts an entry into index.json, in the place of those that it replaces.
func (s *Store) name(ctx context.Context, entry v1.Descriptor, replaces func(v1.Descriptor) bool) error {
	lock := flock.New(filepath.Join(s.dir, ".lock"), flock.SetPermissions(0o644))
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("lock store %s: %w", s.dir, err)
	}
	defer lock.Close()
	index, err := s.readIndex()
	if err != nil {
		return err
	}
	kept := []v1.Descriptor{entry}
	for _, old := range index.Manifests {
		if !replaces(old) {
			kept = append(kept, old)
		}
	}
	sort.SliceStable(kept, func(i, j int) bool { return indexKey(kept[i]) < indexKey(kept[j]) })
	index.Manifests = kept
	b, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(s.dir, "index.json"), append(b, '\n'), 0o644)
}

func indexKey(d v1.Descriptor) string {
	key := d.Annotations[annotationRef]
	if d.Platform != nil {
		key += " " + d.Platform.String()
	}
	return key
}
