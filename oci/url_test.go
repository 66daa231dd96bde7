package oci

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fileServer has one file, and answers for it as a test likes.
type fileServer struct {
	url  string
	data []byte

	mu     sync.Mutex
	asked  []string // the Range of each request
	answer func(f *fileServer, w http.ResponseWriter, r *http.Request, n int)
}

func newFileServer(t testing.TB, answer func(f *fileServer, w http.ResponseWriter, r *http.Request, n int)) *fileServer {
	t.Helper()
	f := &fileServer{data: make([]byte, 1<<20), answer: answer}
	_, _ = rand.NewChaCha8([32]byte{}).Read(f.data)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked = append(f.asked, r.Header.Get("Range"))
		n, answer := len(f.asked), f.answer
		f.mu.Unlock()
		answer(f, w, r, n)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL + "/bundle.tar"
	return f
}

func (f *fileServer) let(answer func(f *fileServer, w http.ResponseWriter, r *http.Request, n int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.answer = nil, answer
}

func (f *fileServer) ranges() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// whole answers as a good server does, with ranges and an ETag.
func (f *fileServer) whole(w http.ResponseWriter, r *http.Request, _ int) {
	w.Header().Set("ETag", `"1"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
}

// cut breaks a good answer off after so many bytes of its body.
func cut(w http.ResponseWriter, good func(http.ResponseWriter), n int) {
	rec := httptest.NewRecorder()
	good(rec)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
	if n < rec.Body.Len() {
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

const downloadLimit = 4 << 20

func (f *fileServer) download(ctx context.Context, t testing.TB, s *Store) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bundle.tar")
	err := s.Download(ctx, f.url, path, downloadLimit, PullOptions{wire: wire{pause: time.Millisecond, stall: 5 * time.Second}})
	if _, stat := os.Stat(path); (stat == nil) != (err == nil) {
		t.Errorf("after %v: %v", err, stat)
	}
	return path, err
}

func left(t testing.TB, s *Store) int {
	t.Helper()
	return len(must(os.ReadDir(filepath.Join(s.dir, "tmp"))))
}

// Servers with and without ranges, validators and lengths, on connections that
// break: in the end the bytes are there, and nothing else.
func TestURLDownload(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(f *fileServer, w http.ResponseWriter, r *http.Request, n int)
		asked  int
	}{
		"at once": {(*fileServer).whole, 1},
		"in pieces": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			cut(w, func(w http.ResponseWriter) { f.whole(w, r, n) }, 300<<10)
		}, 4},
		"by its date": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			w.Header().Set("ETag", `W/"weak"`)
			cut(w, func(w http.ResponseWriter) {
				http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(f.data))
			}, 600<<10)
		}, 2},
		"without a length": {func(f *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			w.(http.Flusher).Flush()
			w.Write(f.data)
		}, 1},
		"without ranges": {func(f *fileServer, w http.ResponseWriter, _ *http.Request, n int) {
			cut(w, func(w http.ResponseWriter) { w.Header().Set("ETag", `"1"`); w.Write(f.data) }, n*600<<10)
		}, 2},
		"without validators": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			cut(w, func(w http.ResponseWriter) { http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data)) }, n*600<<10)
		}, 2},
		"another file meanwhile": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				cut(w, func(w http.ResponseWriter) {
					w.Header().Set("ETag", `"0"`)
					w.Write(bytes.Repeat([]byte("x"), len(f.data)))
				}, 300<<10)
			}
			f.whole(w, r, n)
		}, 2},
		"less of it meanwhile": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			switch n {
			case 1:
				cut(w, func(w http.ResponseWriter) { f.whole(w, r, n) }, 300<<10)
			case 2:
				w.Header().Set("Content-Range", "bytes */1000")
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			default:
				f.whole(w, r, n)
			}
		}, 3},
		"out of order at first": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			f.whole(w, r, n)
		}, 2},
		"elsewhere": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				http.Redirect(w, r, "/there", http.StatusFound)
				return
			}
			f.whole(w, r, n)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newFileServer(t, c.answer), newStore(t)
			path, err := f.download(t.Context(), t, s)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(must(os.ReadFile(path)), f.data) {
				t.Error("other bytes arrived")
			}
			if asked := f.ranges(); len(asked) != c.asked || left(t, s) != 0 {
				t.Errorf("asked %q; %d files are left", asked, left(t, s))
			}
		})
	}
}

// A download that was stopped is gone on with by the next call.
func TestURLDownloadGoesOnLater(t *testing.T) {
	f, s := newFileServer(t, nil), newStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	release := make(chan struct{})
	f.let(func(f *fileServer, w http.ResponseWriter, r *http.Request, _ int) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", "1048576")
		w.Write(f.data[:500<<10])
		w.(http.Flusher).Flush()
		<-release
	})
	o := PullOptions{Progress: func(so Progress) {
		if so.Done == 500<<10 {
			if so.Total != 1<<20 {
				t.Errorf("%+v", so)
			}
			cancel(stop)
		}
	}}
	path := filepath.Join(t.TempDir(), "x")
	if err := s.Download(ctx, f.url, path, downloadLimit, o); !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	close(release)
	if left(t, s) != 1 {
		t.Fatalf("%d files are left", left(t, s))
	}
	f.let((*fileServer).whole)
	path, err := f.download(t.Context(), t, s)
	if err != nil {
		t.Fatal(err)
	}
	if asked := f.ranges(); !slices.Equal(asked, []string{"", "bytes=512000-"}) || !bytes.Equal(must(os.ReadFile(path)), f.data) || left(t, s) != 0 {
		t.Errorf("asked %q; %d files are left", asked, left(t, s))
	}
}

func TestHostileURLs(t *testing.T) {
	endless := func(w http.ResponseWriter) {
		for chunk := make([]byte, 64<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
	redirect := func(to string) func(*fileServer, http.ResponseWriter, *http.Request, int) {
		return func(_ *fileServer, w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, to, http.StatusFound)
		}
	}
	for name, c := range map[string]struct {
		answer func(f *fileServer, w http.ResponseWriter, r *http.Request, n int)
		want   string
		keeps  bool // what arrived, for the next call
	}{
		"endless": {func(_ *fileServer, w http.ResponseWriter, _ *http.Request, _ int) { endless(w) }, "at most 4194304 are accepted", false},
		"endless, with a validator": {func(_ *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("ETag", `"1"`)
			endless(w)
		}, "at most 4194304 are accepted", false},
		"long": {func(_ *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Length", "99999999999999")
			w.WriteHeader(http.StatusOK)
		}, "it has 99999999999999 bytes or more, and at most", false},
		"shorter than announced": {func(f *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("ETag", `"1"`)
			cut(w, func(w http.ResponseWriter) { w.Write(f.data) }, 1000)
		}, "the download broke off after 1000 bytes", true},
		"another part": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				cut(w, func(w http.ResponseWriter) { f.whole(w, r, n) }, 1000)
			}
			w.Header().Set("Content-Range", "bytes 5000-6000/1048576")
			w.WriteHeader(http.StatusPartialContent)
		}, "sends another part of the file", true},
		"a part that grows": {func(f *fileServer, w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				cut(w, func(w http.ResponseWriter) { f.whole(w, r, n) }, 1000)
			}
			w.Header().Set("Content-Range", "bytes 1000-99999999/100000000")
			w.WriteHeader(http.StatusPartialContent)
			endless(w)
		}, "at most 4194304 are accepted", false},
		"a part unasked": {func(_ *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Range", "bytes 0-9/10")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "0123456789")
		}, "206", false},
		"to a file":       {redirect("file:///etc/passwd"), "only https and http are followed", false},
		"to gopher":       {redirect("gopher://127.0.0.1/"), "only https and http are followed", false},
		"to plain HTTP":   {redirect("http://registry.invalid/"), "is spoken to in TLS only", false},
		"round and round": {redirect("/again"), "redirects more than 8 times", false},
		"to nowhere":      {redirect(""), "", false},
		"not there":       {func(_ *fileServer, w http.ResponseWriter, r *http.Request, _ int) { http.NotFound(w, r) }, "404", false},
		"a terminal's orders": {func(_ *fileServer, w http.ResponseWriter, _ *http.Request, _ int) {
			http.Error(w, "\x1b[2J\u202eno", http.StatusForbidden)
		}, "403", false},
		"silent header": {func(_ *fileServer, w http.ResponseWriter, r *http.Request, _ int) { panic(http.ErrAbortHandler) }, "EOF", false},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newFileServer(t, c.answer), newStore(t)
			_, err := f.download(t.Context(), t, s)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.ContainsAny(err.Error(), "\x1b\n\u202e") {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if (left(t, s) != 0) != c.keeps {
				t.Errorf("%d files are left", left(t, s))
			}
		})
	}
	for _, address := range []string{"file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "https:///x", "http://[::1", "bundle.tar", "", "http://a\x1b[2Jb/"} {
		err := newStore(t).Download(t.Context(), address, filepath.Join(t.TempDir(), "x"), downloadLimit, PullOptions{})
		if err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
