package oci

import (
	"context"
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type Store struct{ dir string }

type Limits struct {
	Bytes    int64
	Entries  int64
	Metadata int64
}

func Open(dir string) (*Store, error) { return &Store{dir}, nil }

func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	return Image{}, errors.ErrUnsupported
}
func (s *Store) Get(ctx context.Context, digest string) (Image, error) {
	return Image{}, errors.ErrUnsupported
}
func Flatten(ctx context.Context, img v1.Image) io.ReadCloser { return nil }
func RuntimeSpec(img v1.Image) (*specs.Spec, error)          { return nil, errors.ErrUnsupported }
