package oci

import (
	"archive/tar"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Engines are those whose store [Limits.EngineStore] writes.
var Engines = []string{"docker", "podman"}

// EngineStore gives the store in which an engine finds the image under a name, as a tar of
// what is below docker's data root (/var/lib/docker) or podman's graph root
// (/var/lib/containers/storage). Layers are directories of overlayfs, which the engine
// lays upon one another. The same image gives the same bytes.
//
// All of an image's layers laid upon one another are what [Flatten] gives, but for hard
// links from one layer to another, which are copies: overlayfs has no others.
//
// The formats are those of docker 1.10 to 28 (moby: layer/filestore.go, image/fs.go,
// image/tarexport, daemon/graphdriver/overlay2/overlay.go) and of containers/storage
// (layers.go, images.go, drivers/overlay/overlay.go). Neither is specified; both have been
// read by later versions ever since.
func (l Limits) EngineStore(ctx context.Context, img v1.Image, engine, name string) io.ReadCloser {
	return pipe(ctx, func(ctx context.Context, w io.Writer) error {
		s := engineStore{flattener: flattener{ctx: ctx, tar: tar.NewWriter(w), buf: make([]byte, bufferSize)}, image: img, name: name}
		defer s.close()
		if err := s.write(newBudget(l), engine); err != nil {
			return fmt.Errorf("write %s's store of %s: %w", engine, imageName(img), err)
		}
		return nil
	})
}

type engineStore struct {
	flattener
	image v1.Image
	name  string
	made  map[string]bool // directories
	ids   []string        // of the layers: what identifies each with those below it
	sizes []int64         // of what is in them
}

func (s *engineStore) write(b *budget, engine string) (err error) {
	if s.layers, err = s.image.Layers(); err != nil {
		return err
	}
	config, err := s.image.ConfigFile()
	if err != nil {
		return err
	}
	if s.ids, err = chainIDs(config.RootFS.DiffIDs); err != nil {
		return err
	}
	if len(s.layers) > maxLayers || len(s.layers) != len(s.ids) {
		return fmt.Errorf("image has %d layers, and its config %d; at most %d are accepted", len(s.layers), len(s.ids), maxLayers)
	}
	s.made = map[string]bool{}
	switch engine {
	case "docker":
		if err = s.writeLayers(b, "overlay2"); err == nil {
			err = s.describeDocker()
		}
	case "podman":
		if err = s.writeLayers(b, "overlay"); err == nil {
			err = s.describePodman()
		}
	default:
		err = fmt.Errorf("nothing is known of its store; there is %s", strings.Join(Engines, " and "))
	}
	if err != nil {
		return err
	}
	return s.tar.Close()
}

// chainIDs identify each layer together with those below it (image specification,
// config.md, "Layer ChainID"), without the algorithm.
func chainIDs(diffs []v1.Hash) ([]string, error) {
	var ids []string
	for i, d := range diffs {
		chain := d
		if i > 0 {
			var err error
			if chain, _, err = v1.SHA256(strings.NewReader("sha256:" + ids[i-1] + " " + d.String())); err != nil {
				return nil, err
			}
		}
		if d.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer %d has the diff id %s: engines want sha256", i+1, d)
		}
		ids = append(ids, chain.Hex)
	}
	return ids, nil
}

// shortName is by what a layer's directory is mounted: there is one page for the names of
// all of them (mount(2)). Engines draw 26 letters of base32 at random.
func shortName(id string) string {
	raw, _ := hex.DecodeString(id) // v1.Hash has checked it
	return base32.StdEncoding.EncodeToString(raw)[:26]
}

// writeLayers writes the layers as both engines' drivers for overlayfs have them, in
// directories below driver.
func (s *engineStore) writeLayers(b *budget, driver string) error {
	tables, err := readTables(s.ctx, s.layers, b)
	if err != nil {
		return err
	}
	s.sums = make([]uint32, len(tables))
	t := newTree(b)
	var total int64
	for i, table := range tables {
		s.sums[i] = table.Sum
		if err := t.apply(i, table.Entries); err != nil {
			return layerError(s.layers, i, err)
		}
		tables[i] = nil
		nodes := t.changes(i)
		size, err := contentSize(s.layers, nodes, b)
		if err == nil && total+size > b.limits.Bytes {
			err = layerError(s.layers, i, &LimitError{"Bytes", b.limits.Bytes})
		}
		if err != nil {
			return err
		}
		total += size
		s.sizes = append(s.sizes, size)
		if err := s.writeLayer(driver, i, nodes); err != nil {
			return err
		}
	}
	return nil
}

func (s *engineStore) writeLayer(driver string, i int, nodes []*node) error {
	dir := driver + "/" + s.ids[i]
	link := shortName(s.ids[i])
	err := s.file(dir+"/link", []byte(link))
	if err == nil {
		err = s.add(tar.Header{Typeflag: tar.TypeSymlink, Name: driver + "/l/" + link, Linkname: "../" + s.ids[i] + "/diff", Mode: 0o777}, nil)
	}
	if err == nil && i > 0 {
		var lower []string
		for j := i - 1; j >= 0; j-- {
			lower = append(lower, "l/"+shortName(s.ids[j]))
		}
		err = s.file(dir+"/lower", []byte(strings.Join(lower, ":")))
	}
	if err == nil && i > 0 {
		err = s.directory(dir + "/work")
	}
	if err == nil && driver == "overlay2" {
		err = s.file(dir+"/committed", nil)
	}
	if err != nil {
		return err
	}
	s.below = dir + "/diff"
	for j, n := range nodes {
		if err := s.flattener.write(n); err != nil {
			return err
		}
		nodes[j] = nil
	}
	return s.finishLayer()
}

// describeDocker writes what docker knows of the layers, the image and its name.
func (s *engineStore) describeDocker() error {
	diffs, err := s.diffIDs()
	if err != nil {
		return err
	}
	const dir = "image/overlay2/"
	for i, id := range s.ids {
		layer := dir + "layerdb/sha256/" + id
		files := []struct{ name, content string }{
			{"cache-id", id}, {"diff", diffs[i]}, {"size", strconv.FormatInt(s.sizes[i], 10)},
		}
		if i > 0 {
			files = append(files, struct{ name, content string }{"parent", "sha256:" + s.ids[i-1]})
		}
		for _, f := range files {
			if err := s.file(layer+"/"+f.name, []byte(f.content)); err != nil {
				return err
			}
		}
	}
	config, id, err := s.config()
	if err != nil {
		return err
	}
	if err := s.file(dir+"imagedb/content/sha256/"+id.Hex, config); err != nil {
		return err
	}
	repository, _, _ := strings.Cut(s.name, ":")
	return s.json(dir+"repositories.json", map[string]any{"Repositories": map[string]any{repository: map[string]string{s.name: id.String()}}})
}

// describePodman writes what containers/storage knows of the layers, and the image.
func (s *engineStore) describePodman() error {
	diffs, err := s.diffIDs()
	if err != nil {
		return err
	}
	const created = "1970-01-01T00:00:00Z"
	layers := []map[string]any{}
	for i, id := range s.ids {
		layer := map[string]any{"id": id, "created": created, "diff-digest": diffs[i], "diff-size": s.sizes[i]}
		if i > 0 {
			layer["parent"] = s.ids[i-1]
		}
		layers = append(layers, layer)
	}
	if err := s.json("overlay-layers/layers.json", layers); err != nil {
		return err
	}
	config, id, err := s.config()
	if err != nil {
		return err
	}
	manifest, err := s.image.RawManifest()
	if err != nil {
		return err
	}
	digest, err := s.image.Digest()
	if err != nil {
		return err
	}
	image := map[string]any{
		"id": id.Hex, "digest": digest.String(), "names": []string{s.name}, "created": created,
		"big-data-names":   []string{"manifest", id.String()},
		"big-data-sizes":   map[string]int{"manifest": len(manifest), id.String(): len(config)},
		"big-data-digests": map[string]string{"manifest": digest.String(), id.String(): id.String()},
	}
	if len(s.ids) > 0 {
		image["layer"] = s.ids[len(s.ids)-1]
	}
	err = s.file("overlay-images/"+id.Hex+"/manifest", manifest)
	if err == nil { // names with more than letters are encoded (makeBigDataBaseName)
		err = s.file("overlay-images/"+id.Hex+"/="+base64.StdEncoding.EncodeToString([]byte(id.String())), config)
	}
	if err == nil {
		err = s.json("overlay-images/images.json", []any{image})
	}
	return err
}

func (s *engineStore) diffIDs() ([]string, error) {
	config, err := s.image.ConfigFile()
	if err != nil {
		return nil, err
	}
	var list []string
	for _, d := range config.RootFS.DiffIDs {
		list = append(list, d.String())
	}
	return list, nil
}

func (s *engineStore) config() ([]byte, v1.Hash, error) {
	config, err := s.image.RawConfigFile()
	if err != nil {
		return nil, v1.Hash{}, err
	}
	id, err := s.image.ConfigName()
	return config, id, err
}

func (s *engineStore) json(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.file(name, data)
}

func (s *engineStore) file(name string, content []byte) error {
	return s.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(content))}, content)
}

// directory makes a directory that is the engine's, with those above it.
func (s *engineStore) directory(name string) error {
	if s.made[name] {
		return nil
	}
	s.made[name] = true
	return s.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o711}, nil)
}

func (s *engineStore) add(h tar.Header, content []byte) error {
	if i := strings.LastIndexByte(strings.TrimSuffix(h.Name, "/"), '/'); i >= 0 {
		if err := s.directory(h.Name[:i]); err != nil {
			return err
		}
	}
	h.Format, h.ModTime = tar.FormatPAX, time.Unix(0, 0)
	err := s.tar.WriteHeader(&h)
	if err == nil {
		_, err = s.tar.Write(content)
	}
	return err
}
