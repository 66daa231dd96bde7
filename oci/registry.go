package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	answerTimeout = time.Minute      // for a registry to begin its answer
	quickTimeout  = 15 * time.Second // to resolve a tag that there is a pin for
	stallTimeout  = 2 * time.Minute  // without a byte of a blob
	blobAttempts  = 3
)

// repository is one of a registry as remote gives access to it. It
// logs in once.
type repository struct {
	puller    *remote.Puller
	transport *http.Transport
	ref       name.Reference
}

func (r *repository) close() { r.transport.CloseIdleConnections() }

// openRepository prepares access to a reference's registry. Quick does without
// second attempts, for when there is something to fall back to.
func openRepository(ref name.Reference, quick bool) (*repository, error) {
	transport := remote.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = answerTimeout
	backoff := remote.Backoff{Duration: 500 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}
	if quick {
		backoff.Steps = 1
	}
	puller, err := remote.NewPuller(
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(transport),
		remote.WithUserAgent("lab"),
		remote.WithRetryBackoff(backoff),
		// Not 429: to ask again at once is what it asks not to do.
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout),
	)
	if err != nil {
		return nil, err
	}
	return &repository{puller: puller, transport: transport, ref: ref}, nil
}

// resolve finds the image manifest for a platform, and the digest that the
// reference led to first, which is an index's when there is one. When that
// digest is known already, it comes back without a manifest.
func (r *repository) resolve(ctx context.Context, want v1.Platform, known v1.Hash) (manifest []byte, resolved v1.Hash, err error) {
	if known != (v1.Hash{}) {
		// Registries count GET against their rate limits, not HEAD. One that
		// knows no HEAD will show its trouble at GET.
		if d, err := r.puller.Head(ctx, r.ref); err == nil && d.Digest == known {
			return nil, known, nil
		}
	}
	desc, err := r.puller.Get(ctx, r.ref)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	get := func(d v1.Descriptor) ([]byte, error) {
		desc, err := r.puller.Get(ctx, r.ref.Context().Digest(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		return desc.Manifest, nil
	}
	manifest, err = selectManifest(desc.Manifest, desc.MediaType, want, get, 0)
	return manifest, desc.Digest, err
}

// blob opens a blob. It asks the registry only, never the addresses that a
// foreign layer's descriptor may name.
func (r *repository) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	l, err := r.puller.Layer(ctx, r.ref.Context().Digest(d.Digest.String()))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	rc, err := l.Compressed()
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stalled := fmt.Errorf("blob %s: no byte for %s", d.Digest, stallTimeout)
	return &watchedReader{rc: rc, ctx: ctx, cancel: cancel, timer: time.AfterFunc(stallTimeout, func() { cancel(stalled) })}, nil
}

// watchedReader gives up when nothing comes for too long.
type watchedReader struct {
	rc     io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.rc.Read(p)
	w.timer.Reset(stallTimeout)
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case w.ctx.Err() != nil:
		err = context.Cause(w.ctx)
	case strings.HasPrefix(err.Error(), "error verifying"):
		// remote has checked what the store checks, and says less.
		err = io.EOF
	}
	return n, err
}

func (w *watchedReader) Close() error {
	w.timer.Stop()
	err := w.rc.Close()
	w.cancel(nil)
	return err
}

// selectManifest goes from an index, or an index in an index, to the manifest
// for a platform. What is a manifest already it gives back as it is; its
// platform is in its config.
func selectManifest(raw []byte, mediaType types.MediaType, want v1.Platform, get func(v1.Descriptor) ([]byte, error), depth int) ([]byte, error) {
	if len(raw) > maxManifest {
		return nil, fmt.Errorf("manifest has %d bytes; at most %d are accepted", len(raw), maxManifest)
	}
	if !isIndex(raw, mediaType) {
		return raw, nil
	}
	if depth == maxNesting {
		return nil, fmt.Errorf("indexes are nested more than %d deep", maxNesting)
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("parse index: %w", err)
	}
	best, rank := v1.Descriptor{}, 0
	var candidates []v1.Descriptor // that do not say their platform
	for _, d := range index.Manifests {
		switch {
		case d.Digest == (v1.Hash{}):
		case d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "":
			if d.MediaType == "" || d.MediaType.IsImage() || d.MediaType.IsIndex() {
				candidates = append(candidates, d)
			}
		default:
			if r := platformRank(want, *d.Platform); r > rank {
				best, rank = d, r
			}
		}
	}
	if rank == 0 {
		if len(candidates) != 1 {
			return nil, noPlatform(index, want)
		}
		best = candidates[0]
	}
	child, err := get(best)
	if err != nil {
		return nil, fmt.Errorf("manifest %s for %s: %w", best.Digest, want, err)
	}
	if err := checkDigest(child, best.Digest); err != nil {
		return nil, fmt.Errorf("manifest for %s: %w", want, err)
	}
	return selectManifest(child, best.MediaType, want, get, depth+1)
}

// isIndex goes by the content when the media type does not say.
func isIndex(raw []byte, mediaType types.MediaType) bool {
	if mediaType.IsIndex() {
		return true
	}
	if mediaType.IsImage() || mediaType.IsSchema1() {
		return false
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	return err == nil && (index.MediaType.IsIndex() || index.MediaType == "" && len(index.Manifests) > 0)
}

func noPlatform(index *v1.IndexManifest, want v1.Platform) error {
	seen := map[string]bool{}
	for _, d := range index.Manifests {
		// Attestations call themselves unknown/unknown.
		if d.Platform != nil && d.Platform.OS != "" && d.Platform.OS != "unknown" {
			p := normalPlatform(*d.Platform)
			seen[p.String()] = true
		}
	}
	if len(seen) == 0 {
		return errors.New("index holds no container image")
	}
	var names []string
	for p := range seen {
		names = append(names, p)
	}
	sort.Strings(names)
	return fmt.Errorf("no image for %s; there is %s", want, strings.Join(names, ", "))
}
