package lab

import (
	"context"

	"lab/lab/bundle"
)

// BundleInfo is what a verified bundle is.
type BundleInfo struct {
	Manifest  bundle.Manifest
	Signature *bundle.Signature // nil where there is none
}

// VerifyBundle verifies all of a bundle, and says what it is.
func (l *Lab) VerifyBundle(ctx context.Context, from BundleSource) (BundleInfo, error) {
	b, err := l.openBundle(ctx, from, false)
	if err != nil {
		return BundleInfo{}, err
	}
	defer b.Close()
	return BundleInfo{b.Manifest, b.Signature}, nil
}
