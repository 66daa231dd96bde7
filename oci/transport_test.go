package oci

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func tarDirectory(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return file
}

func TestPullLayouts(t *testing.T) {
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	one, two := oneFile(t, "one"), oneFile(t, "two")
	tagged := func(tag string) layout.Option {
		return layout.WithAnnotations(map[string]string{annotationRef: tag})
	}
	if err := p.AppendImage(one, tagged("1")); err != nil {
		t.Fatal(err)
	}
	archive := tarDirectory(t, dir)
	for _, ref := range []string{"oci:" + dir, "oci:" + dir + ":1", "oci-archive:" + archive, "oci-archive:" + archive + ":1", "oci:" + dir + "@" + digestOf(t, one)} {
		got, err := newStore(t).Pull(t.Context(), ref, amd64)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		} else if got.Pin.Digest != digestOf(t, one) || got.Pin.Reference != ref || content(t, got) != `file 0 644 0:0 "one"` {
			t.Errorf("%s: %+v", ref, got.Pin)
		}
	}
	if err := p.AppendImage(two, tagged("2")); err != nil {
		t.Fatal(err)
	}
	if err := p.AppendIndex(indexOf(t, types.OCIImageIndex, "linux/amd64", "linux/arm64"), tagged("many")); err != nil {
		t.Fatal(err)
	}
	archive = tarDirectory(t, dir)
	compressed := filepath.Join(t.TempDir(), "a.tar.gz")
	b, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(compressed, gzipped(t, b), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"oci:" + dir, "oci-archive:" + archive, "oci-archive:" + compressed} {
		for suffix, want := range map[string]string{
			":2": `"two"`, ":many": `"linux/amd64"`, "@" + digestOf(t, two): `"two"`,
			":3": "error: no image is tagged 3; there is 1, 2, many", "": "error: there are several images; name one by its tag: 1, 2, many",
			"@sha256:" + strings.Repeat("0", 64): "error: manifest sha256:000",
		} {
			img, err := newStore(t).Pull(t.Context(), prefix+suffix, amd64)
			text := fmt.Sprint("error: ", err)
			if err == nil {
				text = content(t, img)
			}
			if want, isError := strings.CutPrefix(want, "error: "); !strings.Contains(text, want) || isError != (err != nil) {
				t.Errorf("%s: %s, want %s", prefix+suffix, text, want)
			}
		}
	}
	// A blob that is not what index.json says.
	layers, _ := two.Layers()
	digest, _ := layers[0].Digest()
	path := filepath.Join(dir, "blobs/sha256", digest.Hex)
	ok(t, os.Chmod(path, 0o644))
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := newStore(t).Pull(t.Context(), "oci:"+dir+":2", amd64); err == nil || !strings.Contains(err.Error(), "truncated: 5 of") {
		t.Errorf("truncated blob: %v", err)
	}
}

func TestPullDockerArchive(t *testing.T) {
	config := `{"os":"linux","architecture":"amd64","config":{"Cmd":["/x"]},"rootfs":{"type":"layers","diff_ids":["%s","%s"]}}`
	layer := tarOf(t, f("file", "x"))
	digest, _, _ := v1.SHA256(strings.NewReader(string(layer)))
	config = fmt.Sprintf(config, digest, digest)
	files := []file{
		f("manifest.json", `[{"Config":"abc.json","RepoTags":["app:1"],"Layers":["l1/layer.tar","l2/layer.tar"]},{"Config":"none","RepoTags":["app:2"],"Layers":[]}]`),
		f("abc.json", config), dir("l1/"), {Name: "l1/layer.tar", Body: string(layer)}, symlink("l2/layer.tar", "../l1/layer.tar"),
	}
	path := filepath.Join(t.TempDir(), "app.tar")
	if err := os.WriteFile(path, tarOf(t, files...), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	first, err := s.Pull(t.Context(), "docker-archive:"+path+":app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	if content(t, first) != `file 0 644 0:0 "x"` {
		t.Errorf("image holds %s", content(t, first))
	}
	// Layers that are compressed have the same diff ids, and docker.io/library
	// goes without saying.
	files[3].Body = string(gzipped(t, layer))
	if err := os.WriteFile(path, gzipped(t, tarOf(t, files...)), 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := s.Pull(t.Context(), "docker-archive:"+path+":docker.io/library/app:1", amd64)
	if err != nil || content(t, second) != `file 0 644 0:0 "x"` {
		t.Errorf("compressed: %v", err)
	}
	for ref, want := range map[string]string{
		path:                         "several images; name one by its tag: app:1, app:2",
		path + ":app:3":              "no image is tagged app:3",
		path + ":app:2":              "open none in the archive",
		path + ".no":                 "no such file",
		filepath.Dir(path):           "is a directory",
		"/dev/null":                  "no manifest.json",
		"/proc/self/exe":             "not a tar archive",
		filepath.Dir(path) + "/../x": "no such file",
	} {
		if _, err := s.Pull(t.Context(), "docker-archive:"+ref, amd64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", ref, err, want)
		}
	}
}

func TestPullRootfs(t *testing.T) {
	plain := tarOf(t, dir("./"), f("./file", "x"), hardlink("./link", "./file"))
	tmp := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return "rootfs:" + path
	}
	s := newStore(t)
	var pins []string
	for _, ref := range []string{write("a.tar", plain), write("a.tar.gz", gzipped(t, plain)), write("a.tar.zst", zstded(t, plain)), write("a.tar.xz", xzed(t, plain))} {
		img, err := s.Pull(t.Context(), ref, amd64)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(img.Pin.Platform, "linux/amd64") || img.Pin.Reference != ref {
			t.Errorf("pin %+v", img.Pin)
		}
		pins = append(pins, img.Pin.Digest)
		if diff := cmp.Diff([]string{"./ 5 755 0:0", `file 0 644 0:0 "x"`, "link 1 644 0:0 -> file"}, must(flat(t, img))); diff != "" {
			t.Error(diff)
		}
	}
	if slices.Max(pins) != slices.Min(pins) {
		t.Errorf("the pin depends on the compression: %v", pins)
	}
	for ref, want := range map[string]string{
		"rootfs:" + tmp + "/none.tar":                        "no such file",
		write("cut.tar", plain[:len(plain)-1024]):            "does not end in two blocks of zeros",
		write("cut.tar.gz", gzipped(t, plain)[:100]):         "truncated",
		write("short", []byte("x")):                          "not a tar",
		write("text", []byte(strings.Repeat("text ", 1000))): "not a tar",
		write("zeros", make([]byte, 10240)):                  "holds nothing",
		write("wh.tar", tarOf(t, f(".wh.a", ""))):            `entry ".wh.a": names that begin with ".wh."`,
		write("evil.tar", tarOf(t, f("../a", ""))):           "leads out of the root",
	} {
		if _, err := s.Pull(t.Context(), ref, amd64); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", ref, err, want)
		}
	}
}

func TestPullRootfsDirectory(t *testing.T) {
	dir := t.TempDir()
	ok(t, os.MkdirAll(filepath.Join(dir, "etc/empty"), 0o755))
	ok(t, os.WriteFile(filepath.Join(dir, "etc/b"), []byte("B"), 0o600))
	ok(t, os.Link(filepath.Join(dir, "etc/b"), filepath.Join(dir, "a")))
	ok(t, os.Symlink("../nowhere", filepath.Join(dir, "etc/l")))
	s := newStore(t)
	img, err := s.Pull(t.Context(), "rootfs:"+dir, amd64)
	if err != nil {
		t.Fatal(err)
	}
	owner := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	var got []string
	for _, line := range must(flat(t, img)) {
		if !strings.HasPrefix(line, "./ ") {
			got = append(got, strings.ReplaceAll(line, owner, "me"))
		}
	}
	want := []string{`a 0 600 me "B"`, `etc/ 5 755 me`, `etc/b 1 600 me -> a`, `etc/empty/ 5 755 me`, `etc/l 2 777 me -> ../nowhere`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	link := filepath.Join(t.TempDir(), "link")
	ok(t, os.Symlink(dir, link))
	if linked, err := s.Pull(t.Context(), "rootfs:"+link, amd64); err != nil || linked.Pin.Digest != img.Pin.Digest {
		t.Errorf("by a symlink: %+v, %v", linked.Pin, err)
	}
	again, err := s.Pull(t.Context(), "rootfs:"+dir, amd64)
	if err != nil || again.Pin != img.Pin {
		t.Errorf("the second time: %+v, %v", again.Pin, err)
	}
}
