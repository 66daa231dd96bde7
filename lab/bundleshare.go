package lab

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/google/renameio/v2"

	"lab/lab/bundle"
	"lab/oci"
)

// A bundle in a registry: the content of each large member is a part, so that
// bundles of the same disk or kernel share it, and the frame is the tar without
// them. Put in at their offsets, they make the file again, byte for byte.
const (
	bundleType = "application/vnd.lab.bundle.v1"
	frameType  = "application/vnd.lab.bundle.frame.v1"
	memberType = "application/vnd.lab.bundle.member.v1"

	annotationDigest = "lab.bundle.digest" // sha256:… of the tar
	annotationOffset = "lab.bundle.offset" // of a member's content in the tar

	annotationTitle       = "org.opencontainers.image.title" // tools for artifacts name a part's file by it
	annotationDescription = "org.opencontainers.image.description"
)

// Shared is what became of a pushed bundle.
type Shared struct {
	Reference string `json:"reference"`
	Digest    string `json:"digest"` // sha256:… of the artifact's manifest
	Bundle    string `json:"bundle"` // sha256:… of the bundle's file
	Bytes     int64  `json:"bytes"`  // of the bundle
	Sent      int64  `json:"sent"`   // bytes that were not there yet
	Parts     int    `json:"parts"`
}

// PushBundle verifies a bundle and stores it in a registry or an OCI layout.
func (l *Lab) PushBundle(ctx context.Context, from BundleSource, ref string) (Shared, error) {
	b, err := l.openBundle(ctx, from, false)
	if err != nil {
		return Shared{}, err
	}
	defer b.Close()
	f, err := os.Open(b.file)
	if err != nil {
		return Shared{}, fmt.Errorf("push bundle: %w", err)
	}
	defer f.Close()
	a, err := bundleArtifact(b.Bundle, f)
	if err != nil {
		return Shared{}, fmt.Errorf("push bundle %s: %w", from.Place, err)
	}
	m := meter{reference: ref}
	stop := l.live(func(now time.Time) string { return m.text("pushing to "+ref, now) })
	pushed, err := a.Push(ctx, ref, l.pullOptions(from.Registries, &m))
	stop()
	if err != nil {
		return Shared{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Shared{}, fmt.Errorf("push bundle: %w", err)
	}
	return Shared{
		Reference: ref, Digest: pushed.Digest, Bundle: a.Annotations[annotationDigest],
		Bytes: info.Size(), Sent: pushed.Sent, Parts: len(a.Parts),
	}, nil
}

// bundleArtifact cuts the file of a bundle into parts.
func bundleArtifact(b *bundle.Bundle, f *os.File) (oci.Artifact, error) {
	pieces, err := b.Pieces()
	if err != nil {
		return oci.Artifact{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return oci.Artifact{}, err
	}
	whole := sha256.New()
	if _, err := io.Copy(whole, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return oci.Artifact{}, err
	}
	a := oci.Artifact{Type: bundleType, Parts: make([]oci.Part, 1), Annotations: map[string]string{
		annotationDigest: fmt.Sprintf("sha256:%x", whole.Sum(nil)),
	}}
	if c := b.Manifest.Culprit; c != nil {
		a.Annotations[annotationDescription] = "first bad: " + oneLine(c.Title)
	}
	between := func() io.Reader { // what no piece has
		var list []io.Reader
		from := int64(0)
		for _, p := range pieces {
			list = append(list, io.NewSectionReader(f, from, p.Offset-from))
			from = p.Offset + p.Size
		}
		return io.MultiReader(append(list, io.NewSectionReader(f, from, info.Size()-from))...)
	}
	frame := sha256.New()
	size, err := io.Copy(frame, between())
	if err != nil {
		return oci.Artifact{}, err
	}
	a.Parts[0] = oci.Part{
		Type: frameType, Digest: fmt.Sprintf("sha256:%x", frame.Sum(nil)), Size: size,
		Annotations: map[string]string{annotationTitle: "frame"},
		Open:        func() (io.ReadCloser, error) { return io.NopCloser(between()), nil },
	}
	for _, p := range pieces {
		a.Parts = append(a.Parts, oci.Part{
			Type: memberType, Digest: "sha256:" + p.SHA256, Size: p.Size,
			Annotations: map[string]string{annotationTitle: p.Member, annotationOffset: strconv.FormatInt(p.Offset, 10)},
			Open: func() (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(f, p.Offset, p.Size)), nil
			},
		})
	}
	return a, nil
}

// PullBundle fetches a bundle, verifies it and writes it to a file, which appears
// whole or not at all.
func (l *Lab) PullBundle(ctx context.Context, from BundleSource, path string) (BundleInfo, error) {
	b, err := l.openBundle(ctx, from, false)
	if err != nil {
		return BundleInfo{}, err
	}
	defer b.Close()
	in, err := os.Open(b.file)
	if err != nil {
		return BundleInfo{}, fmt.Errorf("pull bundle: %w", err)
	}
	defer in.Close()
	out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return BundleInfo{}, fmt.Errorf("pull bundle: %w", err)
	}
	defer out.Cleanup()
	if _, err := copyContext(ctx, out, in); err != nil {
		return BundleInfo{}, fmt.Errorf("pull bundle to %s: %w", path, err)
	}
	if err := out.CloseAtomicallyReplace(); err != nil {
		return BundleInfo{}, fmt.Errorf("pull bundle: %w", err)
	}
	return BundleInfo{b.Manifest, b.Signature}, nil
}

// pullArtifact fetches a bundle from a registry or a layout.
func (l *Lab) pullArtifact(ctx context.Context, s BundleSource, into string) error {
	store, err := l.store()
	if err != nil {
		return err
	}
	m := meter{reference: s.Place}
	stop := l.live(m.line)
	o := l.pullOptions(s.Registries, &m)
	o.Limits.Bytes = bundle.MaxSize
	a, err := store.PullArtifact(ctx, s.Place, bundleType, o)
	stop()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(into, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("pull bundle: %w", err)
	}
	defer f.Close()
	if err := assembleBundle(ctx, f, a); err != nil {
		return fmt.Errorf("pull bundle %s: %w", s.Place, err)
	}
	return f.Close()
}

// assembleBundle makes the file again that bundleArtifact cut.
func assembleBundle(ctx context.Context, w io.Writer, a oci.Artifact) error {
	if len(a.Parts) == 0 || a.Parts[0].Type != frameType {
		return errors.New("it does not begin with the bundle's frame")
	}
	total := int64(0)
	for _, p := range a.Parts {
		if total += p.Size; total > bundle.MaxSize {
			return fmt.Errorf("it has more than %d bytes", int64(bundle.MaxSize))
		}
	}
	frame, err := a.Parts[0].Open()
	if err != nil {
		return err
	}
	defer frame.Close()
	whole := sha256.New()
	w = io.MultiWriter(w, whole)
	position, left := int64(0), a.Parts[0].Size
	for _, p := range a.Parts[1:] {
		offset, err := strconv.ParseInt(p.Annotations[annotationOffset], 10, 64)
		if err != nil || p.Type != memberType || offset < position || offset-position > left {
			return fmt.Errorf("part %s has no place in the bundle", p.Digest)
		}
		left -= offset - position
		if _, err := io.CopyN(w, frame, offset-position); err != nil {
			return err
		}
		if err := copyPart(ctx, w, p); err != nil {
			return err
		}
		position = offset + p.Size
	}
	if _, err := io.Copy(w, frame); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", whole.Sum(nil)); got != a.Annotations[annotationDigest] {
		return fmt.Errorf("its parts make a file with the digest %s, not %.80q", got, a.Annotations[annotationDigest])
	}
	return nil
}

func copyPart(ctx context.Context, w io.Writer, p oci.Part) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rc, err := p.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(w, rc)
	return err
}
