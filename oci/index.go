package oci

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// selectManifest goes from an index, or an index in an index, to the manifest
// for a platform. What is a manifest already it gives back as it is; its
// platform is in its config.
func selectManifest(raw []byte, mediaType types.MediaType, want v1.Platform, get func(v1.Descriptor) ([]byte, error), depth int) ([]byte, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("manifest has %d bytes; at most %d are accepted", len(raw), maxManifest)
	}
	if !isIndex(raw, mediaType) {
		return raw, nil
	}
	if depth == maxNesting {
		return nil, fmt.Errorf("indexes are nested more than %d deep", maxNesting)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse index: %w", err)
	}
	best, rank := v1.Descriptor{}, 0
	var candidates []v1.Descriptor // that do not say their platform
	for _, d := range index.Manifests {
		switch {
		case d.Digest == (v1.Hash{}):
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			if d.MediaType == "" || d.MediaType.IsImage() || d.MediaType.IsIndex() {
				candidates = append(candidates, d)
			}
		default:
			if r := platformRank(want, *d.Platform); r > rank {
				best, rank = d, r
			}
		}
	}
	if rank == 0 {
		if len(candidates) != 1 {
			return nil, noPlatform(index, want)
		}
		best = candidates[0]
	}
	child, err := get(best)
	if err != nil {
		return nil, fmt.Errorf("manifest %s for %s: %w", best.Digest, want, err)
	}
	if err := checkDigest(child, best.Digest); err != nil {
		return nil, fmt.Errorf("manifest for %s: %w", want, err)
	}
	return selectManifest(child, best.MediaType, want, get, depth+1)
}

// isIndex goes by the content when the media type does not say.
func isIndex(raw []byte, mediaType types.MediaType) bool {
	if mediaType.IsIndex() {
		return true
	}
	if mediaType.IsImage() || mediaType.IsSchema1() {
		return false
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	return err == nil && (index.MediaType.IsIndex() || index.MediaType == "" && len(index.Manifests) > 0)
}

func noPlatform(index *v1.IndexManifest, want v1.Platform) error {
	seen := map[string]bool{}
	for _, d := range index.Manifests {
		// Attestations call themselves unknown/unknown.
		if d.Platform != nil && d.Platform.OS != "" && d.Platform.OS != "unknown" {
			p := normalPlatform(*d.Platform)
			seen[p.String()] = true
		}
	}
	if len(seen) == 0 {
		return errors.New("index holds no container image")
	}
	var names []string
	for p := range seen {
		names = append(names, p)
	}
	sort.Strings(names)
	return fmt.Errorf("no image for %s; there is %s", want, strings.Join(names, ", "))
}
