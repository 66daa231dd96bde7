package corpus

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Tar is the layer's archive.
func (l Layer) Tar() []byte {
	b := Tar(l.Entries...)
	if l.Raw != nil {
		b = l.Raw(b)
	}
	return b
}

// Blob is the layer as it is stored.
func (l Layer) Blob() ([]byte, error) { return l.Packed.pack(l.Tar()) }

// skippable is a zstd frame that carries no data (RFC 8878, 3.1.2).
var skippable = []byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'l', 'a', 'b'}

func (p Packing) pack(plain []byte) ([]byte, error) {
	third := len(plain) / 3 // in the middle of a header or of data, which must not matter
	pieces := [][]byte{plain}
	if p == GzipMembers || p == ZstdFrames {
		pieces = [][]byte{plain[:third], plain[third : 2*third], nil, plain[2*third:]}
	}
	var b bytes.Buffer
	for _, piece := range pieces {
		switch p {
		case Plain:
			b.Write(piece)
		case Gzip, GzipMembers, GzipHeader:
			w := gzip.NewWriter(&b)
			if p == GzipHeader {
				w.Header = gzip.Header{Name: "layer.tar", Comment: "made for a test", Extra: []byte("LB\x03\x00lab")}
			}
			if _, err := w.Write(piece); err != nil {
				return nil, err
			}
			if err := w.Close(); err != nil {
				return nil, err
			}
		case Zstd, ZstdFrames, ZstdSkippable:
			w, err := zstd.NewWriter(nil)
			if err != nil {
				return nil, err
			}
			b.Write(w.EncodeAll(piece, nil))
			if err := w.Close(); err != nil {
				return nil, err
			}
		}
	}
	if p == ZstdSkippable {
		return bytes.Join([][]byte{skippable, b.Bytes(), skippable}, nil), nil
	}
	return b.Bytes(), nil
}

// mediaType is what a layer of that packing is called.
func (p Packing) mediaType(docker bool) types.MediaType {
	switch {
	case docker && p == Plain:
		return types.DockerUncompressedLayer
	case docker:
		return types.DockerLayer // Docker never had a name for zstd
	case p == Plain:
		return types.OCIUncompressedLayer
	case p == Zstd || p == ZstdFrames || p == ZstdSkippable:
		return types.OCILayerZStd
	}
	return types.OCILayer
}

// blob is a layer of given bytes with the diff id of what is packed in them.
type blob struct {
	v1.Layer
	diffID v1.Hash
}

func (b blob) DiffID() (v1.Hash, error) { return b.diffID, nil }

// Build makes the case's image, without an index around it.
func (c Case) Build() (v1.Image, error) {
	docker := c.Image == Docker || c.Image == DockerList
	manifestType, configType := types.OCIManifestSchema1, types.OCIConfigJSON
	if docker {
		manifestType, configType = types.DockerManifestSchema2, types.DockerConfigJSON
	}
	img, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, manifestType), configType),
		&v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	step := mutate.Addendum{History: v1.History{CreatedBy: "CMD made no layer", EmptyLayer: true}}
	var list []mutate.Addendum
	for _, l := range c.Layers {
		stored, err := l.Blob()
		if err != nil {
			return nil, fmt.Errorf("pack a layer of %s: %w", c.Name, err)
		}
		diffID, _, err := v1.SHA256(bytes.NewReader(l.Tar()))
		if err != nil {
			return nil, err
		}
		mediaType := l.Packed.mediaType(docker)
		if l.Type != "" {
			mediaType = types.MediaType(l.Type)
		}
		if c.Image == EmptyHistory {
			list = append(list, step)
		}
		list = append(list, mutate.Addendum{Layer: blob{static.NewLayer(stored, mediaType), diffID}, MediaType: mediaType, URLs: l.URLs, History: v1.History{CreatedBy: "ADD"}})
	}
	if c.Image == EmptyHistory {
		list = append(list, step)
	}
	if img, err = mutate.Append(img, list...); err != nil {
		return nil, fmt.Errorf("make image %s: %w", c.Name, err)
	}
	if c.Image == Untyped {
		return untyped(img)
	}
	return img, nil
}

// rewritten is an image with another manifest.
type rewritten struct {
	v1.Image
	raw []byte
}

func (r rewritten) RawManifest() ([]byte, error)        { return r.raw, nil }
func (r rewritten) Manifest() (*v1.Manifest, error)     { return v1.ParseManifest(bytes.NewReader(r.raw)) }
func (r rewritten) Digest() (v1.Hash, error)            { return partial.Digest(r) }
func (r rewritten) Size() (int64, error)                { return int64(len(r.raw)), nil }
func (r rewritten) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// untyped leaves the media type out of a manifest, as OCI 1.0 had it.
func untyped(img v1.Image) (v1.Image, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	field := fmt.Sprintf(`"mediaType":%q,`, types.OCIManifestSchema1)
	without := strings.Replace(string(raw), field, "", 1)
	if without == string(raw) {
		return nil, fmt.Errorf("manifest says no media type: %s", raw)
	}
	return rewritten{img, []byte(without)}, nil
}

// index puts the image into the index that its shape asks for, among images
// that must not be chosen.
func (c Case) index(img v1.Image) (v1.ImageIndex, error) {
	other, err := Case{Image: c.Image, Layers: one(File("wrong-platform", ""))}.Build()
	if err != nil {
		return nil, err
	}
	mediaType := types.OCIImageIndex
	if c.Image == DockerList {
		mediaType = types.DockerManifestList
	}
	entry := func(img mutate.Appendable, p *v1.Platform, annotations map[string]string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p, Annotations: annotations}}
	}
	wanted := entry(img, &v1.Platform{OS: "linux", Architecture: "amd64"}, nil)
	list := []mutate.IndexAddendum{
		entry(other, &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, nil),
		entry(other, &v1.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"}, nil),
	}
	switch c.Image {
	case Attested:
		// https://docs.docker.com/build/metadata/attestations/attestation-storage/
		digest, err := img.Digest()
		if err != nil {
			return nil, err
		}
		list = []mutate.IndexAddendum{entry(other, &v1.Platform{OS: "unknown", Architecture: "unknown"}, map[string]string{
			"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest.String(),
		}), wanted}
	case Nested:
		inner := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, mediaType), append(list, wanted)...)
		list = []mutate.IndexAddendum{entry(inner, nil, nil)}
	default:
		list = append(list, wanted)
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, mediaType), list...), nil
}

func (c Case) isIndex() bool {
	return c.Image == Index || c.Image == DockerList || c.Image == Attested || c.Image == Nested
}

// Push puts the case into a registry at host and gives the reference to it. img
// is the image that the reference leads to.
func (c Case) Push(host string) (ref string, img v1.Image, err error) {
	if img, err = c.Build(); err != nil {
		return "", nil, err
	}
	ref = host + "/" + strings.ToLower(c.Name) + ":1"
	r, err := name.ParseReference(ref)
	if err != nil {
		return "", nil, err
	}
	if !c.isIndex() {
		return ref, img, remote.Write(r, img, remote.WithNondistributable)
	}
	index, err := c.index(img)
	if err != nil {
		return "", nil, err
	}
	return ref, img, remote.WriteIndex(r, index, remote.WithNondistributable)
}

// WriteLayout writes the case as an OCI layout with the tag 1.
func (c Case) WriteLayout(dir string) error {
	img, err := c.Build()
	if err != nil {
		return err
	}
	tag := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "1"})
	to, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if !c.isIndex() {
		return to.AppendImage(img, tag)
	}
	index, err := c.index(img)
	if err != nil {
		return err
	}
	return to.AppendIndex(index, tag)
}
