package demo

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func testImage(t *testing.T) v1.Image {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "lab")
	if err := os.WriteFile(binary, []byte("\x7fELF and so on"), 0o700); err != nil {
		t.Fatal(err)
	}
	img, err := Image(binary)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImage(t *testing.T) {
	img := testImage(t)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/bin/auditprobe"}) || config.OS != "linux" {
		t.Errorf("config is %+v", config)
	}
	got := make(map[string]string)
	r := mutate.Extract(img)
	defer r.Close()
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.FileInfo().Mode().String() + " " + string(data)
	}
	want := map[string]string{
		"bin":            "drwxr-xr-x ",
		"bin/auditprobe": "-rwxr-xr-x \x7fELF and so on",
		"etc":            "drwxr-xr-x ",
		"etc/group":      "-rw-r--r-- root:x:0:\n",
		"etc/passwd":     "-rw-r--r-- root:x:0:0:root:/:/bin/auditprobe\n",
		"tmp":            "dtrwxrwxrwx ",
	}
	for k := range maps.Keys(got) {
		if trimmed := strings.TrimSuffix(k, "/"); trimmed != k {
			got[trimmed] = got[k]
			delete(got, k)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}

	first, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := testImage(t).Digest(); err != nil || second != first {
		t.Errorf("made again: %s, %v, want %s", second, err, first)
	}
}

func TestImageRefuses(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if _, err := Image(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v does not name it", path, err)
		}
	}
}

func TestServe(t *testing.T) {
	img := testImage(t)
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	addr, stop, err := Serve(t.Context(), map[string]v1.Image{"app:1": img, "other/app:2": img})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"/app:1", "/other/app:2"} {
		ref, err := name.ParseReference(addr + key)
		if err != nil {
			t.Fatal(err)
		}
		pulled, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := pulled.Digest(); err != nil || got != want {
			t.Errorf("%s: pulled %s, %v, want %s", key, got, err, want)
		}
	}
	stop()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Errorf("%s still answers", addr)
	}
}

func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr, stop, err := Serve(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	stop() // waits for the end that the context began
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Errorf("%s still answers", addr)
	}
	if _, _, err := Serve(t.Context(), map[string]v1.Image{"Not A Name": testImage(t)}); err == nil || !strings.Contains(err.Error(), "Not A Name") {
		t.Errorf("odd name: error %v", err)
	}
}
