package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lab/lab/bundle"
	"lab/oci"
)

// BundleSource says where a bundle is, and whose it has to be.
type BundleSource struct {
	// Place is a file, - for Stdin, an http:// or https:// URL, or the reference of
	// an artifact: docker://HOST/NAME:TAG, oci:DIR:TAG or oci-archive:FILE:TAG.
	Place      string
	Stdin      io.Reader
	Registries Registries
	// Signers are those of whom one has to have signed it; nil is anybody, and
	// nobody as well.
	Signers *bundle.Signers
}

// String is the place without a password.
func (s BundleSource) String() string {
	if u, err := url.Parse(s.Place); err == nil && u.User != nil {
		return u.Redacted()
	}
	return s.Place
}

// openedBundle is a bundle that was verified, and is in the quarantine.
type openedBundle struct {
	*bundle.Bundle
	file  string // the bundle itself, which may be the user's
	dir   string // of the quarantine
	leave func()
}

// Close removes all of it.
func (b *openedBundle) Close() { b.leave() }

// openBundle fetches a bundle into the quarantine and verifies it: all of its
// bytes, and the signature where one is wanted. Nothing of it is used before. With
// extract its members are there too.
func (l *Lab) openBundle(ctx context.Context, s BundleSource, extract bool) (_ *openedBundle, err error) {
	dir, leave, err := l.quarantine()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			leave()
		}
	}()
	b := &openedBundle{dir: dir, leave: leave}
	if b.file, err = l.fetchBundle(ctx, s, filepath.Join(dir, "bundle.tar")); err != nil {
		return nil, err
	}
	l.Progress.Show("verifying %s", s)
	defer l.Progress.Show("")
	if extract {
		b.Bundle, err = bundle.Open(ctx, b.file, filepath.Join(dir, "members"))
	} else {
		b.Bundle, err = bundle.Verify(ctx, b.file)
	}
	who := ""
	if err == nil && s.Signers != nil {
		who, err = b.SignedBy(s.Signers, time.Now())
	}
	if refused := (*bundle.RefusedError)(nil); errors.As(err, &refused) {
		refused.Bundle = s.String() // not the quarantine's name for it
	}
	if err != nil {
		return nil, err
	}
	switch {
	case who != "":
		l.Progress.Say("%s is signed by %s, %s", s, who, b.Signature.Fingerprint)
	case b.Signature != nil:
		l.Progress.Say("%s is signed by %s (not checked: --verify FILE names those whom you trust)", s, b.Signature.Fingerprint)
	}
	return b, nil
}

// fetchBundle gives the file of a bundle: the user's, or into, once the bundle of
// elsewhere is there.
func (l *Lab) fetchBundle(ctx context.Context, s BundleSource, into string) (string, error) {
	switch scheme, _, _ := strings.Cut(s.Place, "://"); {
	case s.Place == "-" && s.Stdin != nil:
		return into, l.spoolBundle(ctx, s.Stdin, into)
	case scheme == "http" || scheme == "https":
		return into, l.downloadBundle(ctx, s, into)
	case oci.HasTransport(s.Place):
		return into, l.pullArtifact(ctx, s, into)
	}
	return s.Place, nil
}

// spoolBundle keeps what comes from standard input.
func (l *Lab) spoolBundle(ctx context.Context, in io.Reader, into string) error {
	l.Progress.Show("reading the bundle from standard input")
	defer l.Progress.Show("")
	f, err := os.OpenFile(into, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("read bundle from standard input: %w", err)
	}
	n, err := copyContext(ctx, f, io.LimitReader(in, bundle.MaxSize+1))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil && n > bundle.MaxSize {
		err = fmt.Errorf("it has more than %d bytes", int64(bundle.MaxSize))
	}
	if err != nil {
		return fmt.Errorf("read bundle from standard input: %w", err)
	}
	return nil
}

// copyContext is io.Copy that ends with the context, even when nothing comes.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	type copied struct {
		n   int64
		err error
	}
	done := make(chan copied, 1)
	go func() {
		n, err := io.Copy(w, r)
		done <- copied{n, err}
	}()
	select {
	case c := <-done:
		return c.n, c.err
	case <-ctx.Done(): // a terminal may be silent for ever
		return 0, context.Cause(ctx)
	}
}

// downloadBundle fetches a bundle from a URL.
func (l *Lab) downloadBundle(ctx context.Context, s BundleSource, into string) error {
	store, err := l.store()
	if err != nil {
		return err
	}
	m := meter{reference: s.String()}
	defer l.live(m.line)()
	return store.Download(ctx, s.Place, into, bundle.MaxSize, l.pullOptions(s.Registries, &m))
}
