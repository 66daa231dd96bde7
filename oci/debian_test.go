package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"lab/lab/debiantest"
)

// everything is what a tar says of each path, contents by digest. The names of
// hard links are sorted out so that another first name makes no difference.
func everything(t testing.TB, r io.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeLink {
			all[name] = "link to " + path.Clean(h.Linkname)
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		all[name] = fmt.Sprintf("%c %o %d:%d %s:%s %d %d.%09d %s %d:%d %v %x", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.Uname, h.Gname,
			h.Size, h.ModTime.Unix(), h.ModTime.Nanosecond(), h.Linkname, h.Devmajor, h.Devminor, xattrLines(h), sum.Sum(nil))
	}
}

// A real distribution comes out of the pipeline as it went in.
func TestDebian(t *testing.T) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: makes a Debian root file system")
	}
	file := debiantest.Rootfs(t)
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	want := everything(t, in)
	img, err := newStore(t).Pull(t.Context(), "rootfs:"+file, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := Flatten(t.Context(), img)
	defer r.Close()
	got := everything(t, r)
	if len(want) < 1000 {
		t.Errorf("only %d paths", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff[:min(len(diff), 4000)])
	}
	t.Logf("%d paths are the same", len(got))
}

// benchTar is what the benchmarks flatten: the Debian that LAB_TEST_ROOTFS names
// or 20,000 made-up files in 350 MB.
func benchTar(b *testing.B) []byte {
	b.Helper()
	if file := os.Getenv("LAB_TEST_ROOTFS"); file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		return raw
	}
	text := strings.Repeat("the quick brown fox jumps over the lazy dog; ", 400)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 20000 {
		body := fmt.Sprintf("%d %s", i, text)
		h := &tar.Header{Name: fmt.Sprintf("usr/d%d/f%d", i%500, i), Mode: 0o644, Size: int64(len(body))}
		if err := w.WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkFlatten(b *testing.B) {
	plain := benchTar(b)
	for _, c := range []struct {
		name   string
		stored []byte
	}{{"plain", plain}, {"gzip", gzipped(b, plain)}, {"zstd", zstded(b, plain)}} {
		l := layerOf(plain, c.stored)
		host, _ := serve(b)
		push(b, host+"/app:1", withLayers(b, l))
		img, err := newStore(b).Pull(context.Background(), host+"/app:1", amd64)
		if err != nil {
			b.Fatal(err)
		}
		// What it would cost to decompress and do nothing.
		b.Run(c.name+"/floor", func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				r, stop, err := decompress(bytes.NewReader(c.stored))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, bufferSize)); err != nil {
					b.Fatal(err)
				}
				stop()
			}
		})
		for name, img := range map[string]v1.Image{"listed": img, "unlisted": withLayers(b, l)} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(plain)))
				for b.Loop() {
					r := Flatten(context.Background(), img)
					if _, err := io.Copy(io.Discard, r); err != nil {
						b.Fatal(err)
					}
					r.Close()
				}
			})
		}
	}
}

func BenchmarkPullRootfs(b *testing.B) {
	file := filepath.Join(b.TempDir(), "rootfs.tar")
	plain := benchTar(b)
	if err := os.WriteFile(file, plain, 0o644); err != nil {
		b.Fatal(err)
	}
	pull := func(s *Store) {
		if _, err := s.Pull(context.Background(), "rootfs:"+file, amd64); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			pull(newStore(b))
		}
	})
	b.Run("again", func(b *testing.B) {
		s := newStore(b)
		b.SetBytes(int64(len(plain)))
		for b.Loop() {
			pull(s)
		}
	})
}
