package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	quickTimeout = 15 * time.Second       // to resolve a tag that there is a pin for
	retryPause   = 500 * time.Millisecond // before the second attempt; longer before the next
)

// repository is one of a registry, or of a mirror, logged in to. Manifests
// come through the library's Puller, blobs through a client of our own, which
// can ask for the rest of one; both use the same connections and token.
type repository struct {
	place  place
	base   *http.Transport
	puller *remote.Puller
	client *http.Client
}

func (r *repository) close() { r.base.CloseIdleConnections() }

// transport makes requests that are guarded and sent again when the connection
// broke. Quick does without second attempts, for when there is something to fall
// back to.
func (p *pull) transport(quick bool) (base *http.Transport, retrying http.RoundTripper) {
	stall, header := p.options.wire.stall, answerTimeout
	if stall == 0 {
		stall = stallTimeout
	}
	base = remote.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = min(stall, header)
	base.MaxResponseHeaderBytes = maxHeader
	if p.options.wire.dial != nil {
		base.DialContext = p.options.wire.dial
	}
	backoff := transport.Backoff{Duration: p.pause(), Factor: 3, Jitter: 0.1, Steps: 3}
	if quick {
		backoff.Steps = 1
	}
	guarded := &guard{base: base, options: &p.options, notice: p.notice, stall: stall}
	return base, transport.NewRetry(guarded, transport.WithRetryBackoff(backoff),
		transport.WithRetryPredicate(passing),
		transport.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
}

// connect logs in, to do what the scope says: pull, or push too.
func (p *pull) connect(ctx context.Context, where place, l login, quick bool, scope string) (*repository, error) {
	base, retrying := p.transport(quick)
	repo := where.ref.Context()
	inner, err := transport.NewWithContext(ctx, repo.Registry, l.auth,
		transport.NewUserAgent(retrying, "lab"), []string{repo.Scope(scope)})
	if err != nil {
		return nil, answerOf(err)
	}
	puller, err := remote.NewPuller(remote.WithTransport(inner))
	if err != nil {
		return nil, err
	}
	return &repository{where, base, puller, &http.Client{Transport: inner}}, nil
}

// answerOf is the error that tells most of logging in. Where plain HTTP is fine
// the library tries TLS too, first, and joins what came of both.
func answerOf(err error) error {
	var certificate *tls.CertificateVerificationError
	var status *transport.Error
	var limit *rateLimitError
	switch {
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &status):
		return status
	case errors.As(err, &limit):
		return limit
	}
	return err
}

// resolve finds the image manifest for a platform, and the digest that the
// reference led to first, which is an index's when there is one. When that
// digest is known already, it comes back without a manifest.
func (r *repository) resolve(ctx context.Context, want v1.Platform, known v1.Hash) (manifest []byte, resolved v1.Hash, err error) {
	ref := r.place.ref
	if known != (v1.Hash{}) {
		// Registries count GET against their rate limits, not HEAD. One that
		// knows no HEAD will show its trouble at GET.
		if d, err := r.puller.Head(ctx, ref); err == nil && d.Digest == known {
			return nil, known, nil
		}
	}
	desc, err := r.puller.Get(ctx, ref)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	get := func(d v1.Descriptor) ([]byte, error) {
		desc, err := r.puller.Get(ctx, ref.Context().Digest(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		return desc.Manifest, nil
	}
	manifest, err = selectManifest(desc.Manifest, desc.MediaType, want, get, 0)
	return manifest, desc.Digest, err
}

// blob asks for a blob from an offset on, and says where the bytes that come
// begin: at the offset, or at 0 with a registry that cannot do so. It asks the
// registry only, never the addresses that a foreign layer's descriptor names.
func (r *repository) blob(ctx context.Context, d v1.Descriptor, offset int64) (rc io.ReadCloser, start int64, err error) {
	repo := r.place.ref.Context()
	url := fmt.Sprintf("%s://%s/v2/%s/blobs/%s", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr(), d.Digest)
	req, err := http.NewRequestWithContext(context.WithValue(ctx, blobKey{}, true), http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "identity") // sizes and offsets are those of the blob
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, d.Size-1))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	switch {
	case offset > 0 && resp.StatusCode == http.StatusPartialContent && continues(resp.Header.Get("Content-Range"), offset, d.Size):
		return resp.Body, offset, nil
	case offset > 0 && (resp.StatusCode == http.StatusPartialContent || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable):
		resp.Body.Close()
		return r.blob(ctx, d, 0)
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, 0, nil
}

// continues says whether a Content-Range (RFC 9110, section 14.4) is that of
// the blob from the offset on: bytes 10-19/20, or with * for a size unknown.
func continues(s string, offset, size int64) bool {
	span, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return false
	}
	span, all, _ := strings.Cut(span, "/")
	from, to, _ := strings.Cut(span, "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	return err == nil && err2 == nil && first == offset && last >= first && last < size &&
		(all == "*" || all == strconv.FormatInt(size, 10))
}
