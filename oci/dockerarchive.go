package oci

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fromDockerArchive stores an image of what docker save wrote. Such an archive
// has no manifest of the image; the one made here is always the same for the
// same config and layers.
func (p *pull) fromDockerArchive(ctx context.Context) (*storeImage, error) {
	a, err := p.openArchive(ctx, p.ref.path)
	if err != nil {
		return nil, err
	}
	defer a.file.Close()
	raw, err := readAll(a.open, "manifest.json", maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not an archive of docker save: it has no manifest.json", p.ref.path)
	}
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := json.Unmarshal(raw, &images); err != nil {
		return nil, fmt.Errorf("parse manifest.json: %w", err)
	}
	img, err := chooseDocker(images, p.ref.tag)
	if err != nil {
		return nil, err
	}
	if len(img.Layers) > maxLayers {
		return nil, fmt.Errorf("image has %d layers; at most %d are accepted", len(img.Layers), maxLayers)
	}
	config, err := readAll(a.open, img.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	m := newManifest()
	p.progress(func(so *Progress) {
		so.AllLayers = len(img.Layers)
		for _, l := range img.Layers {
			so.Total += a.size(l)
		}
	})
	for i, l := range img.Layers {
		d, err := p.storeLayer(ctx, a.open, l)
		if err != nil {
			return nil, fmt.Errorf("layer %d of %d (%s): %w", i+1, len(img.Layers), l, err)
		}
		m.Layers = append(m.Layers, d)
		p.progress(func(so *Progress) { so.Layers++ })
	}
	return p.build(ctx, m, config)
}

// dockerImage is one image of an archive's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func chooseDocker(images []dockerImage, tag string) (dockerImage, error) {
	var tags []string
	for _, img := range images {
		for _, t := range img.RepoTags {
			if tag != "" && sameTag(t, tag) {
				return img, nil
			}
			tags = append(tags, t)
		}
	}
	switch {
	case len(images) == 0:
		return dockerImage{}, errors.New("manifest.json names no image")
	case tag != "":
		return dockerImage{}, fmt.Errorf("no image is tagged %s; there is %s", tag, strings.Join(append(tags, "nothing else"), ", "))
	case len(images) > 1:
		return dockerImage{}, fmt.Errorf("there are several images; name one by its tag: %s", strings.Join(tags, ", "))
	}
	return images[0], nil
}

// sameTag compares tags as docker reads them: app is docker.io/library/app:latest.
func sameTag(a, b string) bool {
	x, errX := name.NewTag(a)
	y, errY := name.NewTag(b)
	return a == b || errX == nil && errY == nil && x.Name() == y.Name()
}

func newManifest() *v1.Manifest {
	return &v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
}

// storeLayer stores a layer as it is, compressed or not.
func (p *pull) storeLayer(ctx context.Context, open func(string) (io.ReadCloser, error), file string) (v1.Descriptor, error) {
	rc, err := open(file)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer rc.Close()
	br := bufio.NewReader(rc)
	head, _ := br.Peek(6)
	d, err := p.store.put(&progressReader{ctx: ctx, r: br, p: p}, nil, p.budget.limits.Bytes)
	if err != nil {
		return v1.Descriptor{}, err
	}
	switch {
	case bytes.HasPrefix(head, magicGzip):
		d.MediaType = types.OCILayer
	case bytes.HasPrefix(head, magicZstd):
		d.MediaType = types.OCILayerZStd
	default:
		d.MediaType = types.OCIUncompressedLayer
	}
	return d, nil
}

// build stores an image whose layers are in the store and whose manifest is
// made here.
func (p *pull) build(ctx context.Context, m *v1.Manifest, config []byte) (*storeImage, error) {
	var err error
	if m.Config, err = p.store.put(bytes.NewReader(config), nil, maxConfig); err != nil {
		return nil, err
	}
	m.Config.MediaType = types.OCIConfigJSON
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	parsed, err := parseConfig(config, m)
	if err != nil {
		return nil, err
	}
	c := contents{raw, config, m, parsed}
	if err := c.checkPlatform(p.want); err != nil {
		return nil, err
	}
	return p.finish(ctx, c, c.descriptor().Digest)
}
