package oci

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// town is a network of registries by name, each on a port of 127.0.0.1. Who is
// not in it cannot be reached.
type town struct {
	t  testing.TB
	mu sync.Mutex
	at map[string]string // host:port as dialled -> address
}

func newTown(t testing.TB) *town {
	noLogin(t)
	return &town{t: t, at: map[string]string{}}
}

func (n *town) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	to, known := n.at[address]
	n.mu.Unlock()
	if !known {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("no route to %s", address)}
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

func (n *town) options(plain ...string) PullOptions {
	return PullOptions{Platform: "linux/amd64", PlainHTTP: plain, wire: wire{dial: n.dial, pause: time.Millisecond}}
}

// citizen is one registry of a town.
type citizen struct {
	addr string
	mu   sync.Mutex
	seen []*http.Request
	// answer, where it is set and says true, answers instead of the registry.
	answer func(w http.ResponseWriter, r *http.Request) bool
}

// settle starts a registry that is known as host:port.
func (n *town) settle(host string) *citizen {
	_, inner := serve(n.t)
	c := &citizen{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, r.Clone(context.Background()))
		answer := c.answer
		c.mu.Unlock()
		if answer == nil || !answer(w, r) {
			inner.Config.Handler.ServeHTTP(w, r)
		}
	}))
	n.t.Cleanup(server.Close)
	c.addr = strings.TrimPrefix(server.URL, "http://")
	n.at[host] = c.addr
	return c
}

func (c *citizen) give(t testing.TB, repo string, img remote.Taggable) {
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	c.let(nil)
	push(t, c.addr+"/"+repo, img)
	c.let(answer)
	c.forget()
}

// let has answer take the registry's place, or nobody where it is nil. A request
// of before may still be on its way.
func (c *citizen) let(answer func(http.ResponseWriter, *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// forget forgets what was asked so far.
func (c *citizen) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = nil
}

// idle says that nothing was asked.
func (c *citizen) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen) == 0
}

// asked says whether anything was asked at a path that holds a text.
func (c *citizen) asked(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.seen, func(r *http.Request) bool { return strings.Contains(r.URL.Path, text) })
}

func (c *citizen) saw(header string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, r := range c.seen {
		if v := r.Header.Get(header); v != "" {
			list = append(list, v)
		}
	}
	return list
}

// noLogin hides the credentials of whoever runs the test, and gives a home.
func noLogin(t testing.TB) (home string) {
	t.Helper()
	home = t.TempDir()
	for _, v := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "DOCKER_AUTH_CONFIG"} {
		t.(interface{ Setenv(string, string) }).Setenv(v, "")
	}
	t.(interface{ Setenv(string, string) }).Setenv("HOME", home)
	return home
}

func writeConfig(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	ok(t, os.MkdirAll(filepath.Dir(path), 0o755))
	ok(t, os.WriteFile(path, []byte(text), mode))
}

const userPass = "dXNlcjpwYXNz" // user:pass

// basic lets in who brings user:pass.
func basic(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Authorization") == "Basic "+userPass {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

func mirrors(t testing.TB, list ...string) (ms []Mirror) {
	t.Helper()
	for _, s := range list {
		m, err := ParseMirror(s)
		ok(t, err)
		ms = append(ms, m)
	}
	return ms
}

func TestMirrors(t *testing.T) {
	n := newTown(t)
	img, other := oneFile(t, "one"), oneFile(t, "two")
	registry, empty, full := n.settle("registry.example:80"), n.settle("empty.example:5000"), n.settle("full.example:80")
	registry.give(t, "app:1", img)
	registry.let(basic)
	full.give(t, "hub/app:1", img)
	full.give(t, "hub/library/debian:12", other)
	writeConfig(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"registry.example":{"auth":"`+userPass+`"}}}`, 0o600)
	var notices []string
	o := n.options("registry.example", "empty.example", "gone.example")
	o.Notice = func(s string) { notices = append(notices, s) }
	o.Mirrors = mirrors(t, "registry.example=gone.example", "registry.example=http://empty.example:5000/x/y/", "registry.example=http://full.example/hub", "docker.io=full.example/hub")
	reset := func() {
		notices = nil
		for _, c := range []*citizen{registry, empty, full} {
			c.forget()
		}
	}

	// One mirror is gone, one lacks the image, the third has it. The registry
	// is not asked at all.
	s := newStore(t)
	got, err := s.Pull(t.Context(), "registry.example/app:1", o)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Pin{"docker://registry.example/app:1", digestOf(t, img), "linux/amd64"}); got.Pin != want {
		t.Errorf("pin %+v, want %+v", got.Pin, want)
	}
	if len(notices) != 2 || !strings.Contains(notices[0], "mirror gone.example does not answer") || !strings.Contains(notices[0], "trying mirror empty.example:5000/x/y") ||
		!strings.Contains(notices[1], "mirror empty.example:5000/x/y has no such") {
		t.Errorf("notices %q", notices)
	}
	if !empty.asked("/v2/x/y/app/manifests/1") || !full.asked("/v2/hub/app/manifests/1") || !registry.idle() {
		t.Error("asked other places than it should")
	}

	// Docker Hub's images have library before them there too.
	reset()
	if img, err := s.Pull(t.Context(), "debian:12", o); err != nil || img.Pin.Reference != "docker://docker.io/library/debian:12" {
		t.Errorf("%+v, %v", img.Pin, err)
	}
	if !full.asked("/v2/hub/library/debian/manifests/12") {
		t.Error("the mirror of docker.io was not asked")
	}

	// No mirror has it: the registry is asked, and nobody else sees its
	// credentials.
	reset()
	registry.give(t, "app:2", other)
	if img, err := s.Pull(t.Context(), "registry.example/app:2", o); err != nil || img.Pin.Digest != digestOf(t, other) {
		t.Errorf("%+v, %v", img.Pin, err)
	}
	if len(notices) != 3 || !strings.Contains(notices[2], "trying registry registry.example") || len(registry.saw("Authorization")) == 0 {
		t.Errorf("notices %q", notices)
	}
	for _, m := range []*citizen{empty, full} {
		if seen := m.saw("Authorization"); len(seen) > 0 || m.idle() {
			t.Errorf("a mirror saw the credentials %q", seen)
		}
	}

	// Nobody has it: the error is the registry's, and names the mirrors.
	_, err = s.Pull(t.Context(), "registry.example/app:3", o)
	if err == nil || !strings.Contains(err.Error(), "registry registry.example has no such tag, 3 of app") ||
		!strings.Contains(err.Error(), "before it: mirror gone.example does not answer") {
		t.Errorf("error %v", err)
	}

	// All are gone: what the tag meant last stands in.
	delete(n.at, "registry.example:80")
	delete(n.at, "full.example:80")
	if img, err := s.Pull(t.Context(), "registry.example/app:2", o); err != nil || img.Pin.Digest != digestOf(t, other) {
		t.Errorf("%+v, %v", img.Pin, err)
	}
}

// A mirror that gives wrong bytes is no better than none, whatever is wrong.
func TestMirrorsThatLie(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, "one")
	registry, mirror := n.settle("registry.example:80"), n.settle("mirror.example:80")
	registry.give(t, "app:1", img)
	mirror.give(t, "app:1", img)
	o := n.options("registry.example", "mirror.example")
	o.Mirrors = mirrors(t, "registry.example=mirror.example")
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"blobs": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			w.Write([]byte(strings.Repeat("x", 100)))
			return true
		},
		"manifest": func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Write([]byte(`{"schemaVersion":2}`))
			return true
		},
		"nothing": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"a page": func(w http.ResponseWriter, _ *http.Request) bool {
			io.WriteString(w, "<html>please log in to the network")
			return true
		},
	} {
		for _, ref := range []string{"registry.example/app:1", "registry.example/app@" + digestOf(t, img)} {
			t.Run(name, func(t *testing.T) {
				registry.forget()
				mirror.let(answer)
				var notice string
				o.Notice = func(s string) { notice += s }
				s := newStore(t)
				got, err := s.Pull(t.Context(), ref, o)
				if err != nil || got.Pin.Digest != digestOf(t, img) || content(t, got) != `file 0 644 0:0 "one"` {
					t.Errorf("%+v, %v", got.Pin, err)
				}
				if !registry.asked("/manifests/") || !strings.Contains(notice, "mirror mirror.example") {
					t.Errorf("the registry was not asked; notice %q", notice)
				}
				onlyPartials(t, s, img)
			})
		}
	}
}

// Nobody is spoken to in plain HTTP who was not named: neither a registry, nor
// one with a private address, nor where an answer leads.
func TestPlainHTTPByName(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, "one")
	for _, host := range []string{"registry.example:5000", "10.1.2.3:5000"} {
		registry := n.settle(host)
		registry.give(t, "app:1", img)
		for _, named := range []string{"", "other.example", "registry.example:5001", "10.1.2.4"} {
			_, err := newStore(t).Pull(t.Context(), host+"/app:1", n.options(named))
			if err == nil || !strings.Contains(err.Error(), "registry "+host+" speaks plain HTTP, not TLS; if that is meant, name it with --plain-http "+host) {
				t.Errorf("%s with %q named: %v", host, named, err)
			}
		}
		if !registry.idle() {
			t.Errorf("%s was spoken to in plain HTTP", host)
		}
		for _, named := range []string{host, strings.TrimSuffix(host, ":5000")} {
			if _, err := newStore(t).Pull(t.Context(), host+"/app:1", n.options(named)); err != nil {
				t.Errorf("%s with %q named: %v", host, named, err)
			}
		}
	}
}

// Blobs often come from elsewhere. The wish for the rest of one goes there,
// the credentials do not.
func TestRedirects(t *testing.T) {
	n := newTown(t)
	img := oneFile(t, strings.Repeat("one", 1000))
	layer := must(img.Manifest()).Layers[0]
	registry, cdn := n.settle("registry.example:80"), n.settle("cdn.example:80")
	registry.give(t, "app:1", img)
	cdn.give(t, "app:1", img)
	writeConfig(t, filepath.Join(os.Getenv("HOME"), ".docker/config.json"), `{"auths":{"registry.example":{"auth":"`+userPass+`"}}}`, 0o600)
	to := "http://cdn.example"
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		if basic(w, r) {
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	s := newStore(t)
	body := must(io.ReadAll(must(must(img.Layers())[0].Compressed())))
	ok(t, os.WriteFile(s.partialPath(layer.Digest), body[:10], 0o644))
	if _, err := s.Pull(t.Context(), "registry.example/app:1", n.options("registry.example", "cdn.example")); err != nil {
		t.Fatal(err)
	}
	if seen := cdn.saw("Authorization"); len(seen) > 0 {
		t.Errorf("the credentials went to the other host: %q", seen)
	}
	if seen, want := cdn.saw("Range"), fmt.Sprintf("bytes=10-%d", layer.Size-1); !slices.Equal(seen, []string{want}) {
		t.Errorf("the other host was asked for %q, want %s", seen, want)
	}
	for target, want := range map[string]string{
		"http://cdn.example":                 "cdn.example is spoken to in TLS only: if plain HTTP is meant, name it with --plain-http cdn.example",
		"file:///etc/passwd?":                `redirects to "file:///etc/passwd?`,
		"ftp://cdn.example":                  "only https and http are followed",
		"https://10.0.0.1":                   "redirects to 10.0.0.1, an address inside this network",
		"https://[fd00::1]:8080":             "an address inside this network",
		"http://localhost:631":               "an address inside this network",
		"https://169.254.169.254":            "an address inside this network",
		"http://registry.example/v2/app/x?/": "registry.example redirects more than 8 times",
	} {
		to = target
		if strings.Contains(target, "x?") { // a loop
			to = "http://registry.example/v2/app/blobs/x?"
		}
		s := newStore(t)
		_, err := s.Pull(t.Context(), "registry.example/app:1", n.options("registry.example"))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry registry.example") {
			t.Errorf("%s: error %v, want %s", target, err, want)
		}
		onlyPartials(t, s, img)
	}
	// Manifests too: the library itself would follow for ever.
	registry.let(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}
		return basic(w, r)
	})
	if _, err := newStore(t).Pull(t.Context(), "registry.example/app:1", n.options("registry.example")); err == nil || !strings.Contains(err.Error(), "redirects more than 8 times") {
		t.Errorf("a loop of manifests: %v", err)
	}
}

func TestParseMirror(t *testing.T) {
	for in, want := range map[string]Mirror{
		"mirror.example":                           {"docker.io", "mirror.example", "", false},
		"https://mirror.example/":                  {"docker.io", "mirror.example", "", false},
		"docker.io=mirror.example:5000/a/b":        {"docker.io", "mirror.example:5000", "a/b", false},
		"index.docker.io=http://mirror.example/a/": {"docker.io", "mirror.example", "a", true},
		"registry.example:5000=mirror":             {"registry.example:5000", "mirror", "", false},
		"r.example=[::1]:5000/x":                   {"r.example", "[::1]:5000", "x", false},
	} {
		got, err := ParseMirror(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "=", "=x", "x=", "a b", "a=b=c", "x=ftp://y", "x=user@y", "x=y/../z", "x=y/UP", "x=y?z", "http://", "-x", "x=y/a//b"} {
		if m, err := ParseMirror(in); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("parse mirror %q", in)) {
			t.Errorf("%q: %+v, %v", in, m, err)
		}
	}
}

func FuzzParseMirror(f *testing.F) {
	for _, s := range []string{"mirror.example", "docker.io=http://m:5000/a/b", "r=[::1]:5000/x", "x=y/../z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMirror(s)
		if err != nil {
			return
		}
		again, err := ParseMirror(m.Registry + "=" + m.String())
		again.PlainHTTP = m.PlainHTTP
		if err != nil || again != m {
			t.Errorf("%q is %+v, and that again %+v, %v", s, m, again, err)
		}
		o := PullOptions{Mirrors: []Mirror{m}}
		r, err := parseReference(m.Registry+"/app:1", o.plain)
		if err != nil {
			return // a single word is no registry in a reference
		}
		list, err := o.places(r.registry)
		if err != nil || len(list) > 2 {
			t.Errorf("places of %s: %v, %v", r, list, err)
		}
	})
}
