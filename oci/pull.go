package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Pull makes sure that the image a reference names is in the store and pins
// it. References are in the notation of containers-transports(5):
//
//	[docker://][HOST/]NAME[:TAG][@DIGEST]   a registry; credentials are docker's or podman's
//	oci:DIR[:TAG], oci:DIR@DIGEST           an OCI layout
//	oci-archive:FILE[:TAG]                  the same in a tar
//	docker-archive:FILE[:NAME:TAG]          what docker save writes
//	rootfs:FILE.tar[.gz|.xz|.zst]           a root file system, which becomes an image of one layer
//	rootfs:DIR                              the same as a directory
//
// A reference with a digest that was pulled before needs no network. A tag is
// resolved again each time; when the registry does not answer, what the tag
// meant last is used and o.Notice told. Local files are read each time.
//
// Digests of all blobs are verified before they are stored, and those of the
// unpacked layers (diff ids) before Pull returns.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	r, err := parseReference(ref, o.PlainHTTP)
	if err != nil {
		return Image{}, err
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", r, err)
	}
	p := &pull{store: s, ref: r, want: want, options: o, budget: newBudget(o.Limits)}
	img, err := p.run(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", r, err)
	}
	pin := Pin{Reference: r.String(), Digest: img.descriptor().Digest.String(), Platform: img.platform().String()}
	if pin.Platform == "" {
		pin.Platform = want.String()
	}
	return Image{Pin: pin, Image: img}, nil
}

// pull is one call of Store.Pull.
type pull struct {
	store   *Store
	ref     reference
	want    v1.Platform
	options PullOptions
	budget  *budget

	mu          sync.Mutex
	done, total int64
}

// source is an image as a transport offers it.
type source struct {
	manifest []byte
	resolved v1.Hash // what the reference led to; the manifest's digest or that of an index around it
	blob     func(context.Context, v1.Descriptor) (io.ReadCloser, error)
}

func (p *pull) run(ctx context.Context) (*storeImage, error) {
	switch p.ref.transport {
	case transportLayout:
		return p.fromLayout(ctx)
	case transportLayoutArchive:
		return p.fromLayoutArchive(ctx)
	case transportDockerArchive:
		return p.fromDockerArchive(ctx)
	case transportRootfs:
		return p.fromRootfs(ctx)
	}
	return p.fromRegistry(ctx)
}

func (p *pull) fromRegistry(ctx context.Context) (*storeImage, error) {
	last, pinned := p.store.lookup(p.ref.String(), p.want)
	if !pinned && p.ref.digest != (v1.Hash{}) {
		last.Digest = p.ref.digest // perhaps pulled by another name
	}
	var stored *storeImage
	if last.Digest != (v1.Hash{}) {
		if img, err := p.store.load(last.Digest); err == nil && img.checkPlatform(p.want) == nil {
			stored = img
		}
	}
	if stored != nil && p.ref.digest != (v1.Hash{}) {
		return p.keep(ctx, stored, p.ref.digest)
	}

	reg, err := openRepository(p.ref.registry, stored != nil)
	if err != nil {
		return nil, err
	}
	defer reg.close()
	var known v1.Hash
	resolving := ctx
	if stored != nil {
		known, _ = v1.NewHash(last.Annotations[annotationResolved]) // the zero Hash asks for the manifest
		var cancel context.CancelFunc
		resolving, cancel = context.WithTimeout(ctx, quickTimeout)
		defer cancel()
	}
	manifest, resolved, err := reg.resolve(resolving, p.want, known)
	switch {
	case err == nil && manifest == nil:
		return p.keep(ctx, stored, resolved)
	case err != nil && stored != nil && ctx.Err() == nil && unreachable(err):
		if p.options.Notice != nil {
			p.options.Notice(fmt.Sprintf("%s could not be resolved, using what it was last: %s (%v)",
				p.ref, last.Digest, explainRegistry(err, p.ref.registry)))
		}
		return p.keep(ctx, stored, known)
	case err != nil:
		return nil, explainRegistry(err, p.ref.registry)
	}
	img, err := p.fetch(ctx, source{manifest: manifest, resolved: resolved, blob: reg.blob})
	if err != nil {
		return nil, explainRegistry(err, p.ref.registry)
	}
	return img, nil
}

// keep finishes a pull of what is in the store already.
func (p *pull) keep(ctx context.Context, img *storeImage, resolved v1.Hash) (*storeImage, error) {
	if old, ok := p.store.lookup(p.ref.String(), p.want); ok && old.Annotations[annotationResolved] == resolved.String() {
		return img, nil
	}
	return img, p.store.record(ctx, p.ref.String(), p.want, img.descriptor(), resolved)
}

// fetch stores an image: config, layers, manifest, so that whoever finds the
// manifest finds the rest.
func (p *pull) fetch(ctx context.Context, src source) (*storeImage, error) {
	m, err := parseManifest(src.manifest)
	if err != nil {
		return nil, err
	}
	p.expect(m)
	if err := p.storeBlob(ctx, src, m.Config); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	rawConfig, err := p.store.bytes(m.Config.Digest, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	config, err := parseConfig(rawConfig, m)
	if err != nil {
		return nil, err
	}
	c := contents{src.manifest, rawConfig, m, config}
	if err := c.checkPlatform(p.want); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	stored := map[v1.Hash]bool{}
	for i, d := range m.Layers {
		if stored[d.Digest] {
			continue
		}
		stored[d.Digest] = true
		g.Go(func() error {
			if err := p.storeBlob(gctx, src, d); err != nil {
				return layerFetchError(i, m, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return p.finish(ctx, c, src.resolved)
}

func layerFetchError(i int, m *v1.Manifest, err error) error {
	d := m.Layers[i]
	if !d.MediaType.IsDistributable() {
		from := "its maker"
		if len(d.URLs) > 0 {
			from = d.URLs[0]
		}
		err = fmt.Errorf("a foreign layer, which only %s gives away: push the image with its foreign layers: %w", from, err)
	}
	return fmt.Errorf("layer %d of %d (%s): %w", i+1, len(m.Layers), d.Digest, err)
}

// finish checks the layers, stores the manifest and records the pin. A
// manifest that is in the store says that the layers were checked before.
func (p *pull) finish(ctx context.Context, c contents, resolved v1.Hash) (*storeImage, error) {
	d := c.descriptor()
	if !p.store.has(d) {
		if err := p.list(ctx, &storeImage{store: p.store, contents: c}); err != nil {
			return nil, err
		}
		if _, err := p.store.put(bytes.NewReader(c.rawManifest), &d, 0); err != nil {
			return nil, err
		}
	}
	if err := p.store.record(ctx, p.ref.String(), p.want, d, resolved); err != nil {
		return nil, err
	}
	return p.store.load(d.Digest)
}

// list reads each layer once, which verifies diff ids and refuses hostile
// entries before anything is built from them.
func (p *pull) list(ctx context.Context, img *storeImage) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	_, err = merge(ctx, layers, p.budget)
	return err
}

// storeBlob fetches one blob unless it is there. A connection that breaks off
// gets another chance.
func (p *pull) storeBlob(ctx context.Context, src source, d v1.Descriptor) error {
	if p.store.has(d) {
		p.progress(d.Size)
		return nil
	}
	if d.Size > p.budget.limits.Bytes {
		return &LimitError{Field: "Bytes", Limit: p.budget.limits.Bytes}
	}
	for attempt := 1; ; attempt++ {
		err := p.tryBlob(ctx, src, d)
		var truncated *truncatedError
		broken := errors.As(err, &truncated) || errors.Is(err, io.ErrUnexpectedEOF)
		if err == nil || !broken || attempt == blobAttempts || ctx.Err() != nil {
			return err
		}
	}
}

func (p *pull) tryBlob(ctx context.Context, src source, d v1.Descriptor) error {
	rc, err := src.blob(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	r := &progressReader{ctx: ctx, r: rc, p: p}
	if _, err := p.store.put(r, &d, 0); err != nil {
		p.progress(-r.n)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = &truncatedError{d.Digest, r.n, d.Size}
		}
		return err
	}
	return nil
}

// expect sets what there is to do.
func (p *pull) expect(m *v1.Manifest) {
	p.mu.Lock()
	p.total = m.Config.Size
	seen := map[v1.Hash]bool{}
	for _, d := range m.Layers {
		if !seen[d.Digest] {
			p.total += d.Size
		}
		seen[d.Digest] = true
	}
	p.mu.Unlock()
	p.progress(0)
}

func (p *pull) progress(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.options.Progress != nil {
		p.options.Progress(p.done, p.total)
	}
}

// progressReader reports what passes and stops with its context.
type progressReader struct {
	ctx context.Context
	r   io.Reader
	p   *pull
	n   int64
}

func (r *progressReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(b)
	r.n += int64(n)
	if n > 0 {
		r.p.progress(int64(n))
	}
	return n, err
}
