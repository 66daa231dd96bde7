package disk

import (
	"context"
	"errors"
	"fmt"
)

// Build writes the disk image of s to path.
func Build(ctx context.Context, path string, s Spec) (Image, error) {
	if err := s.validate(); err != nil {
		return Image{}, err
	}
	return Image{}, fmt.Errorf("write disk image %s: %w", path, errors.ErrUnsupported)
}

// Cached gives the disk image of s from the cache in dir, building it when it
// is not there. The bool tells whether it was.
func Cached(ctx context.Context, dir string, s Spec) (Image, bool, error) {
	i, err := Build(ctx, dir, s)
	return i, false, err
}
