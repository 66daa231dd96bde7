// Package disk turns containers into the two files a guest boots from: a disk
// image with every container's root file system and runtime configuration on
// it, and an initramfs. Neither needs root, a mount or a device: the image is
// written byte by byte, and the same inputs give the same bytes.
//
// A disk image is a GPT whose first partition, named [PartitionName], holds
// an ext4 file system with the same label (see lab/disk/ext4):
//
//	/containers/NAME/rootfs/…      the container's root file system
//	/containers/NAME/config.json   its OCI runtime configuration
//	/containers/NAME/STORE/…       its image as an engine keeps it, where one is to run it
//
// With a base, that is the rest of the file system.
//
// One that is to boot without lab has an EFI system partition as well: see Boot.
//
// The way back is Open, for images of anyone: partitions, files, differences.
package disk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// PartitionName is the GPT name of the partition with the containers, and the
	// label of the file system in it. The guest finds its disk by this name.
	PartitionName = "lab-root"

	// formatVersion is part of every spec's digest. It grows whenever the same
	// spec would give other bytes than before, so that no stale image is used.
	formatVersion = 3

	// maxSize is what ext4 keeps room for group descriptors for.
	maxSize = 1 << 40

	// maxConfig bounds one container's config.json. Real ones take some 10 kB.
	maxConfig = 16 << 20
)

// Container is one root file system to preload.
type Container struct {
	// Name is the folder below /containers: letters, digits, '_', '.' and '-',
	// at most 128, beginning with a letter or digit. Names are unique in a Spec.
	Name string
	// Digest names the content that Open streams, and stands for it in the
	// spec's digest: same Digest, same stream.
	Digest string
	// Config is written as config.json beside the root file system.
	Config []byte
	// Open gives the root file system as a tar stream (PAX, GNU or USTAR). It is
	// called once for each image that is really built.
	Open func(context.Context) (io.ReadCloser, error)
	// Store, when not nil, is what an engine has of the container's image in a store of its
	// own. Its Name is that of the folder; of the rest count Digest and Open.
	Store *Container
}

// Spec says what is on a disk.
type Spec struct {
	// Base, when not nil, is a root file system that becomes the disk's own, around
	// the containers: a userland to boot into or to chroot to. Of it count Digest
	// and Open. It must not have a /containers.
	Base *Container
	// Containers, in any order: they are written in the order of their names.
	Containers []Container
	// Free is the space in bytes that the guest finds free on the file system.
	Free int64
	// Size, when not 0, is what the disk measures in all, in bytes, whole MiB and at
	// most 1 TiB; what the content leaves of it is free. It stands in place of Free.
	Size int64
	// Epoch is the time of everything that brings none of its own: folders above
	// the root file systems, config.json, the file system itself. The zero time
	// stands for 1970-01-01.
	Epoch time.Time
	// Boot, when not nil, makes the disk boot by itself under UEFI firmware. The
	// ext4 partition is the same with and without.
	Boot *Boot
}

// Image is a finished disk image.
type Image struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // in bytes; the file is sparse and takes less
}

// Digest reads the image and gives the "sha256:…" of its bytes. That takes longer
// than to write them, and the spec's digest names them as well: it is for those
// who hand the file to others.
func (i Image) Digest(ctx context.Context) (string, error) {
	f, err := os.Open(i.Path)
	if err != nil {
		return "", fmt.Errorf("digest disk image: %w", err)
	}
	defer f.Close()
	digest, err := digestSparse(ctx, f, i.Size)
	if err != nil {
		return "", fmt.Errorf("digest disk image %s: %w", i.Path, err)
	}
	return digest, nil
}

// Digest is "sha256:…" over all that decides the image's bytes: format version,
// containers (name, digest, config), base, size or free space, epoch and boot
// files. Two specs with equal digests give equal images.
func (s Spec) Digest() string {
	h := sha256.New()
	put := func(b []byte) {
		putInt(h, int64(len(b)))
		h.Write(b)
	}
	put([]byte("lab disk"))
	putInt(h, formatVersion)
	putInt(h, s.Free)
	putInt(h, s.epoch().Unix())
	putInt(h, int64(s.epoch().Nanosecond()))
	putInt(h, s.Size)
	if s.Base != nil {
		put([]byte("base"))
		put([]byte(s.Base.Digest))
	}
	putInt(h, int64(len(s.Containers)))
	for _, c := range s.sorted() {
		put([]byte(c.Name))
		put([]byte(c.Digest))
		put(c.Config)
		if c.Store != nil {
			put([]byte("store"))
			put([]byte(c.Store.Name))
			put([]byte(c.Store.Digest))
		}
	}
	if s.Boot != nil {
		s.Boot.writeDigest(put)
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}

func putInt(h hash.Hash, n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.Write(b[:])
}

func (s Spec) epoch() time.Time {
	if s.Epoch.IsZero() {
		return time.Unix(0, 0)
	}
	return s.Epoch
}

// sorted is the containers by name.
func (s Spec) sorted() []Container {
	return slices.SortedStableFunc(slices.Values(s.Containers), func(a, b Container) int {
		return strings.Compare(a.Name, b.Name)
	})
}

var containerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// validate says what of the spec cannot be built, before anything is written.
func (s Spec) validate() error {
	if s.Free < 0 {
		return fmt.Errorf("check disk spec: free space of %d bytes is negative", s.Free)
	}
	switch {
	case s.Size != 0 && s.Free != 0:
		return fmt.Errorf("check disk spec: both a size of %d bytes and free space of %d are asked for", s.Size, s.Free)
	case s.Size < 0 || s.Size > maxSize || s.Size%mib != 0:
		return fmt.Errorf("check disk spec: size of %d bytes is not whole MiB up to 1 TiB", s.Size)
	case s.Base != nil && s.Base.Open == nil:
		return fmt.Errorf("check disk spec: the base has no root file system")
	}
	seen := make(map[string]bool)
	for _, c := range s.Containers {
		switch {
		case !containerName.MatchString(c.Name):
			return fmt.Errorf("check disk spec: container name %q is not made of letters, digits, '_', '.' and '-' beginning with a letter or digit", c.Name)
		case seen[c.Name]:
			return fmt.Errorf("check disk spec: two containers are called %q", c.Name)
		case c.Open == nil:
			return fmt.Errorf("check disk spec: container %q has no root file system", c.Name)
		case len(c.Config) > maxConfig:
			return fmt.Errorf("check disk spec: config.json of container %q has %d bytes, at most %d are allowed", c.Name, len(c.Config), maxConfig)
		}
		if !c.validStore() {
			return fmt.Errorf("check disk spec: container %q has no store %q: it is without content, or its name is taken or none", c.Name, c.Store.Name)
		}
		seen[c.Name] = true
	}
	if s.Boot != nil {
		return s.Boot.validate()
	}
	return nil
}

// validStore tells whether the container's store, where it has one, can be beside the rest.
func (c *Container) validStore() bool {
	s := c.Store
	return s == nil || s.Open != nil && containerName.MatchString(s.Name) && s.Name != "rootfs" && s.Name != "config.json"
}
