package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Artifact is something that is no image and that a registry keeps like one: a
// manifest with an artifact type, the empty config, and parts in the place of
// layers (image-spec 1.1, manifest.md, "Guidelines for Artifact Usage").
type Artifact struct {
	Type        string // a media type of its makers'
	Annotations map[string]string
	Parts       []Part
}

// Part is a blob of an artifact.
type Part struct {
	Type        string // media type
	Digest      string // sha256:…
	Size        int64
	Annotations map[string]string
	// Open gives the bytes, and may be called again. Those of a part that was
	// pulled end in an error where they are not what the digest says.
	Open func() (io.ReadCloser, error)
}

const (
	emptyConfigType = "application/vnd.oci.empty.v1+json"
	emptyConfig     = "{}"
)

func (a Artifact) manifest() (raw []byte, err error) {
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: a.Type, Annotations: a.Annotations,
		Layers: []v1.Descriptor{},
	}
	if m.Config, err = describePart(emptyConfigType, []byte(emptyConfig)); err != nil {
		return nil, err
	}
	for _, p := range a.Parts {
		d := v1.Descriptor{MediaType: types.MediaType(p.Type), Size: p.Size, Annotations: p.Annotations}
		if d.Digest, err = v1.NewHash(p.Digest); err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	return json.Marshal(m)
}

func describePart(mediaType types.MediaType, data []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(data))
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}, err
}

// Pushed is what became of a push.
type Pushed struct {
	Digest string // sha256:… of the manifest
	Sent   int64  // bytes of parts that the registry or layout did not have yet
}

// Push stores an artifact in a registry (docker://HOST/NAME:TAG) or in an OCI
// layout (oci:DIR:TAG), which is made when missing. Parts that are there already
// are not sent again. o.Progress is told of the bytes.
func (a Artifact) Push(ctx context.Context, ref string, o PullOptions) (Pushed, error) {
	r, err := parseReference(ref, o.plain)
	if err != nil {
		return Pushed{}, err
	}
	raw, err := a.manifest()
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", r, err)
	}
	w := &upload{pull: &pull{ref: r, options: o}, artifact: a, manifest: raw}
	switch {
	case r.transport == transportRegistry && r.digest == (v1.Hash{}):
		err = w.toRegistry(ctx)
	case r.transport == transportLayout && r.digest == (v1.Hash{}):
		err = w.toLayout(ctx)
	default:
		err = errors.New("to push, a tag in a registry or a layout is wanted: docker://HOST/NAME:TAG or oci:DIR:TAG")
	}
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", r, err)
	}
	d, err := describePart("", raw)
	return Pushed{Digest: d.Digest.String(), Sent: w.sent.Load()}, err
}

// upload is one call of Artifact.Push.
type upload struct {
	*pull
	artifact Artifact
	manifest []byte
	sent     atomic.Int64
}

// toRegistry sends the parts, and then the manifest that names them.
func (w *upload) toRegistry(ctx context.Context) error {
	where := place{ref: w.ref.registry}
	l := findLogin(ctx, where.ref.Context())
	repo, err := w.connect(ctx, where, l, false, transport.PushScope)
	if err != nil {
		return explainPush(err, where, l)
	}
	defer repo.close()
	pusher, err := remote.NewPusher(remote.WithTransport(repo.client.Transport), remote.WithRetryPredicate(passing))
	if err != nil {
		return err
	}
	layers := []v1.Layer{static.NewLayer([]byte(emptyConfig), emptyConfigType)}
	for _, p := range w.artifact.Parts {
		layers = append(layers, &outgoing{ctx: ctx, part: p, upload: w})
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, layer := range layers {
		g.Go(func() error { return pusher.Upload(gctx, where.ref.Context(), layer) })
	}
	err = g.Wait()
	if err == nil {
		err = pusher.Put(ctx, where.ref, rawManifest(w.manifest))
	}
	if err != nil {
		return explainPush(err, where, l)
	}
	return nil
}

// explainPush is explainRegistry for what one may not write.
func explainPush(err error, where place, l login) error {
	var status *transport.Error
	if !errors.As(err, &status) || status.StatusCode != http.StatusUnauthorized && status.StatusCode != http.StatusForbidden {
		return explainRegistry(err, where, l)
	}
	with := fmt.Sprintf("there are no credentials for it (docker login %s, or podman login, adds them)", where.host())
	if l.from != "" {
		with = l.String() + " it was asked"
	}
	return fmt.Errorf("%s does not let you write to %s (%d); %s: %w", where, where.ref.Context().RepositoryStr(), status.StatusCode, with, plainError{err})
}

// rawManifest is a manifest to be put.
type rawManifest []byte

func (m rawManifest) RawManifest() ([]byte, error)        { return m, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// outgoing is a part on its way, as a layer.
type outgoing struct {
	ctx    context.Context
	part   Part
	upload *upload
}

func (l *outgoing) Digest() (v1.Hash, error)            { return v1.NewHash(l.part.Digest) }
func (l *outgoing) DiffID() (v1.Hash, error)            { return v1.NewHash(l.part.Digest) }
func (l *outgoing) Size() (int64, error)                { return l.part.Size, nil }
func (l *outgoing) MediaType() (types.MediaType, error) { return types.MediaType(l.part.Type), nil }
func (l *outgoing) Uncompressed() (io.ReadCloser, error) {
	return l.Compressed()
}

func (l *outgoing) Compressed() (io.ReadCloser, error) {
	rc, err := l.part.Open()
	if err != nil {
		return nil, err
	}
	l.upload.progress(func(so *Progress) { so.Total += l.part.Size })
	return &countedReader{ReadCloser: rc, ctx: l.ctx, upload: l.upload}, nil
}

// countedReader tells what is read of a part, and stops with its context.
type countedReader struct {
	io.ReadCloser
	ctx    context.Context
	upload *upload
}

func (r *countedReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.ReadCloser.Read(p)
	r.upload.sent.Add(int64(n))
	r.upload.progress(func(so *Progress) { so.Done += int64(n) })
	return n, err
}

// toLayout writes the artifact into a folder.
func (w *upload) toLayout(ctx context.Context) error {
	s, err := openLayout(w.ref.path)
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(s.dir, "tmp")) // stays while somebody else writes
	var m v1.Manifest
	if err := json.Unmarshal(w.manifest, &m); err != nil {
		return err
	}
	if _, err := s.put(bytes.NewReader([]byte(emptyConfig)), &m.Config, 0); err != nil {
		return err
	}
	for i, d := range m.Layers {
		if s.has(d) {
			continue
		}
		if err := w.putPart(ctx, s, d, w.artifact.Parts[i]); err != nil {
			return err
		}
	}
	entry, err := describePart(types.OCIManifestSchema1, w.manifest)
	if err != nil {
		return err
	}
	if _, err := s.put(bytes.NewReader(w.manifest), &entry, 0); err != nil {
		return err
	}
	entry.ArtifactType = w.artifact.Type
	if w.ref.tag != "" {
		entry.Annotations = map[string]string{annotationRef: w.ref.tag}
	}
	return s.name(ctx, entry, func(old v1.Descriptor) bool {
		return old.Annotations[annotationRef] == w.ref.tag && (w.ref.tag != "" || old.Digest == entry.Digest)
	})
}

func (w *upload) putPart(ctx context.Context, s *Store, d v1.Descriptor, p Part) error {
	rc, err := (&outgoing{ctx, p, w}).Compressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = s.put(rc, &d, 0)
	return err
}

// PullArtifact fetches the artifact that a reference names, which must be of a
// type, into the store. What the store has already, as of another artifact, is not
// fetched again. References are those of Pull, but for docker-archive: and
// rootfs:.
func (s *Store) PullArtifact(ctx context.Context, ref, artifactType string, o PullOptions) (Artifact, error) {
	r, err := parseReference(ref, o.plain)
	if err != nil {
		return Artifact{}, err
	}
	p := &pull{store: s, ref: r, artifact: artifactType, options: o, budget: newBudget(o.Limits)}
	if r.transport == transportDockerArchive || r.transport == transportRootfs {
		return Artifact{}, fmt.Errorf("pull %s: only docker://, oci: and oci-archive: can hold what is no image", r)
	}
	img, err := p.run(ctx)
	if err != nil {
		return Artifact{}, fmt.Errorf("pull %s: %w", r, err)
	}
	m := img.manifest
	a := Artifact{Type: m.ArtifactType, Annotations: m.Annotations}
	for _, d := range m.Layers {
		layer := &storeLayer{store: s, desc: d}
		a.Parts = append(a.Parts, Part{Type: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations, Open: layer.Compressed})
	}
	return a, nil
}

// fetchArtifact stores the parts of an artifact.
func (p *pull) fetchArtifact(ctx context.Context, src source) (*storeImage, error) {
	m, err := parseArtifact(src.manifest, p.artifact)
	if err != nil {
		return nil, err
	}
	if err := p.expect(m); err != nil {
		return nil, err
	}
	if err := p.storeLayers(ctx, src, m); err != nil {
		return nil, err
	}
	return &storeImage{store: p.store, contents: contents{rawManifest: src.manifest, manifest: m}}, nil
}

// parseArtifact reads a manifest that must be an artifact's, of one type.
func parseArtifact(b []byte, artifactType string) (*v1.Manifest, error) {
	m, err := v1.ParseManifest(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	switch {
	case m.SchemaVersion != 2 || m.MediaType != types.OCIManifestSchema1:
		return nil, fmt.Errorf("manifest is of type %q, not %q", m.MediaType, types.OCIManifestSchema1)
	case m.ArtifactType == "" && m.Config.MediaType.IsConfig():
		return nil, errors.New("it is a container image")
	case m.ArtifactType != artifactType:
		return nil, fmt.Errorf("it is an artifact of type %q, not %q", m.ArtifactType, artifactType)
	}
	return m, checkBlobs(m)
}
