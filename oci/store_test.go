package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestStoreMendsItself(t *testing.T) {
	host, server := serve(t)
	push(t, host+"/app:1", oneFile(t, "x"))
	s := newStore(t)
	img, err := s.Pull(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	layers, _ := img.Layers()
	digest, _ := layers[0].Digest()
	path := s.blobPath(digest)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The size is right, the bytes are not: named when it is read.
	bad := append([]byte{}, good...)
	bad[len(bad)-1] ^= 1
	if err := os.WriteFile(path, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = flat(t, img)
	if err == nil || !strings.Contains(err.Error(), "is damaged; remove "+path) {
		t.Errorf("flatten a damaged layer: %v", err)
	}
	// Doing so helps.
	os.Remove(path)
	if _, err := s.Get(t.Context(), img.Pin.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get an image without a layer: %v", err)
	}
	if img, err = s.Pull(t.Context(), host+"/app:1", amd64); err != nil {
		t.Fatal(err)
	}
	content(t, img)
	// A blob cut short is fetched again without being asked.
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if img, err = s.Pull(t.Context(), host+"/app:1", amd64); err != nil {
		t.Fatal(err)
	}
	content(t, img)
	// The table of a layer is made again when it is lost or spoiled.
	tables, _ := filepath.Glob(filepath.Join(s.dir, "headers/sha256/*"))
	if len(tables) != 1 {
		t.Fatalf("tables: %v", tables)
	}
	ok(t, os.WriteFile(tables[0], []byte("nonsense\n"), 0o644))
	content(t, img)
	os.RemoveAll(filepath.Join(s.dir, "headers"))
	content(t, img)
	// And nobody needs the registry for all this.
	server.Close()
	if _, err := s.Get(t.Context(), img.Pin.Digest); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get what is not there: %v", err)
	}
	if _, err := s.Get(t.Context(), "nonsense"); err == nil {
		t.Error("get nonsense gave no error")
	}
}

func TestStoreIsALayout(t *testing.T) {
	host, _ := serve(t)
	s := newStore(t)
	img := oneFile(t, "x")
	push(t, host+"/app:1", img)
	if _, err := s.Pull(t.Context(), host+"/app:1", amd64); err != nil {
		t.Fatal(err)
	}
	// Read back as any layout, by the reference it was pulled by.
	again, err := newStore(t).Pull(t.Context(), "oci:"+s.dir+":docker://"+host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if again.Pin.Digest != digestOf(t, img) {
		t.Errorf("digest %s", again.Pin.Digest)
	}
	ok(t, filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		info, err := d.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0o644)
		if d.IsDir() {
			want = 0o755
		}
		if path != s.dir && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	}))
	if err := os.WriteFile(filepath.Join(s.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir); err == nil {
		t.Error("opened a layout of another version")
	}
}

// Two processes, here two stores, in one directory.
func TestStoreShared(t *testing.T) {
	host, _ := serve(t)
	dir := t.TempDir()
	const n = 8
	for i := range n {
		push(t, fmt.Sprintf("%s/app:%d", host, i), oneFile(t, fmt.Sprint(i)))
	}
	var wg sync.WaitGroup
	for range 3 {
		s, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			wg.Go(func() {
				if _, err := s.Pull(t.Context(), fmt.Sprintf("%s/app:%d", host, i), amd64); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	var index v1.IndexManifest
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &index); err != nil || len(index.Manifests) != n {
		t.Errorf("index.json has %d entries, error %v", len(index.Manifests), err)
	}
}

// A tag that has not moved costs one HEAD, which registries do not count.
func TestPullAgainAsksLittle(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	host := faulty(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path)
		next.ServeHTTP(w, r)
	})
	push(t, host+"/app:1", indexOf(t, types.OCIImageIndex, "linux/amd64", "linux/arm64"))
	s := newStore(t)
	for range 2 {
		asked = nil
		if _, err := s.Pull(t.Context(), host+"/app:1", amd64); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"GET /v2/", "HEAD /v2/app/manifests/1"}, asked); diff != "" {
		t.Error(diff)
	}
}

// An image whose config names no platform is pinned to the one that was asked for, whenever
// it is taken from the store.
func TestPlatformUnsaid(t *testing.T) {
	host, _ := serve(t)
	s := newStore(t)
	layer := tarOf(t, f("a", "1"))
	img, err := mutate.AppendLayers(empty.Image, layerOf(layer, layer))
	ok(t, err)
	push(t, host+"/bare:1", img)
	pulled, err := s.Pull(t.Context(), host+"/bare:1", amd64)
	ok(t, err)
	got, err := s.Get(t.Context(), pulled.Pin.Digest)
	ok(t, err)
	if got.Pin != pulled.Pin || got.Pin.Platform != "linux/amd64" {
		t.Errorf("pinned to %+v, found as %+v", pulled.Pin, got.Pin)
	}
}
