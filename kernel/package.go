package kernel

import (
	"context"
	"errors"
)

func FromPackage(ctx context.Context, cache, path string) (Kernel, error) {
	return Kernel{}, errors.New("read package " + path + ": not yet")
}
