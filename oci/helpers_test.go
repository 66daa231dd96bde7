package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// file is one entry of a test layer; Name ends in / for a directory.
type file struct {
	Name string
	Body string
	Link string // with a hard link's type: its target
	Type byte   // 0: by Name and Link
	tar.Header
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		h.Name, h.Linkname, h.Typeflag, h.Size = f.Name, f.Link, f.Type, int64(len(f.Body))
		if h.Format == 0 {
			h.Format = tar.FormatPAX
		}
		if h.Typeflag != tar.TypeXGlobalHeader && h.ModTime.IsZero() {
			h.ModTime = time.Unix(1000, 0)
		}
		if h.Typeflag == 0 {
			switch {
			case f.Link != "":
				h.Typeflag = tar.TypeSymlink
			case strings.HasSuffix(f.Name, "/"):
				h.Typeflag = tar.TypeDir
			default:
				h.Typeflag = tar.TypeReg
			}
		}
		if h.Typeflag != tar.TypeXGlobalHeader && h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write header of %s: %v", f.Name, err)
		}
		if _, err := io.WriteString(w, f.Body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// blob is a layer of given bytes, with the diff id of the tar it came from.
type blob struct {
	v1.Layer
	diffID v1.Hash
}

func (b blob) DiffID() (v1.Hash, error) { return b.diffID, nil }

func layerOf(plain, stored []byte) v1.Layer {
	mt := types.OCIUncompressedLayer
	switch {
	case bytes.HasPrefix(stored, magicGzip):
		mt = types.OCILayer
	case bytes.HasPrefix(stored, magicZstd):
		mt = types.OCILayerZStd
	}
	h, _, _ := v1.SHA256(bytes.NewReader(plain))
	return blob{static.NewLayer(stored, mt), h}
}

// imageOf makes an image from the tars of its layers.
func imageOf(t testing.TB, tars ...[]byte) v1.Image {
	t.Helper()
	var layers []v1.Layer
	for _, b := range tars {
		layers = append(layers, layerOf(b, b))
	}
	return withLayers(t, layers...)
}

func withLayers(t testing.TB, layers ...v1.Layer) v1.Image {
	t.Helper()
	img, err := mutate.AppendLayers(linuxImage(t, "amd64"), layers...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func linuxImage(t testing.TB, arch string) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		&v1.ConfigFile{OS: "linux", Architecture: arch, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		t.Fatal(err)
	}
	return mutate.ConfigMediaType(img, types.OCIConfigJSON)
}

// flat is what a flattened stream holds, a line an entry, sorted by name.
func flat(t testing.TB, img v1.Image) ([]string, error) {
	t.Helper()
	r := Flatten(t.Context(), img)
	defer r.Close()
	return flatLines(t, r)
}

// flatLines describes a tar and checks what every stream must have: each name
// once, parents first, link targets first.
func flatLines(t testing.TB, r io.Reader) ([]string, error) {
	t.Helper()
	var lines []string
	seen := map[string]byte{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return lines, err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return lines, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		if _, ok := seen[name]; ok {
			t.Errorf("%s comes twice", name)
		}
		seen[name] = h.Typeflag
		if i := strings.LastIndex(name, "/"); i >= 0 && seen[name[:i]] != tar.TypeDir {
			t.Errorf("%s comes before its directory", name)
		}
		if h.Typeflag == tar.TypeLink {
			if kind, ok := seen[h.Linkname]; !ok || kind == tar.TypeLink || kind == tar.TypeDir {
				t.Errorf("%s is a link to %s, which is not there", name, h.Linkname)
			}
		}
		lines = append(lines, describe(h, body))
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "./ ") {
		t.Errorf("the first entry is not the root")
	}
	sort.Strings(lines)
	return lines, nil
}

func describe(h *tar.Header, body []byte) string {
	s := fmt.Sprintf("%s %c %o %d:%d", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid)
	if h.Linkname != "" {
		s += " -> " + h.Linkname
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		s += fmt.Sprintf(" dev %d:%d", h.Devmajor, h.Devminor)
	}
	if len(body) > 0 {
		s += fmt.Sprintf(" %q", body)
	}
	for _, x := range xattrLines(h) {
		s += " " + x
	}
	return s
}

func xattrLines(h *tar.Header) []string {
	var list []string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			list = append(list, fmt.Sprintf("%s=%q", name, v))
		}
	}
	sort.Strings(list)
	return list
}

// serve runs a registry on 127.0.0.1 and gives its host:port.
func serve(t testing.TB) (host string, server *httptest.Server) {
	t.Helper()
	server = httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), server
}

func push(t testing.TB, ref string, img remote.Taggable) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	switch img := img.(type) {
	case v1.Image:
		err = remote.Write(r, img)
	case v1.ImageIndex:
		err = remote.WriteIndex(r, img)
	}
	if err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func xzed(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := xz.NewWriter(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
