package oci

import (
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// FirstLayers is an image without its layers behind the first n: what was there
// when so much of it had been built, with the configuration of the whole. Its
// Pin has a digest of its own.
func FirstLayers(img Image, n int) (Image, error) {
	layers, err := img.Layers()
	if err != nil {
		return Image{}, err
	}
	if n < 0 || n > len(layers) {
		return Image{}, fmt.Errorf("image %s has %d layers, not %d", imageName(img), len(layers), n)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return Image{}, err
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs, config.History = nil, nil
	cut, err := mutate.ConfigFile(empty.Image, config)
	if err == nil {
		cut, err = mutate.AppendLayers(cut, layers[:n]...)
	}
	if err != nil {
		return Image{}, fmt.Errorf("take %d layers of image %s: %w", n, imageName(img), err)
	}
	digest, err := cut.Digest()
	if err != nil {
		return Image{}, fmt.Errorf("take %d layers of image %s: %w", n, imageName(img), err)
	}
	pin := img.Pin
	pin.Digest = digest.String()
	return Image{Pin: pin, Image: cut}, nil
}

// LayerTitles says of each layer what made it, as far as the image's history
// tells; the empty string where it does not. See the image specification,
// config.md, "history".
func LayerTitles(img v1.Image) ([]string, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	titles := make([]string, len(config.RootFS.DiffIDs))
	at := 0
	for _, h := range config.History {
		if h.EmptyLayer {
			continue
		}
		if at == len(titles) {
			return make([]string, len(titles)), nil // a history of something else
		}
		titles[at] = strings.Join(strings.Fields(h.CreatedBy), " ")
		at++
	}
	return titles, nil
}
