package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"lab/lab/corpus"
	"lab/lab/corpus/listing"
)

// Any bytes as layers: refused, or a stream in which every promise of Flatten
// is kept.
func FuzzFlatten(f *testing.F) {
	one := tarOf(f, dir("a/"), file{Name: "a/b", Body: "B"}, symlink("l", "a"), hardlink("h", "a/b"))
	two := tarOf(f, file{Name: "a/.wh.b"}, file{Name: "l/c", Body: "C"}, file{Name: "x/.wh..wh..opq"})
	f.Add(one, two)
	f.Add(gzipped(f, one), zstded(f, two))
	f.Add(tarOf(f, file{Name: "../x"}), two)
	for _, c := range corpus.All() {
		var layers [][]byte
		for _, l := range c.Layers {
			layers = append(layers, must(l.Blob()))
		}
		if len(layers) > 0 && len(layers[0]) < 8<<10 {
			f.Add(layers[0], layers[len(layers)-1])
		}
	}
	f.Add(tarOf(f, file{Name: strings.Repeat("n/", 200), Header: tar.Header{PAXRecords: map[string]string{"SCHILY.xattr.a": "b", "LIBARCHIVE.xattr.c": "ZA=="}}}), one)
	f.Fuzz(func(t *testing.T, one, two []byte) {
		img := withLayers(t, layerOf(plainOf(one), one), layerOf(plainOf(two), two))
		r := Limits{Bytes: 4 << 20, Entries: 2000, Metadata: 1 << 20}.Flatten(t.Context(), img)
		defer r.Close()
		checkStream(t, r)
	})
}

// plainOf decompresses what can be, so that the diff id is right.
func plainOf(b []byte) []byte {
	r, stop, err := decompress(bytes.NewReader(b))
	if err != nil {
		return b
	}
	defer stop()
	plain, err := io.ReadAll(io.LimitReader(r, 8<<20))
	if err != nil {
		return b
	}
	return plain
}

// checkStream reads a flattened stream, which is refused with an error of its own
// or holds what Flatten promises.
func checkStream(t *testing.T, r io.Reader) {
	t.Helper()
	seen := map[string]byte{}
	watched := &watchedReader{r: r}
	tr := tar.NewReader(watched)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			if watched.err == nil {
				t.Fatalf("the stream is not a tar: %v", err)
			}
			return // refused
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			return
		}
		name := strings.TrimSuffix(h.Name, "/")
		if name != "." && (name != path.Clean(name) || strings.HasPrefix(name, "/") || strings.HasPrefix(name, "..") && (len(name) == 2 || name[2] == '/')) {
			t.Fatalf("name %q", h.Name)
		}
		if _, ok := seen[name]; ok {
			t.Fatalf("%q comes twice", name)
		}
		if len(seen) == 0 && h.Name != "./" {
			t.Fatalf("the stream begins with %q", h.Name)
		}
		if dir := path.Dir(name); seen[dir] != tar.TypeDir && len(seen) > 0 {
			t.Fatalf("%q comes before its directory", name)
		}
		if kind, ok := seen[h.Linkname]; h.Typeflag == tar.TypeLink && (!ok || kind == tar.TypeLink || kind == tar.TypeDir) {
			t.Fatalf("%q is a link to %q, which is not there", name, h.Linkname)
		}
		if strings.HasPrefix(path.Base(name), whiteout) {
			t.Fatalf("a whiteout is left: %q", name)
		}
		seen[name] = h.Typeflag
	}
}

// watchedReader remembers the error with which a reader ended.
type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// Layers of a few names, in every combination of types: both implementations
// of the layer rules agree, and so does overlayfs with what an engine's store has.
func FuzzMerge(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\xff\x06\x07\x08\x09\x0a\x0b"))
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz\xffABCDEFGHIJKLMNOPQRSTUVWXYZ\xff0123456789"))
	names := []string{"a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "b/c/a", "a/.wh.b", ".wh.a", ".wh.b", "a/.wh..wh..opq", ".wh..wh..opq", "b/.wh.a"}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 200 {
			return
		}
		layers := [][]corpus.Entry{nil}
		for i := 0; i+1 < len(program); i += 2 {
			if program[i] == 0xff {
				layers = append(layers, nil)
				continue
			}
			name := names[int(program[i])%len(names)]
			target := names[int(program[i+1]>>2)%8]
			e := corpus.File(name, string(rune('a'+i%26)))
			if !strings.Contains(name, whiteout) {
				switch program[i+1] & 3 {
				case 1:
					e = corpus.Dir(name + "/")
					e.Mode = int64(0o700 + i%64)
				case 2:
					e = corpus.Symlink(name, target)
				case 3:
					e = corpus.Hard(name, target)
				}
			}
			layers[len(layers)-1] = append(layers[len(layers)-1], e)
		}
		var tars [][]byte
		for _, l := range layers {
			tars = append(tars, corpus.Tar(l...))
		}
		img := imageOf(t, tars...)
		r := Flatten(t.Context(), img)
		defer r.Close()
		got, err := listing.ReadTar(r)
		if err != nil {
			return // the other implementation refuses nothing
		}
		if diff := cmp.Diff(listing.Lines(corpus.Apply(layers)), listing.Lines(got)); diff != "" {
			t.Errorf("%+v\n-other +this:\n%s", layers, diff)
		}
		if diff := storeDiffers(t, img, "podman"); diff != "" {
			t.Errorf("%+v\n-flattened +overlaid:\n%s", layers, diff)
		}
	})
}

// Any bytes as what docker save or an OCI layout in a tar would be: refused
// with an error, never a panic, and nothing half written stays.
func FuzzArchives(f *testing.F) {
	layer := tarOf(f, file{Name: "file", Body: "x"})
	digest, _, _ := v1.SHA256(bytes.NewReader(layer))
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.String() + `"]}}`
	f.Add(tarOf(f, file{Name: "manifest.json", Body: `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`}, file{Name: "c", Body: config}, file{Name: "l", Body: string(layer)}))
	f.Add(tarOf(f, file{Name: "oci-layout", Body: LayoutVersion}, file{Name: "index.json", Body: `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digest.String() + `","size":3}]}`}))
	f.Add(layer)
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "a.tar")
		ok(t, os.WriteFile(path, b, 0o644))
		s, err := Open(filepath.Join(dir, "store"))
		ok(t, err)
		o := PullOptions{Platform: "linux/amd64", Limits: Limits{Bytes: 1 << 20, Entries: 1000, Metadata: 1 << 20}}
		for _, ref := range []string{"docker-archive:", "oci-archive:", "rootfs:"} {
			img, err := s.Pull(t.Context(), ref+path, o)
			if err == nil {
				r := o.Limits.Flatten(t.Context(), img)
				checkStream(t, r)
				r.Close()
			}
		}
		if left, err := os.ReadDir(filepath.Join(s.dir, "tmp")); err != nil || len(left) > 0 {
			t.Errorf("left %v behind (%v)", left, err)
		}
	})
}

// Any bytes as the documents of an image.
func FuzzDocuments(f *testing.F) {
	for _, img := range []v1.Image{oneFile(f, "x"), linuxImage(f, "arm64")} {
		m, err := img.RawManifest()
		ok(f, err)
		c, err := img.RawConfigFile()
		ok(f, err)
		f.Add(m, c)
	}
	index, err := indexOf(f, types.OCIImageIndex, "linux/amd64", "linux/arm64").RawManifest()
	ok(f, err)
	f.Add(index, []byte("{}"))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		want := v1.Platform{OS: "linux", Architecture: "amd64"}
		chosen, err := selectManifest(manifest, "", want, func(v1.Descriptor) ([]byte, error) { return config, nil }, 0)
		if err != nil {
			return
		}
		m, err := parseManifest(chosen)
		if err != nil {
			return
		}
		c, err := parseConfig(config, m)
		if err != nil {
			return
		}
		if len(c.RootFS.DiffIDs) != len(m.Layers) || len(m.Layers) > maxLayers {
			t.Errorf("%d diff ids for %d layers", len(c.RootFS.DiffIDs), len(m.Layers))
		}
		_ = contents{chosen, config, m, c}.checkPlatform(want)
	})
}
