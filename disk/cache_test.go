package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestSpecDigest(t *testing.T) {
	base := testSpec(t)
	same := testSpec(t)
	same.Containers[0], same.Containers[1] = same.Containers[1], same.Containers[0]
	if base.Digest() != same.Digest() {
		t.Error("the order of containers changes the digest")
	}
	for what, change := range map[string]func(*Spec){
		"name":       func(s *Spec) { s.Containers[0].Name = "other" },
		"digest":     func(s *Spec) { s.Containers[0].Digest = "other" },
		"config":     func(s *Spec) { s.Containers[0].Config = []byte("other") },
		"store":      func(s *Spec) { s.Containers[0].Store = &Container{Name: "docker", Digest: "store"} },
		"containers": func(s *Spec) { s.Containers = s.Containers[:1] },
		"free":       func(s *Spec) { s.Free++ },
		"epoch":      func(s *Spec) { s.Epoch = s.Epoch.Add(1) },
	} {
		s := testSpec(t)
		change(&s)
		if s.Digest() == base.Digest() {
			t.Errorf("another %s does not change the digest", what)
		}
	}
	if (Spec{}).Digest() != (Spec{Epoch: time.Unix(0, 0)}).Digest() {
		t.Error("no epoch is not 1970")
	}
}

func TestCached(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disks")
	s := testSpec(t)
	var opened atomic.Int32
	for i := range s.Containers {
		open := s.Containers[i].Open
		s.Containers[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
			opened.Add(1)
			return open(ctx)
		}
	}
	cached := func(want bool, builds int32) Image {
		t.Helper()
		image, was, err := Cached(context.Background(), dir, s)
		if err != nil {
			t.Fatal(err)
		}
		if was != want || opened.Load() != 2*builds {
			t.Errorf("cached: %v, not %v, after %d containers", was, want, opened.Load())
		}
		return image
	}
	first := cached(false, 1)
	if again := cached(true, 1); again != first {
		t.Errorf("the image became %v, it was %v", again, first)
	}
	fsck(t, first.Path)

	// An image that lost its end, and what a killed build left.
	if err := os.Truncate(first.Path, 100); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(dir, "."+filepath.Base(first.Path)+"123")
	if err := os.WriteFile(stale, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if again := cached(false, 2); again != first {
		t.Errorf("the image became %v, it was %v", again, first)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", stale, err)
	}
}

// TestCachedTogether wants one image many times at once: it is built once.
func TestCachedTogether(t *testing.T) {
	dir := t.TempDir()
	var builds, fresh atomic.Int32
	s := testSpec(t)
	open := s.Containers[0].Open
	s.Containers[0].Open = func(ctx context.Context) (io.ReadCloser, error) {
		builds.Add(1)
		return open(ctx)
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			_, was, err := Cached(context.Background(), dir, s)
			if err != nil {
				t.Error(err)
			}
			if !was {
				fresh.Add(1)
			}
		})
	}
	all.Wait()
	if builds.Load() != 1 || fresh.Load() != 1 {
		t.Errorf("built %d times, said so %d times", builds.Load(), fresh.Load())
	}
}

func TestCachedError(t *testing.T) {
	dir := t.TempDir()
	s := testSpec(t)
	why := errors.New("no such layer")
	s.Containers[0].Open = func(context.Context) (io.ReadCloser, error) { return nil, why }
	if _, _, err := Cached(context.Background(), dir, s); !errors.Is(err, why) {
		t.Errorf("error is %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.img*"))
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left)+len(hidden) > 0 {
		t.Errorf("%v %v is left, error %v", left, hidden, err)
	}
}
