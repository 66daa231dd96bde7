package lab

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	reference "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"lab/probe"
)

func TestTagsBetween(t *testing.T) {
	tags := []string{"latest", "10", "9", "1", "2", "2-alpine", "10-alpine", "v3", "1.5", "2.0.1", "9-rc1", "nightly"}
	for _, test := range []struct{ from, to, want string }{
		{"1", "10", "1 1.5 2 2.0.1 v3 9 10"},
		{"2", "9", "2 2.0.1 v3 9"},
		{"2-alpine", "10-alpine", "2-alpine 10-alpine"},
		{"1", "v3", "1 1.5 2 2.0.1 v3"},
	} {
		if got := strings.Join(tagsBetween(tags, test.from, test.to), " "); got != test.want {
			t.Errorf("%s..%s gives %s, want %s", test.from, test.to, got, test.want)
		}
	}
}

// gallerySpec is what a bisect over images takes beside these.
func gallerySpec(t *testing.T) Spec {
	dir := bzImages(t, "6.1.0")
	s := Spec{
		Kernel: KernelSpec{File: filepath.Join(dir, "vmlinuz-z")}, Test: probe.Spec{Command: []string{"/test"}},
		Images: []Load{{Name: "other", Reference: "rootfs:other.tar"}, {Name: "test", Reference: "to be replaced"}},
	}
	s.Test.Container = "test"
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGallery(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []int{1, 2, 10} {
		write(t, filepath.Join(dir, fmt.Sprintf("app-%d.tar", n)), "")
	}
	g, err := testLab(t).openGallery(t.Context(), BisectOptions{Spec: gallerySpec(t), Images: []string{"rootfs:" + dir + "/app-*.tar", "app:latest"}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var refs, titles []string
	for i, load := range g.loads {
		refs, titles = append(refs, load.Reference), append(titles, g.commits[i].Title)
	}
	if want := []string{"rootfs:" + dir + "/app-1.tar", "rootfs:" + dir + "/app-2.tar", "rootfs:" + dir + "/app-10.tar", "app:latest"}; !slices.Equal(refs, want) {
		t.Errorf("images are %v, want %v", refs, want)
	}
	if !slices.Equal(titles, refs) {
		t.Errorf("they are called %v", titles)
	}
	if g.at != 1 || g.spec.Images[1] != g.loads[0] || g.spec.Images[0].Reference != "rootfs:other.tar" {
		t.Errorf("the first trial is of %+v", g.spec.Images)
	}
	for what, want := range map[string]int{"app:latest": 3, "latest": 3, refs[1]: 1, refs[2]: 2, "app-10.tar": 2} {
		if got, err := g.pick(what); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", what, got, err, want)
		}
	}
	if _, err := g.pick("3"); err == nil || !strings.Contains(err.Error(), "none of the images rootfs:") {
		t.Errorf("error %v", err)
	}
	var result Bisection
	between, err := g.ends(t.Context(), BisectOptions{Good: []string{"app-2.tar"}}, &result)
	if err != nil || len(between) != 2 || result.Bad.Title != "app:latest" || result.Range != 2 {
		t.Errorf("ends: %v, %+v, %v", between, result, err)
	}
}

func TestGalleryOfARegistry(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	var img v1.Image
	for n := 1; n <= 4; n++ {
		layers, err := random.Image(64, 2)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.ConfigFile(layers, &v1.ConfigFile{OS: "linux", Architecture: "amd64"}); err != nil {
			t.Fatal(err)
		}
		ref, err := reference.ParseReference(fmt.Sprintf("%s/app:1.%d", host, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		images, want string
		err          string
	}{
		{images: host + "/app:1.1..1.3", want: "1.1 1.2 1.3"},
		{images: host + "/app:1.2.." + host + "/app:1.4", want: "1.2 1.3 1.4"},
		{images: "docker://" + host + "/app:1.3..1.4", want: "1.3 1.4"},
		{images: host + "/app:1.2.." + host + "/other:1.4", err: "are two repositories"},
		{images: host + "/app:1.2..1.5", err: "there is no tag 1.5"},
		{images: host + "/app:1.3..1.2", err: "comes after 1.2: are the two swapped?"},
		{images: host + "/app:1.3..latest", err: "latest is not a version"},
		{images: host + "/nosuch:1..2", err: "list tags of"},
		{images: "rootfs:" + t.TempDir() + "/*.tar", err: "nothing matches"},
		{images: host + "/app:1.1", err: "1 image: a bisect needs two at least"},
	} {
		g, err := testLab(t).openGallery(t.Context(), BisectOptions{Spec: gallerySpec(t), Images: []string{test.images}})
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: error %v, want one with %q", test.images, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.images, err)
			continue
		}
		var tags []string
		for _, load := range g.loads {
			tags = append(tags, load.Reference[strings.LastIndex(load.Reference, ":")+1:])
		}
		if got := strings.Join(tags, " "); got != test.want {
			t.Errorf("%s: %s, want %s", test.images, got, test.want)
		}
		g.Close()
	}
}

// The disk of a candidate has the image's first layers and no more, and the pin
// is that of the whole.
func TestGalleryOfLayers(t *testing.T) {
	l := testLab(t)
	dir := t.TempDir()
	img := layered(t, filepath.Join(dir, "layout"), "FROM base", "COPY a /", "")
	g, err := l.openGallery(t.Context(), BisectOptions{Spec: gallerySpec(t), Layers: img})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var titles []string
	for _, c := range g.commits {
		titles = append(titles, c.Title)
	}
	if want := []string{"layer 1: FROM base", "layer 2: COPY a /", "layer 3"}; !slices.Equal(titles, want) {
		t.Fatalf("layers are %q, want %q", titles, want)
	}
	if i, err := g.pick("2"); err != nil || i != 1 {
		t.Errorf("2 is %d, %v", i, err)
	}
	digests := map[string]bool{}
	for i := range g.loads {
		s := g.spec
		s.Images = []Load{g.loads[i]}
		path := filepath.Join(dir, fmt.Sprintf("%d.img", i))
		d, err := l.BuildDisk(t.Context(), s, path)
		if err != nil {
			t.Fatal(err)
		}
		digests[d.Containers[0].Digest] = true
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for layer := range g.loads {
			if has := bytes.Contains(data, fmt.Appendf(nil, "file of layer %d", layer)); has != (layer <= i) {
				t.Errorf("with %d layers: layer %d is there: %v", i+1, layer, has)
			}
		}
	}
	if len(digests) != 1 {
		t.Errorf("pinned as %v", digests)
	}
}

// layered writes an image into a layout, one layer for each line of its history,
// and gives its reference.
func layered(t *testing.T, dir string, history ...string) string {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	for i, by := range history {
		text := fmt.Sprintf("file of layer %d", i)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file%d", i), Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		layer := static.NewLayer(b.Bytes(), types.OCIUncompressedLayer)
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: by}}, mutate.Addendum{History: v1.History{CreatedBy: "ENV nothing", EmptyLayer: true}})
		if err != nil {
			t.Fatal(err)
		}
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}
