package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"lab/lab/bundle"
	"lab/oci"
)

// memberImages is the folder of a bundle that has the images, an OCI layout.
const memberImages = "inputs/images"

// The name that a layout's index gives an image (image-spec, annotations.md).
const refName = "org.opencontainers.image.ref.name"

// images adds the container images as an OCI image layout (image-layout.md): the
// disk can be made of it again.
func (p *pack) images(ctx context.Context) error {
	store, err := p.store()
	if err != nil {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	added := map[string]bool{}
	for _, i := range p.manifest.Images {
		img, err := store.Get(ctx, i.Digest)
		if err != nil {
			return err
		}
		d, err := partial.Descriptor(img)
		if err != nil {
			return fmt.Errorf("describe image %s: %w", i.Digest, err)
		}
		if i.Name != "" {
			d.Annotations = map[string]string{refName: i.Name}
		}
		index.Manifests = append(index.Manifests, *d)
		blobs, err := store.Blobs(img)
		if err != nil {
			return err
		}
		plain, err := plainLayers(img)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			name := path.Join(memberImages, "blobs", b.Digest.Algorithm, b.Digest.Hex)
			if added[name] {
				continue
			}
			added[name] = true
			file := bundle.File{Name: name, Source: b.Path}
			if size, ok := plain[b.Digest]; ok && size > 0 {
				file.Name, file.Gzip = bundle.LayerMember(memberImages, b.Digest.String()), true
				p.manifest.Layers = append(p.manifest.Layers, bundle.Compressed{Member: file.Name, Digest: b.Digest.String(), Size: size})
			}
			p.files = append(p.files, file)
		}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("encode index of images: %w", err)
	}
	p.files = append(p.files,
		bundle.File{Name: path.Join(memberImages, "index.json"), Data: data},
		bundle.File{Name: path.Join(memberImages, "oci-layout"), Data: []byte(oci.LayoutVersion)})
	p.manifest.Layout = memberImages
	return nil
}

// plainLayers gives the layers of an image that are not compressed, with their sizes, as
// those that are made of a root file system's tar.
func plainLayers(img oci.Image) (map[v1.Hash]int64, error) {
	m, err := img.Manifest()
	if err != nil {
		return nil, fmt.Errorf("list layers of %s: %w", img.Pin.Digest, err)
	}
	plain := map[v1.Hash]int64{}
	for _, l := range m.Layers {
		if l.MediaType == types.OCIUncompressedLayer || l.MediaType == types.DockerUncompressedLayer {
			plain[l.Digest] = l.Size
		}
	}
	return plain, nil
}

// rebuildDisk makes the disk of a bundle that does not have it of the images that
// it has. Another lab may write another disk: that is an error.
func (r *rerunner) rebuildDisk(ctx context.Context) error {
	m := r.bundle.Manifest
	store, err := oci.Open(filepath.Join(r.dir, "oci"))
	if err != nil {
		return err
	}
	layout := filepath.Dir(r.bundle.Path(path.Join(m.Layout, "index.json")))
	for _, l := range m.Layers {
		if err := r.bundle.Expand(ctx, l.Member, strings.TrimSuffix(r.bundle.Path(l.Member), ".gz")); err != nil {
			return err
		}
	}
	s := Spec{Free: m.Disk.Free, Test: m.Test}
	s.Limits.Bytes = 8 * m.Disk.Size // layers may write the same file again and again
	for _, i := range m.Images {
		load := Load{Name: i.Name, Reference: "oci:" + layout + "@" + i.Digest}
		img, err := store.Pull(ctx, load.Reference, oci.PullOptions{Platform: m.Platform, Limits: s.Limits})
		if err != nil {
			return &bundle.RefusedError{Bundle: r.file, Member: m.Layout, Reason: err.Error()}
		}
		if img.Pin.Digest != i.Digest {
			return &bundle.RefusedError{Bundle: r.file, Member: m.Layout, Reason: fmt.Sprintf("image %s is %s, not %s", i.Name, img.Pin.Digest, i.Digest)}
		}
		if load.Name == "" {
			s.Base = load.Reference
			continue
		}
		s.Images = append(s.Images, load)
	}
	r.Progress.Show("making the disk of the bundle's images")
	defer r.Progress.Show("")
	d, err := r.diskOf(ctx, store, s, m.Images, nil, r.disk)
	if err != nil {
		return fmt.Errorf("make the disk of the bundle's images: %w", err)
	}
	digest, err := d.Digest(ctx)
	if err == nil && digest != m.Disk.Digest {
		err = fmt.Errorf("this lab makes another disk of the bundle's images than lab %s did (%s, not %s): rerun it with that one, or ask for the whole bundle", m.Lab, digest, m.Disk.Digest)
	}
	return err
}
