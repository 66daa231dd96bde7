package disk

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
)

// lockPoll is how often a lab that waits for another one's build looks again.
const lockPoll = 100 * time.Millisecond

// Cached gives the disk image of s from the cache in dir, building it when it is
// not there; the bool tells whether it was. The cache is named by s.Digest, for
// each image
//
//	HEX.img    the image
//	HEX.json   its Image, written last
//	HEX.lock   held while one process builds
//
// Two labs may share it, and all of it may be deleted while none is building.
func Cached(ctx context.Context, dir string, s Spec) (Image, bool, error) {
	if err := s.validate(); err != nil {
		return Image{}, false, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, false, fmt.Errorf("make disk cache %s: %w", dir, err)
	}
	name := strings.TrimPrefix(s.Digest(), "sha256:")
	base := filepath.Join(dir, name)
	if image, ok := readCached(base); ok {
		return image, true, nil
	}

	lock := flock.New(base + ".lock")
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return Image{}, false, fmt.Errorf("lock disk image %s.img: %w", base, err)
	}
	defer lock.Close()
	if image, ok := readCached(base); ok { // someone else built it
		return image, true, nil
	}
	// What a killed lab left while it held this lock.
	stale, _ := filepath.Glob(filepath.Join(dir, "."+name+".*"))
	for _, path := range stale {
		os.Remove(path)
	}
	image, err := Build(ctx, base+".img", s)
	if err != nil {
		return Image{}, false, err
	}
	b, err := json.Marshal(image)
	if err != nil {
		return Image{}, false, fmt.Errorf("write %s.json: %w", base, err)
	}
	if err := renameio.WriteFile(base+".json", b, 0o644, renameio.WithTempDir(dir)); err != nil {
		return Image{}, false, fmt.Errorf("write %s.json: %w", base, err)
	}
	return image, false, nil
}

// readCached finds a finished image. One that is not as it was written is none.
func readCached(base string) (Image, bool) {
	b, err := os.ReadFile(base + ".json")
	if err != nil {
		return Image{}, false
	}
	var image Image
	if json.Unmarshal(b, &image) != nil {
		return Image{}, false
	}
	image.Path = base + ".img" // the cache may have been moved
	info, err := os.Stat(image.Path)
	if err != nil || info.Size() != image.Size {
		return Image{}, false
	}
	return image, true
}
