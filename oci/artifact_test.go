package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const testType = "application/vnd.lab.test.v1"

func artifactOf(t testing.TB, parts ...string) Artifact {
	t.Helper()
	a := Artifact{Type: testType, Annotations: map[string]string{"lab.test": "yes"}}
	for _, content := range parts {
		h, n, err := v1.SHA256(strings.NewReader(content))
		ok(t, err)
		a.Parts = append(a.Parts, Part{
			Type: "text/plain", Digest: h.String(), Size: n, Annotations: map[string]string{"lab.part": content[:1]},
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
		})
	}
	return a
}

// contentOf reads the parts of a pulled artifact, and checks the rest of it.
func contentOf(t testing.TB, a Artifact) (list []string) {
	t.Helper()
	if a.Type != testType || a.Annotations["lab.test"] != "yes" {
		t.Errorf("%+v", a)
	}
	for _, p := range a.Parts {
		rc, err := p.Open()
		ok(t, err)
		data, err := io.ReadAll(rc)
		ok(t, err)
		rc.Close()
		if p.Type != "text/plain" || p.Annotations["lab.part"] != string(data[:1]) || p.Size != int64(len(data)) {
			t.Errorf("%+v", p)
		}
		list = append(list, string(data))
	}
	return list
}

// What is pushed comes back, from registries and layouts alike, and what two
// artifacts share travels once each way.
func TestArtifacts(t *testing.T) {
	shared, one, two := strings.Repeat("shared ", 50_000), "1 of the first", "2 of the second"
	host, _ := serve(t)
	for _, to := range []string{host + "/things", "oci:" + filepath.Join(t.TempDir(), "layout")} {
		s := newStore(t)
		for i, parts := range [][]string{{one, shared}, {shared, two, shared}} {
			ref := to + []string{":one", ":two"}[i]
			a := artifactOf(t, parts...)
			var so Progress
			pushed, err := a.Push(t.Context(), ref, PullOptions{Progress: func(now Progress) { so = now }})
			ok(t, err)
			want := int64(len(one) + len(shared))
			if i == 1 {
				want = int64(len(two))
			}
			if pushed.Sent != want || so.Done != want || so.Total != want {
				t.Errorf("%s: %+v, %+v, want %d bytes sent", ref, pushed, so, want)
			}
			again, err := a.Push(t.Context(), ref, PullOptions{})
			ok(t, err)
			if again.Sent != 0 || again.Digest != pushed.Digest {
				t.Errorf("pushed again: %+v, before %+v", again, pushed)
			}

			so = Progress{}
			got, err := s.PullArtifact(t.Context(), ref, testType, PullOptions{Progress: func(now Progress) { so = now }})
			ok(t, err)
			if list := contentOf(t, got); strings.Join(list, "|") != strings.Join(parts, "|") {
				t.Errorf("%s: %.100q came back", ref, list)
			}
			if so.Done != want {
				t.Errorf("%s: fetched %+v, want %d bytes", ref, so, want)
			}
			base, _, _ := strings.Cut(ref, to)
			got, err = newStore(t).PullArtifact(t.Context(), base+to+"@"+pushed.Digest, testType, PullOptions{})
			ok(t, err)
			if list := contentOf(t, got); len(list) != len(parts) {
				t.Errorf("%s by its digest: %.100q", ref, list)
			}
		}
	}
}

// A layout that is pushed to is one for others: nothing but what the
// specification names, and the lock.
func TestPushedLayouts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	for _, content := range []string{"1", "2"} {
		_, err := artifactOf(t, content).Push(t.Context(), "oci:"+dir+":app", PullOptions{})
		ok(t, err)
	}
	var names []string
	for _, e := range must(os.ReadDir(dir)) {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != ".lock blobs index.json oci-layout" {
		t.Errorf("there is %s", got)
	}
	index := must((&Store{dir: dir}).readIndex())
	if len(index.Manifests) != 1 || index.Manifests[0].ArtifactType != testType || index.Manifests[0].Annotations[annotationRef] != "app" {
		t.Errorf("index.json: %+v", index.Manifests)
	}
}

func TestRefusedArtifacts(t *testing.T) {
	host, _ := serve(t)
	push(t, host+"/app:image", imageOf(t, tarOf(t, file{Name: "a"})))
	other := artifactOf(t, "x")
	other.Type = "application/vnd.lab.other.v1"
	must(other.Push(t.Context(), host+"/app:other", PullOptions{}))
	must(artifactOf(t, "x").Push(t.Context(), host+"/app:1", PullOptions{}))
	s := newStore(t)
	for ref, want := range map[string]string{
		host + "/app:image":       "it is a container image",
		host + "/app:other":       `it is an artifact of type "application/vnd.lab.other.v1", not`,
		host + "/app:none":        "has no such tag",
		"oci:" + t.TempDir():      "is not an OCI image layout",
		"docker-archive:file.tar": "can hold what is no image",
		"rootfs:dir":              "can hold what is no image",
	} {
		if _, err := s.PullArtifact(t.Context(), ref, testType, PullOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pull %s: %v, want %s", ref, err, want)
		}
	}
	if _, err := s.Pull(t.Context(), host+"/app:1", amd64); err == nil || !strings.Contains(err.Error(), "not a container image") {
		t.Errorf("pulled as an image: %v", err)
	}
	if _, err := s.PullArtifact(t.Context(), host+"/app:1", testType, PullOptions{Limits: Limits{Bytes: 2}}); !errors.As(err, new(*LimitError)) {
		t.Errorf("larger than the limit: %v", err)
	}
	for _, ref := range []string{host + "/app@sha256:" + strings.Repeat("0", 64), "oci-archive:x.tar", "rootfs:dir"} {
		if _, err := artifactOf(t, "x").Push(t.Context(), ref, PullOptions{}); err == nil || !strings.Contains(err.Error(), "to push, a tag") {
			t.Errorf("push %s: %v", ref, err)
		}
	}
	liar := artifactOf(t, "x")
	liar.Parts[0].Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("y")), nil }
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := liar.Push(t.Context(), "oci:"+dir, PullOptions{}); err == nil || !strings.Contains(err.Error(), "the bytes are not those") {
		t.Errorf("a part that is another one: %v", err)
	}
	if index := must((&Store{dir: dir}).readIndex()); len(index.Manifests) != 0 {
		t.Errorf("it is named all the same: %+v", index.Manifests)
	}
}

// A push that is stopped leaves no manifest.
func TestPushStops(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	host := faulty(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel(stop)
		}
		next.ServeHTTP(w, r)
	})
	if _, err := artifactOf(t, "x").Push(ctx, host+"/app:1", PullOptions{}); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	if _, err := newStore(t).PullArtifact(t.Context(), host+"/app:1", testType, PullOptions{}); err == nil || !strings.Contains(err.Error(), "has no such") {
		t.Errorf("pulled: %v", err)
	}
}

func TestPushRefused(t *testing.T) {
	t.Setenv("DOCKER_AUTH_CONFIG", "{}")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
		case http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		default:
			http.Error(w, `{"errors": [{"code": "DENIED", "message": "no\u001b[2J"}]}`, http.StatusForbidden)
		}
	}))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	_, err := artifactOf(t, "x").Push(t.Context(), ref, PullOptions{})
	if err == nil || !strings.Contains(err.Error(), "does not let you write to team/app (403); there are no credentials for it") || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("got %v", err)
	}
}

func FuzzArtifactManifest(f *testing.F) {
	sound := must(artifactOf(f, "a", "b").manifest())
	f.Add(sound)
	f.Add(bytes.Replace(sound, []byte(`"size":1`), []byte(`"size":-1`), 1))
	f.Add(bytes.Replace(sound, []byte("sha256"), []byte("md5"), 1))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseArtifact(data, testType)
		if err != nil {
			return
		}
		for _, d := range m.Layers {
			if d.Size < 0 || d.Digest == (v1.Hash{}) {
				t.Fatalf("accepted %+v", d)
			}
		}
	})
}
