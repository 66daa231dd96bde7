package cli

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// appImage is an image of one layer of a megabyte.
func appImage(t *testing.T) v1.Image {
	t.Helper()
	layer, err := random.Layer(1<<20, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func pushImage(t *testing.T, server *httptest.Server, repo string, img v1.Image) (ref string) {
	t.Helper()
	_, host, _ := strings.Cut(server.URL, "://")
	to, err := name.ParseReference(host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	return to.String()
}

// labImage is lab image build with a cache and a home of its own.
func labImage(t *testing.T, home string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(labDir, "lab"), append([]string{"--cache", filepath.Join(home, "cache"), "image", "build", "-o", filepath.Join(home, "disk.img")}, args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}, env...)
	return cmd
}

// Lab is killed in the middle of a layer, as only SIGKILL does it. The next one
// fetches the rest.
func TestPullGoesOnAfterAKill(t *testing.T) {
	img := appImage(t)
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ranges []string
	killed := make(chan struct{})
	half := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, digest.String()) {
			inner.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		ranges = append(ranges, r.Header.Get("Range"))
		first := len(ranges) == 1
		mu.Unlock()
		if !first {
			inner.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		w.Write(rec.Body.Bytes()[:600<<10])
		w.(http.Flusher).Flush()
		close(half)
		<-killed
	}))
	defer server.Close()
	ref := pushImage(t, server, "app:1", img)
	home := t.TempDir()
	cmd := labImage(t, home, nil, "--load", "app="+ref)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	<-half
	// The bytes are on their way; they have arrived when the file has them.
	partial := filepath.Join(home, "cache/oci/tmp", "partial-sha256-"+digest.Hex)
	for {
		if info, err := os.Stat(partial); err == nil && info.Size() == 600<<10 {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("lab ended by itself: %v", err)
		default:
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-done
	close(killed)

	var stderr bytes.Buffer
	cmd = labImage(t, home, nil, "--load", "app="+ref)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ranges) != 2 || !strings.HasPrefix(ranges[1], "bytes=614400-") {
		t.Errorf("asked for %q\n%s", ranges, &stderr)
	}
	if !strings.Contains(stderr.String(), "going on at 0.6 of 1.0 MiB") {
		t.Errorf("stderr: %s", &stderr)
	}
	if left, err := os.ReadDir(filepath.Dir(partial)); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A registry whose certificate is of an authority that this host does not know
// works as soon as SSL_CERT_FILE names it; a mirror likewise.
func TestPullTrustsSSLCertFile(t *testing.T) {
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	ref := pushImage(t, server, "hub/app:1", appImage(t))
	home := t.TempDir()
	file := filepath.Join(home, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	host, _, _ := strings.Cut(ref, "/")
	for _, args := range [][]string{
		{"--load", "app=" + ref},
		{"--load", "app=registry.invalid/app:1", "--registry-mirror", "registry.invalid=" + host + "/hub"},
	} {
		var stderr bytes.Buffer
		cmd := labImage(t, t.TempDir(), nil, args...)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), "name its authority's certificate in SSL_CERT_FILE") {
			t.Errorf("%q without the certificate: %v\n%s", args, err, &stderr)
		}
		stderr.Reset()
		cmd = labImage(t, t.TempDir(), []string{"SSL_CERT_FILE=" + file}, args...)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			t.Errorf("%q with it: %v\n%s", args, err, &stderr)
		}
	}
}
