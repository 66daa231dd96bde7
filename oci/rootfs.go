package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// fromRootfs makes an image of a root file system: one layer, which is the tar
// itself without its compression, so that the digest speaks of the files and
// not of who compressed them.
func (p *pull) fromRootfs(ctx context.Context) (*storeImage, error) {
	info, err := os.Stat(p.ref.path)
	if err != nil {
		return nil, err
	}
	var d v1.Descriptor
	if info.IsDir() {
		d, err = p.storeDir(ctx)
	} else {
		p.progress(func(so *Progress) { so.Total = info.Size() })
		d, err = p.storeTar(ctx)
	}
	if err != nil {
		return nil, err
	}
	m := newManifest()
	d.MediaType = types.OCIUncompressedLayer
	m.Layers = []v1.Descriptor{d}
	config, err := json.Marshal(v1.ConfigFile{
		OS: p.want.OS, Architecture: p.want.Architecture, Variant: p.want.Variant,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{d.Digest}},
	})
	if err != nil {
		return nil, err
	}
	if err := p.checkRootfs(ctx, d); err != nil {
		return nil, fmt.Errorf("read %s: %w", p.ref.path, err)
	}
	return p.build(ctx, m, config)
}

func (p *pull) storeTar(ctx context.Context) (v1.Descriptor, error) {
	f, err := os.Open(p.ref.path)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer f.Close()
	plain, stop, err := decompressFile(&progressReader{ctx: ctx, r: f, p: p})
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read %s: %w", p.ref.path, err)
	}
	defer stop()
	d, err := p.store.put(plain, nil, p.budget.limits.Bytes)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("read %s: %w", p.ref.path, err)
	}
	return d, nil
}

func (p *pull) storeDir(ctx context.Context) (v1.Descriptor, error) {
	r := pipe(ctx, func(ctx context.Context, w io.Writer) error {
		return tarDir(ctx, w, p.ref.path, p.options.Notice)
	})
	defer r.Close()
	return p.store.put(r, nil, p.budget.limits.Bytes)
}

// checkRootfs asks of a root file system what a layer need not have: that it
// is whole though no config vouches for its digest, and that no name in it
// would be taken for a whiteout.
func (p *pull) checkRootfs(ctx context.Context, d v1.Descriptor) error {
	l := &storeLayer{store: p.store, desc: d, diffID: d.Digest}
	if err := endsAsTar(p.store.blobPath(d.Digest), d.Size); err != nil {
		return err
	}
	t, err := l.table(ctx, newBudget(p.options.Limits))
	if err != nil {
		return err
	}
	if len(t.Entries) == 0 {
		return errors.New("the archive holds nothing")
	}
	for i := range t.Entries {
		if strings.HasPrefix(path.Base(t.Entries[i].Name), whiteout) {
			return fmt.Errorf("entry %q: names that begin with %q mean a deletion in container images", t.Entries[i].Name, whiteout)
		}
	}
	return nil
}

// endsAsTar looks for the two zero blocks by which POSIX ends an archive.
func endsAsTar(file string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	end := make([]byte, 1024)
	if size < int64(len(end)) {
		return errors.New("not a tar archive: it is shorter than the shortest")
	}
	if _, err := f.ReadAt(end, size-int64(len(end))); err != nil {
		return err
	}
	if len(bytes.Trim(end, "\x00")) > 0 {
		return errors.New("not a tar archive, or a truncated one: it does not end in two blocks of zeros")
	}
	return nil
}
