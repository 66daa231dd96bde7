package oci

import (
	"fmt"
	"sync/atomic"
)

// Limits bound what an image may cost once it is unpacked, so that a small
// hostile download cannot fill the disk or the memory. A field that is zero
// has its default, which is far above what honest images need.
type Limits struct {
	Bytes    int64 // of all layers unpacked, and again of all files that are left; default 256 GiB
	Entries  int64 // in all layers together, with directories that are only implied; default 2 million
	Metadata int64 // bytes of names, link targets and extended attributes, kept in memory; default 512 MiB
}

// LimitError says that an image is larger than [Limits] allow.
type LimitError struct {
	Field string // of Limits: Bytes, Entries or Metadata
	Limit int64  // that was in force
}

func (e *LimitError) Error() string {
	what := map[string]string{"Bytes": "bytes unpacked", "Entries": "entries", "Metadata": "bytes of names and attributes"}[e.Field]
	return fmt.Sprintf("image is larger than the limit of %d %s", e.Limit, what)
}

// What is bounded without a choice, because nothing honest comes near.
const (
	maxManifest = 4 << 20  // bytes; the distribution specification asks registries for at least this
	maxConfig   = 8 << 20  // bytes
	maxIndex    = 64 << 20 // bytes of a layout's index.json
	maxLayers   = 1024     // Docker's own bound is 127
	maxNesting  = 4        // indexes inside indexes
	maxPath     = 4096     // PATH_MAX: Linux opens nothing longer
	maxName     = 255      // NAME_MAX: bytes of one path component
	maxSymlinks = 40       // MAXSYMLINKS in linux/namei.h
	maxSteps    = 1 << 28  // path components looked up for one image; symlinks make them more than the names are
	maxWindow   = 1 << 27  // bytes of history a zstd frame may ask for: zstd --ultra --long=27
)

func (l Limits) withDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = 256 << 30
	}
	if l.Entries <= 0 {
		l.Entries = 2 << 20
	}
	if l.Metadata <= 0 {
		l.Metadata = 512 << 20
	}
	l.Bytes = min(l.Bytes, 1<<62) // room to read one more
	return l
}

// budget counts what an image has used of its limits. Layers are read in
// parallel and share one.
type budget struct {
	limits                   Limits
	bytes, entries, metadata atomic.Int64
}

func newBudget(l Limits) *budget { return &budget{limits: l.withDefaults()} }

func (b *budget) addBytes(n int64) error {
	return spend(&b.bytes, n, b.limits.Bytes, "Bytes")
}

func (b *budget) addEntry(metadata int64) error {
	if err := spend(&b.entries, 1, b.limits.Entries, "Entries"); err != nil {
		return err
	}
	return spend(&b.metadata, metadata, b.limits.Metadata, "Metadata")
}

func spend(used *atomic.Int64, n, limit int64, field string) error {
	// n alone may be near the largest int64: compare before adding.
	if n > limit || used.Add(n) > limit {
		return &LimitError{Field: field, Limit: limit}
	}
	return nil
}
