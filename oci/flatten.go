package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Flatten merges an image's layers by the rules of the OCI image
// specification (layer.md) and gives the root file system as one tar in PAX
// format. Errors come from Read and name the image, the layer and the entry.
// Close ends the work when not all of it is wanted.
//
// The stream begins with the root directory, ./, whether or not a layer lists
// it. Names are relative and clean, those of directories end in a slash.
// Directories come before what is in them and a file before the hard links to
// it; otherwise the order is that of the layers. The same image gives the same
// bytes. Of times only the modification time is kept, of PAX records only
// extended attributes (SCHILY.xattr.…). Sparse files have their holes written
// out as zeros.
//
// An entry below a symlink goes where the symlink leads, as if the image's
// root were the file system's. A hard link stays a link to the same file even
// when a later layer removes or replaces the name it was made from. Names that
// lead out of the root, hard links to what does not exist and the like are
// refused.
func Flatten(ctx context.Context, img v1.Image) io.ReadCloser {
	return Limits{}.Flatten(ctx, img)
}

// Flatten is [Flatten] with other limits.
func (l Limits) Flatten(ctx context.Context, img v1.Image) io.ReadCloser {
	return pipe(ctx, func(ctx context.Context, w io.Writer) error {
		if err := flatten(ctx, w, img, newBudget(l)); err != nil {
			return fmt.Errorf("flatten %s: %w", imageName(img), err)
		}
		return nil
	})
}

func imageName(img v1.Image) string {
	if i, ok := img.(Image); ok && i.Pin.Reference != "" {
		return i.Pin.Reference
	}
	if h, err := img.Digest(); err == nil {
		return h.String()
	}
	return "image"
}

func flatten(ctx context.Context, w io.Writer, img v1.Image, b *budget) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	if len(layers) > maxLayers {
		return fmt.Errorf("image has %d layers; at most %d are accepted", len(layers), maxLayers)
	}
	nodes, sums, err := merge(ctx, layers, b)
	if err != nil {
		return err
	}
	f := &flattener{ctx: ctx, layers: layers, sums: sums, tar: tar.NewWriter(w), buf: make([]byte, bufferSize)}
	defer f.close()
	for i, n := range nodes {
		if err := f.write(n); err != nil {
			return err
		}
		nodes[i] = nil // while the disk's inodes take memory, these give it back
	}
	if err := f.finishLayer(); err != nil {
		return err
	}
	return f.tar.Close()
}

// merge reads the tables of all layers and lays them upon one another. It
// gives the names that are left, in the order in which they are written, and
// the checksums of the layers' blobs.
func merge(ctx context.Context, layers []v1.Layer, b *budget) ([]*node, []uint32, error) {
	tables, err := readTables(ctx, layers, b)
	if err != nil {
		return nil, nil, err
	}
	t := newTree(b)
	sums := make([]uint32, len(layers))
	for i, table := range tables {
		if err := t.apply(i, table.Entries); err != nil {
			return nil, nil, layerError(layers, i, err)
		}
		sums[i] = table.Sum
		tables[i] = nil
	}
	nodes := t.order()
	_, err = contentSize(layers, nodes, b)
	return nodes, sums, err
}

// readTables reads the tables of all layers.
func readTables(ctx context.Context, layers []v1.Layer, b *budget) ([]*table, error) {
	tables := make([]*table, len(layers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, min(4, runtime.GOMAXPROCS(0))))
	for i, l := range layers {
		g.Go(func() (err error) {
			if tables[i], err = layerTable(gctx, l, b); err != nil {
				return layerError(layers, i, err)
			}
			return nil
		})
	}
	return tables, g.Wait()
}

// contentSize is how many bytes the files have together: sparse ones make that more than
// the layers had, and it is bounded again.
func contentSize(layers []v1.Layer, nodes []*node, b *budget) (total int64, err error) {
	for _, n := range nodes {
		if n.inode.first != n {
			continue
		}
		if n.inode.Size > b.limits.Bytes || total+n.inode.Size > b.limits.Bytes {
			return 0, layerError(layers, int(n.inode.at.layer), fmt.Errorf("entry %s: %w", quote(n.path()), &LimitError{"Bytes", b.limits.Bytes}))
		}
		total += n.inode.Size
	}
	return total, nil
}

// layerTable takes a layer's table from the store when it is there.
func layerTable(ctx context.Context, l v1.Layer, b *budget) (*table, error) {
	if l, ok := l.(*storeLayer); ok {
		return l.table(ctx, b)
	}
	return readTable(ctx, l, b)
}

func layerError(layers []v1.Layer, i int, err error) error {
	name := "?"
	if h, herr := layers[i].Digest(); herr == nil {
		name = h.String()
	}
	if mt, merr := layers[i].MediaType(); merr == nil && !mt.IsDistributable() {
		err = fmt.Errorf("a foreign layer, which registries need not hold: %w", err)
	}
	return fmt.Errorf("layer %d of %d (%s): %w", i+1, len(layers), name, err)
}

// flattener writes the merged tree, taking contents from one layer after
// another.
type flattener struct {
	ctx    context.Context
	layers []v1.Layer
	sums   []uint32 // of their blobs
	tar    *tar.Writer
	below  string // the directory that names are in; empty for none
	buf    []byte
	open   *layerReader // of layer number, nil before the first
	number int
}

func (f *flattener) write(n *node) error {
	if n.written {
		return nil
	}
	if n.parent != nil && !n.parent.written {
		if err := f.write(n.parent); err != nil {
			return err
		}
	}
	n.written = true
	if err := f.ctx.Err(); err != nil {
		return err
	}
	name, i := n.path(), n.inode
	err := f.writeEntry(name, n)
	if err != nil && !errors.As(err, new(*layerFailure)) {
		err = layerError(f.layers, int(i.at.layer), fmt.Errorf("entry %s: %w", quote(name), err))
	}
	return err
}

func (f *flattener) writeEntry(name string, n *node) error {
	i := n.inode
	name = f.place(name)
	if i.first != n {
		h := i.header(name)
		h.Typeflag, h.Linkname, h.Size, h.Devmajor, h.Devminor = tar.TypeLink, f.place(i.first.path()), 0, 0, 0
		h.PAXRecords = nil // the file has them already
		return f.tar.WriteHeader(h)
	}
	if name == "" {
		name = "."
	}
	if err := f.tar.WriteHeader(i.header(name)); err != nil || i.Size == 0 {
		return err
	}
	return f.copy(i)
}

// place is where in the tar a name goes.
func (f *flattener) place(name string) string {
	if f.below == "" {
		return name
	}
	return path.Join(f.below, name)
}

// copy writes a file's content, which is that of an entry further on in the
// open layer or of one in a later layer.
func (f *flattener) copy(i *inode) error {
	if f.open == nil || f.number != int(i.at.layer) {
		if err := f.finishLayer(); err != nil {
			return err
		}
		var err error
		f.number = int(i.at.layer)
		if f.open, err = reopenLayer(f.ctx, f.layers[f.number], f.sums[f.number]); err != nil {
			return err
		}
	}
	for {
		hdr, err := f.open.Next()
		if errors.Is(err, io.EOF) {
			err = errors.New("the layer has changed since it was listed")
		}
		if err != nil {
			return err
		}
		if f.open.next-1 < int(i.at.index) {
			continue
		}
		if hdr.Size != i.Size {
			return fmt.Errorf("the layer has changed since it was listed: %d bytes, not %d", hdr.Size, i.Size)
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f.tar}, struct{ io.Reader }{f.open.Reader}, f.buf)
		return explainTar(err)
	}
}

// layerFailure is an error that already says in which layer.
type layerFailure struct{ error }

func (e *layerFailure) Unwrap() error { return e.error }

// finishLayer verifies the open layer to its last byte: it may have changed on
// disk since its table was made.
func (f *flattener) finishLayer() error {
	if f.open == nil {
		return nil
	}
	err := f.open.finishBlob()
	f.close()
	if err != nil {
		return &layerFailure{layerError(f.layers, f.number, err)}
	}
	return nil
}

func (f *flattener) close() {
	if f.open != nil {
		f.open.Close() // read only: nothing can be lost
		f.open = nil
	}
}
