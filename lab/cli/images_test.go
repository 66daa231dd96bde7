package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"lab/lab"
	"lab/lab/debiantest"
)

// TestBisectImages bisects the tags of an image in a registry on Debian's kernel.
func TestBisectImages(t *testing.T) {
	needE2E(t)
	t.Parallel()
	const n, culprit = 6, 3
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/app"
	img := appendLayer(t, empty.Image, "COPY rootfs /", archiveOf(t, busyboxRoot(t)))
	for i := 1; i <= n; i++ {
		// Two tags each are the same image.
		if i%2 == 1 {
			state := "fine"
			if i >= culprit {
				state = "broken"
			}
			img = appendLayer(t, img, fmt.Sprintf("RUN echo %s # %d", state, i), fileTar(t, "state", fmt.Sprintf("%s %d\n", state, i)))
		}
		for _, tag := range []string{fmt.Sprint(i), fmt.Sprintf("%d-debug", i)} {
			ref, err := name.ParseReference(repository + ":" + tag)
			if err != nil {
				t.Fatal(err)
			}
			if err := remote.Write(ref, img); err != nil {
				t.Fatal(err)
			}
		}
	}
	home := t.TempDir()
	args := []string{"bisect", "--images", fmt.Sprintf("%s:1..%d", repository, n), "--kernel", debiantest.Kernel(t), "--json", "--", "sh", "-c", "cat /state && grep fine /state"}
	stdout, _ := runLab(t, home, ExitGood, args...)
	var b lab.Bisection
	if err := json.Unmarshal([]byte(stdout), &b); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if b.Axis != "image" || b.Range != n-1 || b.Culprit == nil || b.Culprit.Title != fmt.Sprintf("%s:%d", repository, culprit) {
		t.Fatalf("found %+v, %s", b.Culprit, b.Unclear)
	}
	boots := 0
	for _, x := range b.Tested {
		if x.Boot > 0 {
			boots++
		}
		if !strings.HasPrefix(x.Image, "sha256:") {
			t.Errorf("%s is not pinned: %q", x.Commit.Title, x.Image)
		}
	}
	if boots > len(b.Tested)-1 {
		t.Errorf("%d boots of %d tests: the same image was booted twice", boots, len(b.Tested))
	}
	// Once more, from the journal, and for people.
	stdout, _ = runLab(t, home, ExitGood, slices.DeleteFunc(args, func(a string) bool { return a == "--json" })...)
	for _, want := range []string{
		fmt.Sprintf("%s:%d is the first bad image\n", repository, culprit), " && lab image build --load app=" + repository + ":3 -o bad.img && lab image diff good.img:app bad.img:app\n",
		fmt.Sprintf("%d boots, %d images in the range", boots, n-1),
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("lab bisect says %s\nwithout %q", stdout, want)
		}
	}
}

// appendLayer adds a layer to an image, and to its history.
func appendLayer(t *testing.T, img v1.Image, by string, data []byte) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: by}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func archiveOf(t *testing.T, dir string) []byte {
	t.Helper()
	data, err := exec.Command("tar", "-C", dir, "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fileTar(t *testing.T, name, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
