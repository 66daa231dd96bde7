package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"golang.org/x/sys/unix"
)

// moody is a registry with one image, app:1, of one layer of about a megabyte,
// whose answers for that layer a test may spoil.
type moody struct {
	host  string
	image v1.Image
	layer v1.Descriptor
	bytes []byte // of the layer

	mu     sync.Mutex
	asked  []string // the Range of each request for the layer
	answer func(w http.ResponseWriter, r *http.Request, n int)
}

func newMoody(t testing.TB) *moody {
	t.Helper()
	m := &moody{image: must(random.Image(1<<20, 1))}
	m.layer = must(m.image.Manifest()).Layers[0]
	m.bytes = must(io.ReadAll(must(must(m.image.Layers())[0].Compressed())))
	m.host = faulty(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		m.mu.Lock()
		answer := m.answer
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+m.layer.Digest.String()) {
			answer = nil
		} else {
			m.asked = append(m.asked, r.Header.Get("Range"))
		}
		n := len(m.asked)
		m.mu.Unlock()
		if answer == nil {
			next.ServeHTTP(w, r)
			return
		}
		answer(w, r, n)
	})
	push(t, m.host+"/app:1", m.image)
	m.let(nil)
	return m
}

// let has answer take the registry's place for the layer, and forgets what was
// asked. A request of before may still be on its way.
func (m *moody) let(answer func(w http.ResponseWriter, r *http.Request, n int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked, m.answer = nil, answer
}

// ranges are those of the requests for the layer so far.
func (m *moody) ranges() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.asked)
}

// serve answers as a good registry does.
func (m *moody) serve(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.bytes))
}

// cut lets at most n bytes of a good answer through and breaks the connection.
func (m *moody) cut(w http.ResponseWriter, r *http.Request, n int) {
	rec := httptest.NewRecorder()
	m.serve(rec, r)
	body := rec.Body.Bytes()
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	w.Write(body[:min(n, len(body))])
	if n < len(body) {
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func (m *moody) pull(t testing.TB, s *Store, o PullOptions) error {
	t.Helper()
	img, err := s.Pull(t.Context(), m.host+"/app:1", o)
	if err == nil && img.Pin.Digest != digestOf(t, m.image) {
		t.Errorf("pulled %+v", img.Pin)
	}
	if err == nil {
		if got := must(os.ReadFile(s.blobPath(m.layer.Digest))); !bytes.Equal(got, m.bytes) {
			t.Error("the layer was stored with other bytes")
		}
		if left := must(os.ReadDir(filepath.Join(s.dir, "tmp"))); len(left) > 0 {
			t.Errorf("left %v behind", left)
		}
	}
	onlyPartials(t, s, m.image)
	return err
}

// A connection that breaks again and again, and a registry that can do ranges:
// each byte is fetched once.
func TestDownloadGoesOnWhereItBroke(t *testing.T) {
	m := newMoody(t)

	m.let(func(w http.ResponseWriter, r *http.Request, _ int) {

		m.cut(w, r, 100<<10)
	})
	var so Progress
	o := amd64
	o.Progress = func(now Progress) { so = now }
	if err := m.pull(t, newStore(t), o); err != nil {
		t.Fatal(err)
	}
	if len(m.ranges()) < 10 || m.ranges()[0] != "" || !slices.IsSortedFunc(m.ranges(), func(a, b string) int { return start(a) - start(b) }) {
		t.Errorf("asked for %q", m.ranges())
	}
	if all := m.layer.Size + must(m.image.Manifest()).Config.Size; so.Done != all || so.Total != all {
		t.Errorf("progress ended at %+v, the image has %d bytes", so, all)
	}
}

func start(s string) (n int) {
	fmt.Sscanf(s, "bytes=%d-", &n)
	return n
}

// What an interrupted lab left behind is gone on with by the next.
func TestDownloadGoesOnAfterAnInterruption(t *testing.T) {
	m := newMoody(t)
	ctx, cancel := context.WithCancel(t.Context())
	arrived := make(chan struct{})
	m.let(func(w http.ResponseWriter, r *http.Request, n int) {
		if n > 1 {
			m.serve(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(m.bytes)))
		w.Write(m.bytes[:300<<10])
		w.(http.Flusher).Flush()
		<-arrived
		cancel()
		<-r.Context().Done()
	})
	s := newStore(t)
	o := amd64
	var once sync.Once
	o.Progress = func(so Progress) {
		if so.Done > 300<<10 { // the config and the first part of the layer
			once.Do(func() { close(arrived) })
		}
	}
	if _, err := s.Pull(ctx, m.host+"/app:1", o); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	onlyPartials(t, s, m.image)
	var notices []string
	var first, last Progress
	o = amd64
	o.Notice = func(s string) { notices = append(notices, s) }
	o.Progress = func(so Progress) {
		if first.Total == 0 {
			first = so
		}
		last = so
	}
	again := must(Open(s.dir))
	if err := m.pull(t, again, o); err != nil {
		t.Fatal(err)
	}
	if want := []string{"", fmt.Sprintf("bytes=%d-%d", 300<<10, m.layer.Size-1)}; !slices.Equal(m.ranges(), want) {
		t.Errorf("asked for %q, want %q", m.ranges(), want)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], ": going on at 0.3 of 1.0 MiB") {
		t.Errorf("notices %q", notices)
	}
	if rest := m.layer.Size - 300<<10; first.Total != rest || last.Done != rest || last.Total != rest {
		t.Errorf("progress from %+v to %+v; %d bytes were missing", first, last, rest)
	}
}

// Half of a layer is there; registries answer in all ways to the wish for the
// rest. The layer is whole in the end, always.
func TestDownloadOfTheRest(t *testing.T) {
	m := newMoody(t)
	half := len(m.bytes) / 2
	ranged := func(contentRange string, body []byte) func(http.ResponseWriter, *http.Request, int) {
		return func(w http.ResponseWriter, r *http.Request, n int) {
			if n > 1 {
				m.serve(w, r)
				return
			}
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(http.StatusPartialContent)
			w.Write(body)
		}
	}
	rest, all := m.bytes[half:], len(m.bytes)
	good := fmt.Sprintf("bytes %d-%d/%d", half, all-1, all)
	spoiled := bytes.Clone(m.bytes[:half])
	spoiled[7] ^= 1
	from := fmt.Sprintf("bytes=%d-%d", half, all-1)
	for _, tt := range []struct {
		name   string
		there  []byte
		answer func(http.ResponseWriter, *http.Request, int)
		asked  []string
	}{
		{"as it should", m.bytes[:half], ranged(good, rest), []string{from}},
		{"size unknown", m.bytes[:half], ranged(fmt.Sprintf("bytes %d-%d/*", half, all-1), rest), []string{from}},
		{"the rest in two", m.bytes[:half], ranged(fmt.Sprintf("bytes %d-%d/%d", half, half+99, all), rest[:100]),
			[]string{from, fmt.Sprintf("bytes=%d-%d", half+100, all-1)}},
		{"knows no ranges", m.bytes[:half], func(w http.ResponseWriter, _ *http.Request, _ int) { w.Write(m.bytes) }, []string{from}},
		{"416", m.bytes[:half], func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			m.serve(w, r)
		}, []string{from, ""}},
		{"another range", m.bytes[:half], ranged(fmt.Sprintf("bytes 0-%d/%d", all-1, all), m.bytes), []string{from, ""}},
		{"another size", m.bytes[:half], ranged(fmt.Sprintf("bytes %d-%d/%d", half, all-1, all+1), rest), []string{from, ""}},
		{"no range said", m.bytes[:half], ranged("", rest), []string{from, ""}},
		{"nonsense said", m.bytes[:half], ranged("lines 1-2/3", rest), []string{from, ""}},
		{"other bytes from the registry", m.bytes[:half], ranged(good, bytes.Repeat([]byte("x"), len(rest))), []string{from, ""}},
		{"other bytes here", spoiled, nil, []string{from, ""}},
		{"all is here", m.bytes, nil, nil},
		{"as much is here, but other bytes", bytes.Repeat([]byte("x"), all), nil, []string{""}},
		{"more is here than there should be", bytes.Repeat([]byte("x"), all+1), nil, []string{""}},
		{"nothing is here", nil, nil, []string{""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t)
			ok(t, os.WriteFile(s.partialPath(m.layer.Digest), tt.there, 0o644))
			m.let(tt.answer)
			if tt.answer == nil {
				m.let(func(w http.ResponseWriter, r *http.Request, _ int) { m.serve(w, r) })
			}
			if err := m.pull(t, s, amd64); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.ranges(), tt.asked) {
				t.Errorf("asked for %q, want %q", m.ranges(), tt.asked)
			}
		})
	}
}

// Attempts that bring nothing new come to an end, and what there is stays.
func TestDownloadGivesUp(t *testing.T) {
	m := newMoody(t)
	half := len(m.bytes) / 2
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request, int)
		want   string
		tries  int
	}{
		// No ranges, and always the same end: new bytes are those never seen before.
		"breaks off at the same byte": {func(w http.ResponseWriter, r *http.Request, _ int) {
			r.Header.Del("Range")
			m.cut(w, r, half)
		}, fmt.Sprintf("is truncated: %d of %d bytes arrived", half, len(m.bytes)), blobAttempts + 1},
		"a byte at a time": {func(w http.ResponseWriter, r *http.Request, _ int) { m.cut(w, r, 1) }, "is truncated: ", blobAttempts},
		"other bytes at each attempt": {func(w http.ResponseWriter, r *http.Request, n int) {
			if n%2 == 1 {
				m.cut(w, r, half)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, len(m.bytes)-1, len(m.bytes)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(bytes.Repeat([]byte{byte(n)}, len(m.bytes)-half))
		}, "", 2 * blobAttempts},
	} {
		t.Run(name, func(t *testing.T) {
			m.let(tt.answer)
			err := m.pull(t, newStore(t), amd64)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "layer 1 of 1") || !strings.Contains(err.Error(), m.host) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if len(m.ranges()) > tt.tries {
				t.Errorf("asked %d times, want at most %d", len(m.ranges()), tt.tries)
			}
		})
	}
}

// The pause before the next attempt ends with the context.
func TestDownloadPauseEndsWithTheContext(t *testing.T) {
	m := newMoody(t)
	m.let(func(w http.ResponseWriter, r *http.Request, _ int) { m.cut(w, r, 0) })
	o := amd64
	o.wire.pause = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := newStore(t).Pull(ctx, m.host+"/app:1", o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if len(m.ranges()) != 1 {
		t.Errorf("asked %d times", len(m.ranges()))
	}
}

// Two labs want one layer: one fetches it, the other waits for that.
func TestDownloadOfTwoLabs(t *testing.T) {
	m := newMoody(t)
	waiting, serving := make(chan struct{}), make(chan struct{})
	m.let(func(w http.ResponseWriter, r *http.Request, _ int) {
		close(serving)
		<-waiting
		m.serve(w, r)
	})
	s := newStore(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.pull(t, s, amd64); err != nil {
			t.Error(err)
		}
	})
	<-serving
	o := amd64
	o.Notice = func(text string) {
		if strings.Contains(text, "another lab is fetching it") {
			close(waiting)
		}
	}
	var so Progress
	o.Progress = func(now Progress) { so = now }
	if err := m.pull(t, must(Open(s.dir)), o); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if len(m.ranges()) != 1 {
		t.Errorf("the layer was asked for %d times", len(m.ranges()))
	}
	if so.Done != so.Total || so.Done >= m.layer.Size {
		t.Errorf("progress of the one that waited ended at %+v", so)
	}
}

// What nobody went on with for a day goes away, but not under somebody's hands.
func TestSweepOfPartials(t *testing.T) {
	s := newStore(t)
	write := func(c string, age time.Duration) string {
		path := s.partialPath(v1.Hash{Algorithm: "sha256", Hex: strings.Repeat(c, 64)})
		ok(t, os.WriteFile(path, []byte("part"), 0o644))
		ok(t, os.Chtimes(path, time.Time{}, time.Now().Add(-age)))
		return path
	}
	old, young, held := write("a", 25*time.Hour), write("b", 23*time.Hour), write("c", 25*time.Hour)
	f := must(os.OpenFile(held, os.O_RDWR, 0))
	defer f.Close()
	ok(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	must(Open(s.dir))
	for path, want := range map[string]bool{old: false, young: true, held: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
}

func FuzzContinues(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes 5-9/*", "bytes */10", "", "bytes 5-9/11", "bytes 9223372036854775808-1/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if continues(s, 5, 10) && !strings.HasPrefix(s, "bytes 5-") && !strings.HasPrefix(s, "bytes +5-") && !strings.HasPrefix(s, "bytes 0") && !strings.HasPrefix(s, "bytes +0") {
			t.Errorf("%q is taken for the range from 5 on", s)
		}
	})
}
