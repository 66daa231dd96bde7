package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
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
// A download that breaks off is continued where it stopped, within the call
// and by the next one. Mirrors are tried first, each until it fails.
//
// Digests of all blobs are verified before they are stored, and those of the
// unpacked layers (diff ids) before Pull returns.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	r, err := parseReference(ref, o.plain)
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
	store    *Store
	ref      reference
	want     v1.Platform
	artifact string // the type of the artifact that is wanted; empty for an image
	options  PullOptions
	budget   *budget

	mu   sync.Mutex // of what follows, and of the callbacks
	so   Progress
	plan map[v1.Hash]int64 // what of each blob is still to come, as Total counts it
}

// source is an image as a transport offers it.
type source struct {
	manifest []byte
	resolved v1.Hash     // what the reference led to; the manifest's digest or that of an index around it
	remote   *repository // gives the blobs; or else
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
	var known v1.Hash
	if stored != nil {
		known, _ = v1.NewHash(last.Annotations[annotationResolved]) // the zero Hash asks for the manifest
	}

	places, err := p.options.places(p.ref.registry)
	if err != nil {
		return nil, err
	}
	var mirrors []string // that were tried in vain, and why
	for i, where := range places {
		img, resolved, err := p.fromPlace(ctx, where, stored, known)
		switch {
		case err == nil:
			return img, nil
		case ctx.Err() != nil || ours(err):
			return nil, err
		case i < len(places)-1:
			p.notice(fmt.Sprintf("%v; trying %s", err, places[i+1]))
			mirrors = append(mirrors, err.Error())
			continue
		case !resolved && stored != nil && unreachable(err):
			p.notice(fmt.Sprintf("%s could not be resolved, using what it was last: %s (%v)", p.ref, last.Digest, err))
			return p.keep(ctx, stored, known)
		case len(mirrors) > 0:
			return nil, fmt.Errorf("%w (before it: %s)", err, strings.Join(mirrors, "; "))
		}
		return nil, err
	}
	return nil, errors.New("there is no place to pull from") // places holds the registry at least
}

// fromPlace pulls from a registry or a mirror. Resolved says that it told what
// the reference means.
func (p *pull) fromPlace(ctx context.Context, where place, stored *storeImage, known v1.Hash) (img *storeImage, resolved bool, err error) {
	l := findLogin(ctx, where.ref.Context())
	if l.trouble != nil {
		p.notice(fmt.Sprintf("%v; %s is asked %s", l.trouble, where, l))
	}
	resolving := ctx
	if stored != nil {
		var cancel context.CancelFunc
		resolving, cancel = context.WithTimeout(ctx, quickTimeout)
		defer cancel()
	}
	repo, err := p.connect(resolving, where, l, stored != nil, transport.PullScope)
	if err != nil {
		return nil, false, explainRegistry(err, where, l)
	}
	defer repo.close()
	manifest, digest, err := repo.resolve(resolving, p.want, known)
	switch {
	case err != nil:
		return nil, false, explainRegistry(err, where, l)
	case manifest == nil:
		img, err = p.keep(ctx, stored, digest)
	default:
		img, err = p.fetch(ctx, source{manifest: manifest, resolved: digest, remote: repo})
	}
	if err != nil {
		err = explainRegistry(err, where, l)
	}
	return img, true, err
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
	if p.artifact != "" {
		return p.fetchArtifact(ctx, src)
	}
	m, err := parseManifest(src.manifest)
	if err != nil {
		return nil, err
	}
	if err := p.expect(m); err != nil {
		return nil, err
	}
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
	if err := p.storeLayers(ctx, src, m); err != nil {
		return nil, err
	}
	return p.finish(ctx, c, src.resolved)
}

// storeLayers fetches the layers that the store does not have.
func (p *pull) storeLayers(ctx context.Context, src source, m *v1.Manifest) error {
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
			p.progress(func(so *Progress) { so.Layers += times(m.Layers, d.Digest) })
			return nil
		})
	}
	return g.Wait()
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
	_, _, err = merge(ctx, layers, p.budget)
	return err
}

// storeBlob fetches one blob unless it is there.
func (p *pull) storeBlob(ctx context.Context, src source, d v1.Descriptor) error {
	if p.store.has(d) {
		p.left(d.Digest, 0)
		return nil
	}
	if src.remote != nil {
		return p.download(ctx, src.remote, d)
	}
	rc, err := src.blob(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = p.store.put(&progressReader{ctx: ctx, r: rc, p: p}, &d, 0)
	return err
}

// expect sets what there is to do, and refuses what would be too much.
func (p *pull) expect(m *v1.Manifest) error {
	var total, all int64
	plan := map[v1.Hash]int64{}
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if _, ok := plan[d.Digest]; ok {
			continue
		}
		if d.Size > p.budget.limits.Bytes-all {
			return &LimitError{Field: "Bytes", Limit: p.budget.limits.Bytes}
		}
		all += d.Size
		plan[d.Digest] = 0
		if !p.store.has(d) {
			plan[d.Digest] = d.Size - p.store.partialSize(d)
		}
		total += plan[d.Digest]
	}
	p.mu.Lock()
	p.plan = plan
	p.mu.Unlock()
	p.progress(func(so *Progress) {
		so.Total, so.Layers, so.AllLayers = so.Done+total, 0, len(m.Layers)
	})
	return nil
}

func times(layers []v1.Descriptor, h v1.Hash) (n int) {
	for _, d := range layers {
		if d.Digest == h {
			n++
		}
	}
	return n
}

// left corrects how much of a blob is still to come.
func (p *pull) left(h v1.Hash, n int64) {
	p.progress(func(so *Progress) {
		so.Total += n - p.plan[h]
		p.plan[h] = n
	})
}

// arrived counts bytes of a blob.
func (p *pull) arrived(h v1.Hash, n int64) {
	p.progress(func(so *Progress) {
		so.Done += n
		p.plan[h] -= n
	})
}

// progress changes how far the pull is and tells.
func (p *pull) progress(change func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.so
	change(&p.so)
	if p.options.Progress != nil && p.so != before {
		p.options.Progress(p.so)
	}
}

// notice tells the user, one at a time.
func (p *pull) notice(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.options.Notice != nil {
		p.options.Notice(text)
	}
}

// pause is how long to wait before a second attempt.
func (p *pull) pause() time.Duration {
	if p.options.wire.pause > 0 {
		return p.options.wire.pause
	}
	return retryPause
}

// progressReader reports what passes and stops with its context.
type progressReader struct {
	ctx context.Context
	r   io.Reader
	p   *pull
}

func (r *progressReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.r.Read(b)
	r.p.progress(func(so *Progress) { so.Done += int64(n) })
	return n, err
}
