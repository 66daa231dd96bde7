package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func digestOf(t testing.TB, img interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// oneFile is an image whose only file holds text.
func oneFile(t testing.TB, text string) v1.Image {
	b := tarOf(t, f("file", text))
	return withLayers(t, layerOf(b, gzipped(t, b)))
}

func content(t testing.TB, img v1.Image) string {
	t.Helper()
	lines, err := flat(t, img)
	if err != nil {
		t.Fatal(err)
	}
	return lines[len(lines)-1]
}

var amd64 = PullOptions{Platform: "linux/amd64", wire: wire{pause: time.Millisecond}}

func TestPullFromRegistry(t *testing.T) {
	host, server := serve(t)
	img := oneFile(t, "one")
	push(t, host+"/app:1", img)
	s := newStore(t)
	ref := "docker://" + host + "/app:1"

	var mu sync.Mutex
	var so Progress
	o := amd64
	o.Progress = func(now Progress) {
		mu.Lock()
		defer mu.Unlock()
		if now.Done < so.Done || now.Total < so.Total || now.Layers < so.Layers {
			t.Errorf("progress went back from %+v to %+v", so, now)
		}
		so = now
	}
	got, err := s.Pull(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	if so.Done != so.Total || so.Total == 0 || so.Layers != 1 || so.AllLayers != 1 {
		t.Errorf("progress ended at %+v", so)
	}
	want := Pin{Reference: ref, Digest: digestOf(t, img), Platform: "linux/amd64"}
	if got.Pin != want {
		t.Errorf("pin %+v, want %+v", got.Pin, want)
	}
	if text := content(t, got); text != `file 0 644 0:0 "one"` {
		t.Errorf("image holds %s", text)
	}
	if _, err := s.Get(t.Context(), want.Digest); err != nil {
		t.Errorf("get what was pulled: %v", err)
	}

	// The tag moves on, and so does the pin.
	push(t, host+"/app:1", oneFile(t, "two"))
	second, err := s.Pull(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if text := content(t, second); text != `file 0 644 0:0 "two"` {
		t.Errorf("image holds %s", text)
	}

	// Without the registry the last pin stands in, and somebody is told.
	server.Close()
	var notice string
	o = amd64
	o.Notice = func(s string) { notice = s }
	third, err := s.Pull(t.Context(), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	if third.Pin != second.Pin || !strings.Contains(notice, "could not be resolved") || !strings.Contains(notice, second.Pin.Digest) {
		t.Errorf("pin %+v, notice %q", third.Pin, notice)
	}
	// A digest needs none, whatever name it came by.
	for _, name := range []string{"/app@", "/other@", "/app:1@"} {
		notice = ""
		fourth, err := s.Pull(t.Context(), host+name+want.Digest, o)
		if err != nil || fourth.Pin.Digest != want.Digest || notice != "" {
			t.Errorf("pull %s by digest: %v, notice %q", name, err, notice)
		}
	}
	// What was never pulled is not there.
	if _, err := s.Pull(t.Context(), host+"/app:2", amd64); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("pull from a registry that is gone: %v", err)
	}
}

func TestPullDialects(t *testing.T) {
	host, _ := serve(t)
	plain := tarOf(t, f("file", "x"))
	docker, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(linuxImage(t, "amd64"),
		types.DockerManifestSchema2), types.DockerConfigJSON), layerOf(plain, gzipped(t, plain)))
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]v1.Image{
		"docker schema 2": docker, "oci gzip": withLayers(t, layerOf(plain, gzipped(t, plain))),
		"oci zstd": withLayers(t, layerOf(plain, zstded(t, plain))), "oci plain": imageOf(t, plain),
	}
	for name, img := range images {
		t.Run(name, func(t *testing.T) {
			push(t, host+"/app:x", img)
			got, err := newStore(t).Pull(t.Context(), host+"/app:x", amd64)
			if err != nil {
				t.Fatal(err)
			}
			if got.Pin.Digest != digestOf(t, img) || content(t, got) != `file 0 644 0:0 "x"` {
				t.Errorf("pulled %+v with %s", got.Pin, content(t, got))
			}
		})
	}
}

func indexOf(t testing.TB, kind types.MediaType, platforms ...string) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, kind)
	for _, p := range platforms {
		os, rest, _ := strings.Cut(p, "/")
		arch, variant, _ := strings.Cut(rest, "/")
		b := tarOf(t, f("file", p))
		img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: os, Architecture: arch, Variant: variant})
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layerOf(b, b)); err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: os, Architecture: arch, Variant: variant}}})
	}
	return index
}

func TestPullPlatforms(t *testing.T) {
	host, server := serve(t)
	for _, kind := range []types.MediaType{types.OCIImageIndex, types.DockerManifestList} {
		push(t, host+"/app:1", indexOf(t, kind, "linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "unknown/unknown", "linux/riscv64"))
		s := newStore(t)
		for want, file := range map[string]string{
			"linux/amd64": "linux/amd64", "linux/arm64": "linux/arm64/v8", "linux/arm64/v8": "linux/arm64/v8",
			"linux/arm": "linux/arm/v7", "linux/arm/v6": "linux/arm/v6", "linux/aarch64": "linux/arm64/v8", "linux/x86_64": "linux/amd64",
		} {
			got, err := s.Pull(t.Context(), host+"/app:1", PullOptions{Platform: want})
			if err != nil {
				t.Errorf("%s: %v", want, err)
			} else if text := content(t, got); !strings.Contains(text, fmt.Sprintf("%q", file)) {
				t.Errorf("%s gave %s", want, text)
			}
		}
		_, err := s.Pull(t.Context(), host+"/app:1", PullOptions{Platform: "linux/s390x"})
		if err == nil || !strings.Contains(err.Error(), "no image for linux/s390x; there is linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64, linux/riscv64") {
			t.Errorf("missing platform: %v", err)
		}
	}
	// One manifest, of the wrong machine.
	push(t, host+"/arm:1", linuxImage(t, "arm64"))
	if _, err := newStore(t).Pull(t.Context(), host+"/arm:1", amd64); err == nil || !strings.Contains(err.Error(), "image is for linux/arm64, not for linux/amd64") {
		t.Errorf("wrong platform: %v", err)
	}
	// An index inside an index, and the index's digest offline.
	inner := indexOf(t, types.OCIImageIndex, "linux/amd64")
	outer := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: inner})
	push(t, host+"/nested:1", outer)
	s := newStore(t)
	ref := host + "/nested@" + digestOf(t, outer)
	first, err := s.Pull(t.Context(), ref, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if first.Pin.Digest == digestOf(t, outer) || first.Pin.Digest == digestOf(t, inner) {
		t.Error("pinned an index")
	}
	server.Close()
	again, err := s.Pull(t.Context(), ref, amd64)
	if err != nil || again.Pin != first.Pin {
		t.Errorf("an index's digest offline: %+v, %v", again.Pin, err)
	}
	if _, err := s.Pull(t.Context(), ref, PullOptions{Platform: "amd64"}); err == nil || !strings.Contains(err.Error(), "want os/arch") {
		t.Errorf("bad platform: %v", err)
	}
}

// faulty is a registry in front of which stands somebody who spoils answers.
func faulty(t testing.TB, spoil func(w http.ResponseWriter, r *http.Request, next http.Handler)) (host string) {
	t.Helper()
	_, server := serve(t)
	inner := server.Config.Handler
	outer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			spoil(w, r, inner)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(outer.Close)
	return strings.TrimPrefix(outer.URL, "http://")
}

func TestPullErrors(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("DOCKER_CONFIG", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	var broken atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
	host := faulty(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if spoil := broken.Load(); spoil != nil {
			(*spoil)(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
	img, err := random.Image(100000, 1)
	if err != nil {
		t.Fatal(err)
	}
	push(t, host+"/app:1", img)
	push(t, host+"/helm:1", mutate.ConfigMediaType(img, "application/vnd.cncf.helm.config.v1+json"))
	auth := filepath.Join(home, ".docker/config.json")

	status := func(code int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if code == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			}
			w.WriteHeader(code)
			fmt.Fprint(w, body)
		}
	}
	blobs := func(change func(w http.ResponseWriter, body []byte)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			change(w, rec.Body.Bytes())
		}
	}
	tests := []struct {
		name, ref string
		login     bool
		spoil     func(http.ResponseWriter, *http.Request, http.Handler)
		want      string
	}{
		{"no such tag", "/app:2", false, nil, "has no such tag, 2 of app"},
		{"no such repository", "/nobody:1", false, nil, "has no such repository, nobody"},
		{"no such digest", "/app@sha256:" + strings.Repeat("0", 64), false, nil, "has no such image"},
		{"not an image", "/helm:1", false, nil, "not a container image"},
		{"no credentials", "/app:1", false, status(401, ""), "no file with credentials was found"},
		{"wrong credentials", "/app:1", true, status(401, ""), "in " + auth + " were not accepted"},
		{"forbidden", "/app:1", true, status(403, `{"errors":[{"code":"DENIED"}]}`), "says no (403)"},
		{"too many requests", "/app:1", false, status(429, ""), "limits how often"},
		{"out of order", "/app:1", false, status(500, ""), "out of order (500)"},
		{"other bytes", "/app:1", false, blobs(func(w http.ResponseWriter, b []byte) {
			b[len(b)/2] ^= 1
			fmt.Fprintf(w, "%s", b)
		}), "bytes are not those asked for"},
		{"truncated", "/app:1", false, blobs(func(w http.ResponseWriter, b []byte) {
			w.Header().Set("Content-Length", fmt.Sprint(len(b)))
			fmt.Fprintf(w, "%s", b[:len(b)/2])
		}), "is truncated: "},
		{"shorter than announced", "/app:1", false, blobs(func(w http.ResponseWriter, b []byte) { fmt.Fprintf(w, "%s", b[:len(b)/2]); w.(http.Flusher).Flush() }), "is truncated: "},
		{"longer than announced", "/app:1", false, blobs(func(w http.ResponseWriter, b []byte) {
			fmt.Fprintf(w, "%s", b)
			w.(http.Flusher).Flush()
			fmt.Fprintf(w, "%s", b)
		}), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			os.RemoveAll(filepath.Dir(auth))
			if tt.login {
				ok(t, os.MkdirAll(filepath.Dir(auth), 0o755))
				ok(t, os.WriteFile(auth, []byte(`{"auths":{"`+host+`":{"auth":"dXNlcjpwYXNz"}}}`), 0o600))
			}
			if tt.spoil != nil {
				broken.Store(&tt.spoil)
				defer broken.Store(nil)
			}
			s := newStore(t)
			_, err := s.Pull(t.Context(), host+tt.ref, amd64)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v\nwant one with %q", err, tt.want)
			}
			if !strings.Contains(err.Error(), "pull docker://"+host) {
				t.Errorf("error does not name the reference: %v", err)
			}
			onlyPartials(t, s, img)
			if tt.spoil == nil {
				return
			}
			// Nothing wrong was kept: with the registry in order again it works.
			broken.Store(nil)
			if _, err := s.Pull(t.Context(), host+tt.ref, amd64); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// onlyPartials looks for files that a pull of an image may not leave behind.
// Parts of its blobs it may, if they are not larger than the blob.
func onlyPartials(t testing.TB, s *Store, img v1.Image) {
	t.Helper()
	sizes := map[string]int64{}
	m := must(img.Manifest())
	for _, d := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		sizes["partial-sha256-"+d.Digest.Hex] = d.Size
	}
	left := must(os.ReadDir(filepath.Join(s.dir, "tmp")))
	for _, f := range left {
		size := must(f.Info()).Size()
		if most, known := sizes[f.Name()]; !known || size > most || size == 0 {
			t.Errorf("left %s of %d bytes behind", f.Name(), size)
		}
	}
}

// A connection that breaks once does not fail a pull.
func TestPullTriesAgain(t *testing.T) {
	var failed atomic.Bool
	host := faulty(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") && failed.CompareAndSwap(false, true) {
			w.Header().Set("Content-Length", "1000000")
			return
		}
		next.ServeHTTP(w, r)
	})
	img := oneFile(t, "x")
	push(t, host+"/app:1", img)
	failed.Store(false)
	if _, err := newStore(t).Pull(t.Context(), host+"/app:1", amd64); err != nil {
		t.Fatal(err)
	}
}

func TestPullTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(server.Close)
	_, err := newStore(t).Pull(t.Context(), strings.TrimPrefix(server.URL, "https://")+"/app:1", amd64)
	if err == nil || !strings.Contains(err.Error(), "certificate that this host does not trust") {
		t.Errorf("self-signed: %v", err)
	}
}

func TestPullCanceled(t *testing.T) {
	host, _ := serve(t)
	push(t, host+"/app:1", oneFile(t, "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newStore(t).Pull(ctx, host+"/app:1", amd64); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestPullRefusesHostileImages(t *testing.T) {
	host, _ := serve(t)
	push(t, host+"/app:1", imageOf(t, tarOf(t, f("../../etc/passwd", ""))))
	s := newStore(t)
	_, err := s.Pull(t.Context(), host+"/app:1", amd64)
	if err == nil || !strings.Contains(err.Error(), "leads out of the root") {
		t.Errorf("error %v", err)
	}
	b := tarOf(t, f("a", "A"))
	push(t, host+"/app:2", withLayers(t, layerOf(tarOf(t, f("b", "B")), b)))
	if _, err := s.Pull(t.Context(), host+"/app:2", amd64); err == nil || !strings.Contains(err.Error(), "diff id") {
		t.Errorf("error %v", err)
	}
	if _, err := s.Pull(t.Context(), host+"/app:2", amd64); err == nil || !strings.Contains(err.Error(), "diff id") {
		t.Errorf("second time: %v", err)
	}
	foreign := static.NewLayer([]byte("windows"), types.DockerForeignLayer)
	img, err := mutate.Append(linuxImage(t, "amd64"), mutate.Addendum{Layer: foreign, URLs: []string{"https://example.invalid/layer"}})
	if err != nil {
		t.Fatal(err)
	}
	push(t, host+"/app:3", img)
	if _, err := s.Pull(t.Context(), host+"/app:3", amd64); err == nil || !strings.Contains(err.Error(), "foreign layer") || !strings.Contains(err.Error(), "example.invalid") {
		t.Errorf("error %v", err)
	}
}
