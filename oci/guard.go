package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	answerTimeout   = time.Minute          // for a registry to begin its answer
	stallTimeout    = 2 * time.Minute      // without a byte of an answer
	maxHeader       = 1 << 20              // bytes of an answer's header
	maxRefusal      = 16 << 10             // bytes that are read of an answer that says no
	maxRedirects    = 8                    // registries need one or two
	patience        = 30 * time.Second     // to wait when a registry says 'later'
	maxPatience     = 3                    // times to wait so for one request
	longestPatience = 366 * 24 * time.Hour // what a larger number is taken for
)

// guard stands between the library and the network. It sees each request, also
// those of logging in and of redirects, and sees to it that
//
//   - nobody is spoken to in plain HTTP who was not named,
//   - redirects end, stay with HTTP, and do not lead from outside into this
//     network,
//   - no answer but a blob's is large, and none goes silent,
//   - 'too many requests' is understood, and waited for when that is short.
type guard struct {
	base    http.RoundTripper
	options *PullOptions
	notice  func(string)
	stall   time.Duration
}

// blobKey marks the context of a request whose answer may be large.
type blobKey struct{}

// refusedError is an answer, or a request, that lab itself does not want.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.admit(req); err != nil {
		return nil, err
	}
	for waited := 0; ; waited++ {
		resp, err := g.once(req)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests {
			return resp, err
		}
		limit := readRateLimit(resp, time.Now())
		resp.Body.Close()
		if waited == maxPatience || !limit.short(req.Context()) || !rewind(req) {
			return nil, limit
		}
		g.notice(fmt.Sprintf("%s asks for patience (429): going on in %s", req.URL.Host, limit.after))
		if err := sleep(req.Context(), limit.after); err != nil {
			return nil, err
		}
	}
}

// rewind makes a request ready to be sent again.
func rewind(req *http.Request) bool {
	if req.Body == nil {
		return true
	}
	if req.GetBody == nil {
		return false
	}
	body, err := req.GetBody()
	req.Body = body
	return err == nil
}

// sleep waits, or for the end of the context.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (g *guard) admit(req *http.Request) error {
	hops, first := origin(req)
	u, from := req.URL, first.URL
	switch {
	case hops > maxRedirects:
		return &refusedError{fmt.Sprintf("%s redirects more than %d times", from.Host, maxRedirects)}
	case u.Scheme != "https" && u.Scheme != "http":
		return &refusedError{fmt.Sprintf("%s redirects to %q: only https and http are followed", from.Host, u.Redacted())}
	case u.Scheme == "http" && !g.options.plain(u.Host):
		return &refusedError{fmt.Sprintf("%s is spoken to in TLS only: if plain HTTP is meant, name it with --plain-http %s", u.Host, u.Host)}
	case hops > 0 && inside(u.Host) && !inside(from.Host) && !g.options.named(u.Host):
		return &refusedError{fmt.Sprintf("%s redirects to %s, an address inside this network, which is not followed", from.Host, u.Host)}
	}
	return nil
}

// origin follows redirects back to the request that led to them all.
func origin(req *http.Request) (hops int, first *http.Request) {
	for req.Response != nil && req.Response.Request != nil {
		hops, req = hops+1, req.Response.Request
	}
	return hops, req
}

// inside says whether a host[:port] is by its very address of this machine or
// network. A name may still lead there.
func inside(host string) bool {
	host, _, _ = strings.Cut(hostname(host), "%")
	if loopback(host) {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	a = a.Unmap()
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsUnspecified()
}

// once does a request and bounds its answer.
func (g *guard) once(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := g.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	silent := fmt.Errorf("%w: %s sent no byte for %s", errStalled, req.URL.Host, g.stall)
	b := &watchedBody{rc: resp.Body, ctx: ctx, cancel: cancel, patience: g.stall}
	b.timer = time.AfterFunc(g.stall, func() { cancel(silent) })
	b.timer.Stop()
	resp.Body = b
	switch {
	case resp.StatusCode >= 400:
		// The library takes a long refusal for an error of its own.
		text, err := io.ReadAll(io.LimitReader(b, maxRefusal))
		b.Close()
		if err != nil && len(text) == 0 {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(text))
		resp.ContentLength = int64(len(text))
	case req.Context().Value(blobKey{}) == nil:
		b.limit = maxManifest
		b.tooLong = &refusedError{fmt.Sprintf("%s answers with more than the %d bytes that a manifest may have", req.URL.Host, maxManifest)}
	}
	return resp, nil
}

var errStalled = errors.New("the connection stalled")

// watchedBody is an answer's body that gives up when nothing comes for too
// long, or too much. Only the time in which somebody waits for it counts.
type watchedBody struct {
	rc       io.ReadCloser
	ctx      context.Context
	cancel   context.CancelCauseFunc
	patience time.Duration
	timer    *time.Timer
	limit    int64 // 0 is none
	tooLong  error
	n        int64
	once     sync.Once
}

func (w *watchedBody) Read(p []byte) (int, error) {
	w.timer.Reset(w.patience)
	n, err := w.rc.Read(p)
	w.timer.Stop()
	w.n += int64(n)
	if w.limit > 0 && w.n > w.limit {
		return 0, w.tooLong
	}
	if err != nil && !errors.Is(err, io.EOF) && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watchedBody) Close() error {
	var err error
	w.once.Do(func() {
		w.timer.Stop()
		err = w.rc.Close()
		w.cancel(nil)
	})
	return err
}

// rateLimitError is an answer 429, with what it says about when to come back.
type rateLimitError struct {
	host   string
	after  time.Duration // Retry-After; 0 when nothing is said
	quota  string        // what RateLimit-Limit and -Remaining say, in words
	reason string        // the registry's own words
}

func (e *rateLimitError) Error() string {
	s := e.host + " answers 429, too many requests"
	if e.quota != "" {
		s += ", " + e.quota
	}
	if e.reason != "" {
		s += ": " + e.reason
	}
	return s
}

// short says whether waiting is sensible, and possible before the deadline.
func (e *rateLimitError) short(ctx context.Context) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < e.after {
		return false
	}
	return e.after > 0 && e.after <= patience
}

func readRateLimit(resp *http.Response, now time.Time) *rateLimitError {
	e := &rateLimitError{after: retryAfter(resp.Header.Get("Retry-After"), now)}
	if resp.Request != nil {
		e.host = resp.Request.URL.Host
	}
	limit, window, ok := quota(resp.Header.Get("RateLimit-Limit"))
	if ok {
		e.quota = fmt.Sprintf("%d allowed", limit)
		if window > 0 {
			e.quota += " in " + short(window)
		}
		if left, _, ok := quota(resp.Header.Get("RateLimit-Remaining")); ok {
			e.quota += fmt.Sprintf(", %d left", left)
		}
	}
	if body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)); err == nil {
		e.reason = refusalText(body)
	}
	return e
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110,
// section 10.2.3). What cannot be read is 0.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64); err == nil {
		if n <= 0 {
			return 0
		}
		return time.Duration(min(n, int64(longestPatience/time.Second))) * time.Second
	}
	t, err := http.ParseTime(s)
	if err != nil || !t.After(now) {
		return 0
	}
	return min(t.Sub(now).Round(time.Second)+time.Second, longestPatience)
}

// quota reads Docker Hub's form of RateLimit-Limit and RateLimit-Remaining: a
// number of pulls, and the window in seconds, as in 100;w=21600.
func quota(s string) (n int, window time.Duration, ok bool) {
	count, rest, _ := strings.Cut(s, ";")
	n, err := strconv.Atoi(strings.TrimSpace(count))
	if err != nil || n < 0 {
		return 0, 0, false
	}
	if w, ok := strings.CutPrefix(strings.TrimSpace(rest), "w="); ok {
		if seconds, err := strconv.ParseInt(w, 10, 64); err == nil && seconds > 0 && seconds <= int64(longestPatience/time.Second) {
			window = time.Duration(seconds) * time.Second
		}
	}
	return n, window, true
}

// short prints 6h0m0s as 6h.
func short(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// brokenConnection knows the errors of a connection that ended too early.
func brokenConnection(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
