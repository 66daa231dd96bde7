package oci

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// contents is an image's two small documents, read and checked.
type contents struct {
	rawManifest, rawConfig []byte
	manifest               *v1.Manifest
	config                 *v1.ConfigFile
}

func (c contents) descriptor() v1.Descriptor {
	digest, size, _ := v1.SHA256(bytes.NewReader(c.rawManifest)) // reading memory does not fail
	return v1.Descriptor{MediaType: manifestType(c.manifest), Size: size, Digest: digest}
}

func (c contents) platform() v1.Platform {
	return normalPlatform(v1.Platform{OS: c.config.OS, Architecture: c.config.Architecture, Variant: c.config.Variant})
}

// manifestType says which of the two dialects a manifest is written in. OCI
// leaves mediaType out at times, Docker never does.
func manifestType(m *v1.Manifest) types.MediaType {
	if m.MediaType != "" {
		return m.MediaType
	}
	if m.Config.MediaType == types.DockerConfigJSON {
		return types.DockerManifestSchema2
	}
	return types.OCIManifestSchema1
}

// parseManifest reads an image manifest and refuses what is not a container
// image's, before any blob is fetched on its word.
func parseManifest(b []byte) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	switch {
	case m.SchemaVersion == 1 || m.MediaType.IsSchema1():
		return nil, errors.New("manifest is of Docker's schema 1, which was retired in 2019: push the image again with a tool of today")
	case m.SchemaVersion != 2:
		return nil, fmt.Errorf("manifest has schema version %d, want 2", m.SchemaVersion)
	case m.MediaType != "" && !m.MediaType.IsImage():
		return nil, fmt.Errorf("manifest is of type %q, which is not a container image's", m.MediaType)
	case m.Config.MediaType != "" && !m.Config.MediaType.IsConfig() && m.ArtifactType != "":
		return nil, fmt.Errorf("not a container image: it is an artifact of type %q", m.ArtifactType)
	case m.Config.MediaType != "" && !m.Config.MediaType.IsConfig():
		return nil, fmt.Errorf("not a container image: its config is of type %q", m.Config.MediaType)
	}
	return m, checkBlobs(m)
}

// checkBlobs refuses a manifest whose blobs cannot be what it says.
func checkBlobs(m *v1.Manifest) error {
	switch {
	case len(m.Layers) > maxLayers:
		return fmt.Errorf("manifest has %d layers; at most %d are accepted", len(m.Layers), maxLayers)
	case m.Config.Size < 0 || m.Config.Size > maxConfig:
		return fmt.Errorf("config is said to have %d bytes; at most %d are accepted", m.Config.Size, maxConfig)
	}
	sizes := map[v1.Hash]int64{}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if size, ok := sizes[d.Digest]; ok && size != d.Size {
			return fmt.Errorf("manifest gives blob %s two sizes, %d and %d", d.Digest, size, d.Size)
		}
		sizes[d.Digest] = d.Size
		if d.Digest == (v1.Hash{}) {
			return errors.New("manifest names a blob without a digest")
		}
		if d.Size < 0 {
			return fmt.Errorf("manifest gives blob %s a size of %d", d.Digest, d.Size)
		}
		if strings.HasSuffix(string(d.MediaType), "+encrypted") {
			return fmt.Errorf("layer %s is encrypted (%s): decrypt the image first", d.Digest, d.MediaType)
		}
	}
	return nil
}

// parseConfig reads the config and checks that it belongs to the manifest.
func parseConfig(b []byte, m *v1.Manifest) (*v1.ConfigFile, error) {
	c, err := v1.ParseConfigFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("parse config %s: %w", m.Config.Digest, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("config %s describes %d layers, the manifest has %d", m.Config.Digest, len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for i, h := range c.RootFS.DiffIDs {
		if h == (v1.Hash{}) {
			return nil, fmt.Errorf("config %s has no diff id for layer %d", m.Config.Digest, i+1)
		}
	}
	return c, nil
}

// checkPlatform refuses an image for another machine, when it says so.
func (c contents) checkPlatform(want v1.Platform) error {
	have := c.platform()
	if have.OS == "" && have.Architecture == "" {
		return nil
	}
	if platformRank(want, have) == 0 {
		return fmt.Errorf("image is for %s, not for %s", have, want)
	}
	return nil
}

// load reads an image from the store. The layers' sizes are compared, their
// digests when they are read.
func (s *Store) load(h v1.Hash) (*storeImage, error) {
	raw, err := s.bytes(h, maxManifest)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, err
	}
	config, err := s.bytes(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(config, m)
	if err != nil {
		return nil, err
	}
	for _, d := range m.Layers {
		if s.has(d) {
			continue
		}
		if _, err := os.Stat(s.blobPath(d.Digest)); err == nil {
			return nil, &damagedError{digest: d.Digest, path: s.blobPath(d.Digest)}
		}
		return nil, fmt.Errorf("layer %s is not in the store: %w", d.Digest, fs.ErrNotExist)
	}
	img := &storeImage{store: s, contents: contents{raw, config, m, c}}
	if img.Image, err = partial.CompressedToImage(img.contents); err != nil {
		return nil, err
	}
	return img, nil
}

// contents is the core from which partial makes the small methods of a
// v1.Image.
func (c contents) RawManifest() ([]byte, error)        { return c.rawManifest, nil }
func (c contents) RawConfigFile() ([]byte, error)      { return c.rawConfig, nil }
func (c contents) MediaType() (types.MediaType, error) { return manifestType(c.manifest), nil }
func (c contents) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	return nil, fmt.Errorf("layer %s has no content here", h)
}

// storeImage is an image in a Store.
type storeImage struct {
	v1.Image // the methods that need no layer
	contents
	store *Store
}

func (i *storeImage) RawManifest() ([]byte, error)        { return i.contents.RawManifest() }
func (i *storeImage) RawConfigFile() ([]byte, error)      { return i.contents.RawConfigFile() }
func (i *storeImage) MediaType() (types.MediaType, error) { return i.contents.MediaType() }

func (i *storeImage) Layers() ([]v1.Layer, error) {
	layers := make([]v1.Layer, len(i.manifest.Layers))
	for n := range layers {
		layers[n] = i.layer(n)
	}
	return layers, nil
}

func (i *storeImage) layer(n int) *storeLayer {
	return &storeLayer{store: i.store, desc: i.manifest.Layers[n], diffID: i.config.RootFS.DiffIDs[n]}
}

func (i *storeImage) LayerByDigest(h v1.Hash) (v1.Layer, error) {
	for n, d := range i.manifest.Layers {
		if d.Digest == h {
			return i.layer(n), nil
		}
	}
	if h == i.manifest.Config.Digest {
		return partial.ConfigLayer(i)
	}
	return nil, fmt.Errorf("image has no layer %s", h)
}

func (i *storeImage) LayerByDiffID(h v1.Hash) (v1.Layer, error) {
	for n, d := range i.config.RootFS.DiffIDs {
		if d == h {
			return i.layer(n), nil
		}
	}
	return nil, fmt.Errorf("image has no layer with diff id %s", h)
}

// storeLayer is a layer whose blob is in a Store.
type storeLayer struct {
	store  *Store
	desc   v1.Descriptor
	diffID v1.Hash
}

func (l *storeLayer) Digest() (v1.Hash, error)            { return l.desc.Digest, nil }
func (l *storeLayer) DiffID() (v1.Hash, error)            { return l.diffID, nil }
func (l *storeLayer) Size() (int64, error)                { return l.desc.Size, nil }
func (l *storeLayer) MediaType() (types.MediaType, error) { return l.desc.MediaType, nil }

// Compressed gives the blob as it is stored and fails at its end when it is
// not what its digest says.
func (l *storeLayer) Compressed() (io.ReadCloser, error) {
	h, err := v1.Hasher(l.desc.Digest.Algorithm)
	if err != nil {
		return nil, err
	}
	return l.open(h, l.desc.Digest.Hex)
}

// open gives the blob, and fails at its end when the hash of it is not sum.
func (l *storeLayer) open(h hash.Hash, sum string) (io.ReadCloser, error) {
	path := l.store.blobPath(l.desc.Digest)
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &verifier{ReadCloser: f, hash: h, sum: sum, size: l.desc.Size, wrong: &damagedError{digest: l.desc.Digest, path: path}}, nil
}

// Uncompressed gives the layer as a tar.
func (l *storeLayer) Uncompressed() (io.ReadCloser, error) {
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	plain, stop, err := decompress(rc)
	if err != nil {
		rc.Close()
		return nil, err
	}
	return &plainReader{plain, stop, rc}, nil
}

// plainReader is a decompressed blob.
type plainReader struct {
	io.Reader
	stop func()
	rc   io.Closer
}

func (r *plainReader) Close() error {
	r.stop()
	return r.rc.Close()
}

// verifier passes bytes on and holds the last of them back from being taken
// for good: it ends in io.EOF only when size and checksum were right.
type verifier struct {
	io.ReadCloser
	hash    hash.Hash
	sum     string // in hexadecimal, that hash should come to
	size, n int64
	wrong   error // what to say when they were not
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.n > v.size || err == io.EOF && (v.n != v.size || hex.EncodeToString(v.hash.Sum(nil)) != v.sum) {
		return n, v.wrong
	}
	return n, err
}
