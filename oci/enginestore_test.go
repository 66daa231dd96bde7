package oci

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"lab/lab/corpus"
	"lab/lab/corpus/listing"
)

// TestEngineStoreCorpus: what overlayfs makes of the layers in a store is the flattened image.
func TestEngineStoreCorpus(t *testing.T) {
	for _, c := range corpus.Good() {
		t.Run(c.Name, func(t *testing.T) {
			img, err := c.Build()
			if err != nil {
				t.Fatal(err)
			}
			if diff := storeDiffers(t, img, "docker"); diff != "" {
				t.Errorf("-flattened +overlaid:\n%s", diff)
			}
		})
	}
}

// storeDiffers compares an image as overlayfs has it of an engine's store with the
// flattened one. Hard links are not compared.
func storeDiffers(t testing.TB, img v1.Image, engine string) string {
	t.Helper()
	r := Flatten(t.Context(), img)
	defer r.Close()
	flat, err := listing.ReadTar(r)
	if err != nil {
		t.Fatal(err)
	}
	var want []listing.File
	for _, f := range flat {
		if f.Type() == listing.TypeChar && f.Major == 0 && f.Minor == 0 {
			continue // overlayfs takes it for a whiteout, whoever made it
		}
		f.Xattrs = maps.Clone(f.Xattrs)
		maps.DeleteFunc(f.Xattrs, func(name, _ string) bool { return strings.HasPrefix(name, overlayXattr) })
		want = append(want, bare(f))
	}
	return cmp.Diff(listing.Lines(want), listing.Lines(overlaid(t, storeOf(t, img, engine), engine)))
}

func bare(f listing.File) listing.File {
	f.Links, f.Inode = 0, ""
	if len(f.Xattrs) == 0 {
		f.Xattrs = nil
	}
	return f
}

func storeOf(t testing.TB, img v1.Image, engine string) []byte {
	t.Helper()
	r := Limits{}.EngineStore(t.Context(), img, engine, "localhost/x:1")
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// small reads the files of a store that are not of the layers.
func small(t testing.TB, store []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(store)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(h.Name, "/diff/") {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(b) + h.Linkname
	}
}

// overlaid is the topmost layer of a store with all below it, by the rules of overlayfs
// (Documentation/filesystems/overlayfs.rst), found by the names that the drivers go by.
func overlaid(t testing.TB, store []byte, engine string) []listing.File {
	t.Helper()
	driver := map[string]string{"docker": "overlay2/", "podman": "overlay/"}[engine]
	files := small(t, store)
	lower := "" // the longest: each layer has those below it
	top := ""
	for name, content := range files {
		if id, is := strings.CutSuffix(name, "/link"); is && len(files[id+"/lower"]) >= len(lower) {
			lower, top = files[id+"/lower"], "l/"+content
		}
	}
	if top == "" {
		return []listing.File{{Name: ".", Mode: listing.TypeDir | 0o755, Content: "-"}}
	}
	all, err := listing.ReadTar(bytes.NewReader(store))
	if err != nil {
		t.Fatal(err)
	}
	var layers []map[string]listing.File
	for _, link := range append([]string{top}, strings.FieldsFunc(lower, func(r rune) bool { return r == ':' })...) {
		dir, ok := strings.CutPrefix(files[driver+link], "../")
		if !ok {
			t.Fatalf("%s is no link: %q", link, files[driver+link])
		}
		layer := map[string]listing.File{}
		for _, f := range all {
			if f.Name == driver+dir {
				layer["."] = f
			} else if name, is := strings.CutPrefix(f.Name, driver+dir+"/"); is {
				layer[name] = f
			}
		}
		if len(layer) == 0 {
			t.Fatalf("%s leads to no layer: %s", link, dir)
		}
		layers = append(layers, layer)
	}
	return overlay(layers, ".")
}

// overlay gives a path and what is below it; nothing where it is not there.
func overlay(layers []map[string]listing.File, path string) []listing.File {
	var list []listing.File
	var merged []map[string]listing.File // whose directories show through
	for _, layer := range layers {
		f, ok := layer[path]
		if !ok {
			continue
		}
		isDir := f.Type() == listing.TypeDir
		if len(list) == 0 {
			if f.Type() == listing.TypeChar && f.Major == 0 && f.Minor == 0 {
				return nil
			}
			opaque := f.Xattrs[overlayXattr+"opaque"] == "y"
			f.Name, f.Xattrs = path, maps.Clone(f.Xattrs)
			delete(f.Xattrs, overlayXattr+"opaque")
			list = append(list, bare(f))
			if !isDir {
				return list
			}
			if merged = append(merged, layer); opaque {
				break
			}
			continue
		}
		if !isDir {
			break
		}
		if merged = append(merged, layer); f.Xattrs[overlayXattr+"opaque"] == "y" {
			break
		}
	}
	names := map[string]bool{}
	prefix := path + "/"
	if path == "." {
		prefix = ""
	}
	for _, layer := range merged {
		for name := range layer {
			if below, is := strings.CutPrefix(name, prefix); is && below != "" && below != "." && !strings.Contains(below, "/") {
				names[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, overlay(merged, name)...)
	}
	return list
}

// TestEngineStore: the documents by which the engines find layers and image.
func TestEngineStore(t *testing.T) {
	img := imageOf(t,
		tarOf(t, dir("a/"), f("a/gone", "1"), f("a/stays", "22"), dir("b/"), f("b/old", "3")),
		tarOf(t, f("a/.wh.gone", ""), dir("b/"), f("b/.wh..wh..opq", ""), f("b/new", "4444"), hardlink("b/link", "a/stays")),
	)
	for _, engine := range Engines {
		if diff := storeDiffers(t, img, engine); diff != "" {
			t.Errorf("%s: -flattened +overlaid:\n%s", engine, diff)
		}
		if !bytes.Equal(storeOf(t, img, engine), storeOf(t, img, engine)) {
			t.Errorf("%s: two stores differ", engine)
		}
	}
	config, err := img.ConfigFile()
	ok(t, err)
	id := must(img.ConfigName())
	ids := must(chainIDs(config.RootFS.DiffIDs))

	docker := small(t, storeOf(t, img, "docker"))
	layer := "image/overlay2/layerdb/sha256/" + ids[1]
	for name, want := range map[string]string{
		layer + "/cache-id": ids[1], layer + "/diff": config.RootFS.DiffIDs[1].String(), layer + "/size": "6", layer + "/parent": "sha256:" + ids[0],
		"image/overlay2/imagedb/content/sha256/" + id.Hex: string(must(img.RawConfigFile())),
		"image/overlay2/repositories.json":                `{"Repositories":{"localhost/x":{"localhost/x:1":"` + id.String() + `"}}}`,
		"overlay2/" + ids[1] + "/committed":               "",
	} {
		if got, there := docker[name]; !there || got != want {
			t.Errorf("docker: %s is %q, want %q", name, got, want)
		}
	}

	podman := small(t, storeOf(t, img, "podman"))
	var layers, images []map[string]any
	ok(t, json.Unmarshal([]byte(podman["overlay-layers/layers.json"]), &layers))
	ok(t, json.Unmarshal([]byte(podman["overlay-images/images.json"]), &images))
	if len(layers) != 2 || layers[1]["id"] != ids[1] || layers[1]["parent"] != ids[0] || layers[1]["diff-size"] != 6.0 {
		t.Errorf("podman: layers %v", layers)
	}
	if len(images) != 1 || images[0]["layer"] != ids[1] || !cmp.Equal(images[0]["names"], []any{"localhost/x:1"}) {
		t.Errorf("podman: images %v", images)
	}
	// A file has the name of its key, in base64 behind '=' unless it is plain.
	for name, want := range map[string][]byte{"manifest": must(img.RawManifest()), "=c2hhMjU2": must(img.RawConfigFile())} {
		found := false
		for path, content := range podman {
			found = found || strings.HasPrefix(path, "overlay-images/"+id.Hex+"/"+name) && content == string(want)
		}
		if !found {
			t.Errorf("podman: no %s", name)
		}
	}
}

func TestEngineStoreRefuses(t *testing.T) {
	img := imageOf(t, sparse(1<<20), tarOf(t, f("a", "1")))
	for _, tt := range []struct {
		limits Limits
		engine string
		want   string
	}{
		{Limits{}, "rkt", "nothing is known of its store; there is docker and podman"},
		{Limits{Bytes: 1 << 19}, "docker", "layer 1 of 2"},
		{Limits{Bytes: 1 << 20}, "docker", "layer 2 of 2"},
	} {
		r := tt.limits.EngineStore(t.Context(), img, tt.engine, "x")
		_, err := io.Copy(io.Discard, r)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.engine+"'s store of sha256:") {
			t.Errorf("error %v, want one with %q", err, tt.want)
		}
		r.Close()
	}
}
