package demo

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"time"

	"maps"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// maxBinary bounds the program that Image holds in memory.
const maxBinary = 512 << 20

// Image is a container with nothing in it but binary, a static program, as
// /bin/auditprobe, and the few files that make it a place to run one. The same
// binary gives the same digest.
func Image(binary string) (v1.Image, error) {
	layer, err := imageLayer(binary)
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", binary, err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:     layer,
		History:   v1.History{CreatedBy: "lab demo", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
		MediaType: types.OCILayer,
	})
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", binary, err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make image of %s: %w", binary, err)
	}
	file = file.DeepCopy()
	file.OS = "linux"
	file.Architecture = runtime.GOARCH
	file.Created = v1.Time{Time: time.Unix(0, 0).UTC()}
	file.Config = v1.Config{
		Entrypoint: []string{"/bin/" + ProbeName},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		WorkingDir: "/",
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		return nil, fmt.Errorf("make image of %s: %w", binary, err)
	}
	return img, nil
}

func imageLayer(binary string) (v1.Layer, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxBinary {
		return nil, fmt.Errorf("not a file of at most %d bytes", maxBinary)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"bin/", 0o755, nil},
		{"bin/" + ProbeName, 0o755, program},
		{"etc/", 0o755, nil},
		{"etc/group", 0o644, []byte("root:x:0:\n")},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/" + ProbeName + "\n")},
		{"tmp/", 0o1777, nil},
	} {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if e.data == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	}, tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}

// Serve runs a registry on a free port of 127.0.0.1 and pushes images into it,
// under their keys ("app:1"): what a user would write is addr + "/app:1". It
// runs until stop is called or ctx is done; after stop it is gone.
func Serve(ctx context.Context, images map[string]v1.Image) (addr string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("serve images: %w", err)
	}
	server := &http.Server{
		Handler:           registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with ErrServerClosed
	}()
	undo := context.AfterFunc(ctx, func() { server.Close() })
	stop = func() {
		undo()
		server.Close()
		<-served
	}
	addr = listener.Addr().String()
	for _, key := range slices.Sorted(maps.Keys(images)) {
		ref, err := name.ParseReference(addr + "/" + key)
		if err == nil {
			err = remote.Write(ref, images[key], remote.WithContext(ctx))
		}
		if err != nil {
			stop()
			return "", nil, fmt.Errorf("serve image %s: %w", key, err)
		}
	}
	return addr, stop, nil
}
