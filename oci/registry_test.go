package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sound checks that a store holds nothing but what its names say, and no image
// that is not whole.
func sound(t testing.TB, s *Store, img v1.Image) {
	t.Helper()
	onlyPartials(t, s, img)
	blobs := must(filepath.Glob(filepath.Join(s.dir, "blobs/*/*")))
	for _, path := range blobs {
		if h, _, err := v1.SHA256(bytes.NewReader(must(os.ReadFile(path)))); err != nil || h.Hex != filepath.Base(path) {
			t.Errorf("%s holds other bytes than its name says", path)
		}
	}
	if index := must(s.readIndex()); len(index.Manifests) > 0 {
		t.Errorf("the store names an image: %+v", index.Manifests)
	}
}

// endless answers for ever, and counts what got away.
func endless(sent *atomic.Int64) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		for {
			n, err := w.Write(chunk)
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	}
}

// Whatever a registry says, there is one error that tells who said what about
// which part of which image, and little is read, kept or stored of it.
func TestHostileRegistries(t *testing.T) {
	const most = 24 << 20 // bytes sent in vain: a manifest, and what sockets hold
	img := must(random.Image(1<<20, 1))
	m := must(img.Manifest())
	manifest := string(must(img.RawManifest()))
	size := func(was, is int64) string {
		return strings.Replace(manifest, fmt.Sprintf(`"size":%d`, was), fmt.Sprintf(`"size":%d`, is), 1)
	}
	layer, config := m.Layers[0], m.Config
	var sent atomic.Int64
	gulp := endless(&sent)
	type answer = func(http.ResponseWriter, *http.Request)
	text := func(s string) answer { return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) } }
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", string(types.DockerManifestSchema2))
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	mute := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	status := func(code int, then answer) answer {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			then(w, r)
		}
	}
	const whole = "/v2/"
	manifests, configs, layers := "/manifests/", "/blobs/"+config.Digest.String(), "/blobs/"+layer.Digest.String()
	wrong := "the bytes are not those asked for"
	for _, tt := range []struct {
		name   string
		path   string // that it is about
		answer answer
		want   []string
		stall  time.Duration
	}{
		{"endless greeting", whole, gulp, []string{"answers with more than the 4194304 bytes"}, 0},
		{"endless manifest", manifests, gulp, []string{"answers with more than the 4194304 bytes"}, 0},
		{"endless config", configs, gulp, []string{"config: ", "is longer than the"}, 0},
		{"endless layer", layers, gulp, []string{"layer 1 of 1", "is longer than the"}, 0},
		{"endless refusal", manifests, status(403, gulp), []string{"says no (403)"}, 0},
		{"endless refusal of a layer", layers, status(418, gulp), []string{"layer 1 of 1", "answers 418"}, 0},
		{"endless patience", manifests, status(429, gulp), []string{"limits how often"}, 0},
		{"endless trouble", manifests, status(500, gulp), []string{"out of order (500)"}, 0},
		{"endless token", whole, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/token" {
				gulp(w, r)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/v2/token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, []string{"body exceeds 65536 byte limit"}, 0},
		{"gigantic header", manifests, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 2<<20))
		}, []string{"response headers exceeded"}, 0},
		{"gigantic header of a layer", layers, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 2<<20))
		}, []string{"layer 1 of 1", "response headers exceeded"}, 0},

		{"mute", whole, mute, []string{"does not answer"}, 200 * time.Millisecond},
		{"mute about the manifest", manifests, mute, []string{"does not answer"}, 200 * time.Millisecond},
		{"stalls in the manifest", manifests, silent, []string{"sent no byte for 200ms"}, 200 * time.Millisecond},
		{"stalls in the config", configs, silent, []string{"config: ", "sent no byte for 200ms"}, 200 * time.Millisecond},
		{"stalls in the layer", layers, silent, []string{"layer 1 of 1", "broke off after 1 of", "sent no byte for 200ms"}, 200 * time.Millisecond},
		{"stalls in a refusal", manifests, status(403, silent), []string{"says no (403)"}, 200 * time.Millisecond},

		{"config of other bytes", configs, text(strings.Repeat("x", int(config.Size))), []string{"config: ", wrong}, 0},
		{"layer of other bytes", layers, text(strings.Repeat("x", int(layer.Size))), []string{"layer 1 of 1", wrong}, 0},
		{"layer shorter than said", manifests, text(size(layer.Size, layer.Size+1)), []string{"layer 1 of 1", "is truncated: "}, 0},
		{"layer longer than said", manifests, text(size(layer.Size, layer.Size-1)), []string{"layer 1 of 1", "is longer than the"}, 0},
		{"config longer than said", manifests, text(size(config.Size, config.Size-1)), []string{"config: ", "is longer than the"}, 0},
		{"layer of an exabyte", manifests, text(size(layer.Size, 1<<60)), []string{"limit of 274877906944 bytes"}, 0},
		{"layer of the largest size", manifests, text(size(layer.Size, 1<<63-1)), []string{"limit of 274877906944 bytes"}, 0},
		{"layer of less than nothing", manifests, text(size(layer.Size, -1)), []string{"a size of -1"}, 0},
		{"config of a gigabyte", manifests, text(size(config.Size, 1<<30)), []string{"config is said to have"}, 0},
		{"compressed on the way", layers, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(gzipped(t, make([]byte, layer.Size)))
		}, []string{"layer 1 of 1", "is truncated"}, 0},
		{"part of a layer that nobody asked for", layers, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, []string{"layer 1 of 1", "answers 206"}, 0},
		{"no content", layers, status(204, func(http.ResponseWriter, *http.Request) {}), []string{"layer 1 of 1", "answers 204"}, 0},
		{"a page", manifests, text("<html>Log in to the hotel's network"), []string{"parse manifest"}, 0},
		{"nothing", manifests, text(""), []string{"parse manifest"}, 0},
		{"terminal codes", manifests, status(404, text(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"\u001b[2J\u009bgone\u202e"}]}`)), []string{"has no such tag", ": [2Jgone"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sent.Store(0)
			n := newTown(t)
			registry := n.settle("registry.example:80")
			registry.give(t, "app:1", img)
			registry.let(func(w http.ResponseWriter, r *http.Request) bool {
				hit := strings.Contains(r.URL.Path, tt.path)
				if hit {
					tt.answer(w, r)
				}
				return hit
			})
			o := n.options("registry.example")
			o.wire.stall = tt.stall
			s := newStore(t)
			_, err := s.Pull(t.Context(), "registry.example/app:1", o)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(tt.want, "pull docker://registry.example/app:1: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
			if len(err.Error()) > 2000 || strings.ContainsAny(err.Error(), "\n\x1b\u009b\u202e") {
				t.Errorf("error is not fit to be printed: %q", err)
			}
			if got := sent.Load(); got > most {
				t.Errorf("%d MiB were read", got>>20)
			}
			sound(t, s, img)
		})
	}
}

// A digest asked for is a digest got, whether the reference has it or an index.
func TestManifestsOfOtherDigests(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, "one")
	index := indexOf(t, types.OCIImageIndex, "linux/amd64", "linux/arm64")
	registry := n.settle("registry.example:80")
	registry.give(t, "app:1", img)
	push(t, registry.addr+"/app:2", index)
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/sha256:") {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		fmt.Fprint(w, `{"schemaVersion":2,"config":{}}`)
		return true
	})
	for ref, want := range map[string]string{
		"registry.example/app@" + digestOf(t, img): "does not match requested digest",
		"registry.example/app:2":                   "does not match requested digest",
	} {
		s := newStore(t)
		_, err := s.Pull(t.Context(), ref, n.options("registry.example"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry registry.example") {
			t.Errorf("%s: error %v, want %s", ref, err, want)
		}
		sound(t, s, img)
	}
}

// A 404 names what is missing, and not what is there.
func TestWhatIsMissing(t *testing.T) {
	n := newTown(t)
	registry := n.settle("registry.example:80")
	registry.give(t, "app:1", oneFile(t, "one"))
	registry.give(t, "many:1", indexOf(t, types.OCIImageIndex, "linux/amd64", "linux/arm64"))
	for ref, tt := range map[string]struct{ gone, want string }{
		"app:1":                                 {"/blobs/", "has no such blob, though the image names it; push the image again: "},
		"app@sha256:" + strings.Repeat("0", 64): {"never", "has no such image, sha256:000"},
		"app:2":                                 {"never", "has no such tag, 2 of app; check the spelling: "},
		"nobody:1":                              {"never", "has no such repository, nobody; check the spelling: "},
		"many:1":                                {"/manifests/sha256:", "has no such manifest, though the image's index names it; push the image again: "},
	} {
		for _, elsewhere := range []bool{false, true} {
			registry.let(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/elsewhere":
					http.Error(w, "<Error><Code>NoSuchKey</Code></Error>", http.StatusNotFound)
				case !strings.Contains(r.URL.Path, tt.gone):
					return false
				case elsewhere:
					http.Redirect(w, r, "/elsewhere", http.StatusFound)
				default:
					w.WriteHeader(http.StatusNotFound)
				}
				return true
			})
			_, err := newStore(t).Pull(t.Context(), "registry.example/"+ref, n.options("registry.example"))
			if err == nil || !strings.Contains(err.Error(), "registry registry.example "+tt.want) {
				t.Errorf("%s: error %v, want %s", ref, err, tt.want)
			}
		}
	}
}

// What is in a registry and is no image that lab could use.
func TestNotForUs(t *testing.T) {
	n := newTown(t)
	registry := n.settle("registry.example:80")
	img := oneFile(t, "one")
	registry.give(t, "app:1", img)
	nested := indexOf(t, types.OCIImageIndex, "linux/amd64")
	for range maxNesting {
		nested = mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: nested})
	}
	push(t, registry.addr+"/nested:1", nested)
	push(t, registry.addr+"/windows:1", indexOf(t, types.DockerManifestList, "windows/amd64", "unknown/unknown"))
	push(t, registry.addr+"/empty:1", mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	artifact := func(kind string) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"` + kind + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	}
	served := map[string][2]string{ // type and body
		"schema1":  {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[]}`},
		"schema1b": {"application/json", `{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[]}`},
		"schema9":  {"application/vnd.oci.image.manifest.v1+json", `{"schemaVersion":9}`},
		"artifact": {"application/vnd.oci.image.manifest.v1+json", artifact("application/vnd.example.sbom")},
		"attested": {"application/vnd.oci.image.manifest.v1+json", artifact("")},
		"list":     {"application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":{}}`},
		"secret": {"application/vnd.oci.image.manifest.v1+json", strings.Replace(string(must(img.RawManifest())),
			string(types.OCILayer), string(types.OCILayer)+"+encrypted", 1)},
	}
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		parts := strings.Split(r.URL.Path, "/")
		s, found := served[parts[min(2, len(parts)-1)]]
		if found {
			w.Header().Set("Content-Type", s[0])
			fmt.Fprint(w, s[1])
		}
		return found
	})
	for repo, want := range map[string]string{
		"schema1":  "manifest is of Docker's schema 1, which was retired in 2019: push the image again",
		"schema1b": "manifest is of Docker's schema 1",
		"schema9":  "manifest has schema version 9, want 2",
		"artifact": `not a container image: it is an artifact of type "application/vnd.example.sbom"`,
		"attested": `not a container image: its config is of type "application/vnd.oci.empty.v1+json"`,
		"list":     "parse index: ",
		"secret":   "is encrypted",
		"nested":   "indexes are nested more than 4 deep",
		"windows":  "no image for linux/amd64; there is windows/amd64",
		"empty":    "index holds no container image",
	} {
		s := newStore(t)
		_, err := s.Pull(t.Context(), "registry.example/"+repo+":1", n.options("registry.example"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry registry.example: ") {
			t.Errorf("%s: error %v, want %s", repo, err, want)
		}
		sound(t, s, img)
	}
}

const tooMany = `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit. You may increase the limit by authenticating and upgrading"}]}`

// 429 says who limits what, when to come back, and what else there is to do.
func TestRateLimits(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, "one")
	registry := n.settle("registry.example:80")
	registry.give(t, "app:1", img)
	for _, path := range []string{"/v2/", "/manifests/", "/blobs/"} {
		for _, tt := range []struct {
			headers map[string]string
			body    string
			login   bool
			want    []string
			not     string
		}{
			{nil, "", false, []string{"registry registry.example limits how often one may pull; log in for a higher limit (docker login registry.example), pull from a mirror (--registry-mirror), or use a file (oci-archive:FILE)", "answers 429, too many requests"}, "come back"},
			{map[string]string{"Retry-After": "3600"}, tooMany, false, []string{"come back in 1h (", "too many requests: You have reached your pull rate limit. You may increase"}, ""},
			{map[string]string{"Retry-After": "3600"}, tooMany, true, []string{"come back in 1h ("}, "docker login"},
			{map[string]string{"Retry-After": time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat)}, "", false, []string{"come back in "}, ""},
			{map[string]string{"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}, tooMany, false, []string{"100 allowed in 6h, 0 left: You have reached"}, "come back"},
			{map[string]string{"Retry-After": "soon", "RateLimit-Limit": "many", "RateLimit-Remaining": "-1"}, "<html>", false, []string{"limits how often"}, "allowed"},
			{map[string]string{"Retry-After": "99999999999999"}, "later", false, []string{"come back in 8784h", "too many requests: later"}, ""},
			{map[string]string{"Retry-After": "-1"}, "", false, nil, "come back"},
			{map[string]string{"Retry-After": "31"}, "", false, []string{"come back in 31s"}, ""},
		} {
			os.RemoveAll(filepath.Join(os.Getenv("HOME"), ".docker"))
			if tt.login {
				writeConfig(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"registry.example":{"auth":"`+userPass+`"}}}`, 0o600)
			}
			asked := 0
			registry.let(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, path) {
					return false
				}
				asked++
				for k, v := range tt.headers {
					w.Header().Set(k, v)
				}
				w.WriteHeader(http.StatusTooManyRequests)
				fmt.Fprint(w, tt.body)
				return true
			})
			s := newStore(t)
			_, err := s.Pull(t.Context(), "registry.example/app:1", n.options("registry.example"))
			for _, want := range append(tt.want, "limits how often one may pull") {
				if err == nil || !strings.Contains(err.Error(), want) || tt.not != "" && strings.Contains(err.Error(), tt.not) {
					t.Errorf("%s, %v: error %v\nwant %q and not %q in it", path, tt.headers, err, want, tt.not)
				}
			}
			if asked != 1 {
				t.Errorf("%s, %v: asked %d times", path, tt.headers, asked)
			}
			sound(t, s, img)
		}
	}
}

// A short Retry-After is waited for, and said; not for ever, and not longer
// than there is time.
func TestRateLimitsAreWaitedFor(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, "one")
	registry := n.settle("registry.example:80")
	registry.give(t, "app:1", img)
	asked := 0
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		if asked++; asked > 1 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	o := n.options("registry.example")
	var notice string
	o.Notice = func(s string) { notice += s }
	if _, err := newStore(t).Pull(t.Context(), "registry.example/app:1", o); err != nil || notice != "registry.example asks for patience (429): going on in 1s" {
		t.Errorf("error %v, notice %q", err, notice)
	}
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := newStore(t).Pull(ctx, "registry.example/app:1", o); !errors.As(err, new(*rateLimitError)) {
		t.Errorf("error %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	o.Notice = func(string) { cancel() }
	if _, err := newStore(t).Pull(ctx, "registry.example/app:1", o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func FuzzRateLimit(f *testing.F) {
	f.Add("30", "100;w=21600", "0;w=21600", []byte(tooMany))
	f.Add("Fri, 31 Dec 1999 23:59:59 GMT", "x", "-1", []byte("<html>"))
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, after, limit, left string, body []byte) {
		resp := httptest.NewRecorder()
		resp.Header().Set("Retry-After", after)
		resp.Header().Set("RateLimit-Limit", limit)
		resp.Header().Set("RateLimit-Remaining", left)
		resp.Body.Write(body)
		r := readRateLimit(resp.Result(), now)
		if r.after < 0 || r.after > longestPatience {
			t.Errorf("come back in %s", r.after)
		}
		if s := r.Error(); len(s) > 4000 || strings.ContainsAny(s, "\n\x1b\x00") {
			t.Errorf("not fit to be printed: %q", s)
		}
	})
}
