package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// Download fetches the file that an http:// or https:// URL names to path, on
// the store's file system, and refuses more than limit bytes. Nothing says what the
// file is to be: whoever reads it has to find out.
//
// A download that breaks off is continued where it stopped, within the call and
// by the next one, if the server has ranges and a validator (an ETag or a date,
// RFC 9110, section 8.8) by which it is still the same file. After an error
// nothing is at path. An http:// URL asks for plain HTTP to its host.
func (s *Store) Download(ctx context.Context, address, path string, limit int64, o PullOptions) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("download %s: not a URL with http:// or https://", plainText(address))
	}
	if u.Scheme == "http" {
		o.PlainHTTP = append([]string{u.Host}, o.PlainHTTP...)
	}
	p := &pull{store: s, options: o}
	base, guarded := p.transport(false)
	defer base.CloseIdleConnections()
	d := &urlDownload{pull: p, client: &http.Client{Transport: transport.NewUserAgent(guarded, "lab")}, url: u, limit: limit}
	defer d.close()
	err = d.run(ctx)
	if err == nil {
		err = d.keep(path)
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", u.Redacted(), plainError{err})
	}
	return nil
}

// urlDownload is one call of Download.
type urlDownload struct {
	*pull
	client *http.Client
	url    *url.URL
	limit  int64

	file      *os.File // in the store's tmp/, locked
	size      int64    // of what is in it
	total     int64    // what it is to have; -1 when the server does not say
	validator string   // of what it is a part of; empty when there is none to go by
}

// run asks until all is there, for as long as attempts bring something new.
func (d *urlDownload) run(ctx context.Context) error {
	for furthest, idle := int64(0), 0; ; {
		err := d.attempt(ctx)
		if err == nil || ctx.Err() != nil || !again(err) {
			return err
		}
		if idle++; d.size >= furthest+leastProgress {
			furthest, idle = d.size, 0
		}
		if idle == blobAttempts {
			return err
		}
		if err := sleep(ctx, d.pause()<<idle); err != nil {
			return err
		}
	}
}

// attempt appends what one answer brings.
func (d *urlDownload) attempt(ctx context.Context) error {
	ranged := d.size > 0 && d.validator != ""
	resp, err := d.ask(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		if resp.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", d.size) {
			return nil // it was whole before
		}
		d.discard()
		return fmt.Errorf("%w: %s has less of the file than before", errBroke, d.url.Host)
	case http.StatusPartialContent:
		span := resp.Header.Get("Content-Range")
		_, all, _ := strings.Cut(span, "/")
		if d.total, err = strconv.ParseInt(all, 10, 64); err != nil || !ranged || !continues(span, d.size, d.total) {
			return &refusedError{fmt.Sprintf("%s sends another part of the file than the one asked for", d.url.Host)}
		}
	default:
		if d.file != nil { // the server does not go on, or has another file by now
			d.discard()
		}
		d.total = resp.ContentLength
		if err := d.open(resp.Header); err != nil {
			return err
		}
		if d.size > 0 {
			resp.Body.Close()
			d.notice(fmt.Sprintf("%s: going on at %.1f MiB, which was fetched before", d.url.Redacted(), mib(d.size)))
			return d.attempt(ctx)
		}
	}
	if d.total > d.limit {
		return d.tooLong(d.total)
	}
	d.progress(func(so *Progress) { so.Total = so.Done + max(d.total-d.size, 0) })
	return d.receive(resp.Body)
}

// ask requests the file, or the rest of what there is of it.
func (d *urlDownload) ask(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(context.WithValue(ctx, blobKey{}, true), http.MethodGet, d.url.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	if d.size > 0 && d.validator != "" {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", d.size))
		req.Header.Set("If-Range", d.validator)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, err
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK, d.size > 0 && (code == http.StatusPartialContent || code == http.StatusRequestedRangeNotSatisfiable):
		return resp, nil
	}
	defer resp.Body.Close()
	said := &saidNo{status: transport.Error{StatusCode: resp.StatusCode}, text: fmt.Sprintf("%s answers %d %s", d.url.Host, resp.StatusCode, http.StatusText(resp.StatusCode))}
	if body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)); err == nil && refusalText(body) != "" {
		said.text += ": " + refusalText(body)
	}
	return nil, said
}

// saidNo is an answer that brings no file, in fewer words than the library's.
type saidNo struct {
	status transport.Error
	text   string
}

func (e *saidNo) Error() string { return e.text }
func (e *saidNo) Unwrap() error { return &e.status }

// open makes the file that the answer's bytes go to, or takes hold of the one
// that an earlier call left: it is named for the URL and the validator. What
// somebody else writes just now is let alone.
func (d *urlDownload) open(h http.Header) (err error) {
	d.validator = h.Get("ETag")
	if d.validator == "" || strings.HasPrefix(d.validator, "W/") {
		d.validator = h.Get("Last-Modified")
	}
	d.size = 0
	if d.validator == "" {
		d.file, err = d.store.temp()
		return err
	}
	sum := sha256.Sum256([]byte(d.url.String() + "\n" + d.validator))
	path := filepath.Join(d.store.dir, "tmp", "partial-url-"+hex.EncodeToString(sum[:]))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	if err := lockNamed(file, path); err != nil {
		file.Close()
		if d.validator = ""; !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		d.file, err = d.store.temp()
		return err
	}
	d.file = file
	d.size, err = file.Seek(0, io.SeekEnd)
	return err
}

// receive appends a body, but no more than the limit.
func (d *urlDownload) receive(body io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if d.size+int64(n) > d.limit {
			return d.tooLong(d.size + int64(n))
		}
		if _, err := d.file.Write(buf[:n]); err != nil {
			return err
		}
		d.size += int64(n)
		d.progress(func(so *Progress) {
			so.Done += int64(n)
			so.Total = max(so.Total, so.Done)
		})
		switch {
		case errors.Is(err, io.EOF) && d.size >= d.total:
			return nil
		case err != nil:
			return fmt.Errorf("%w after %d bytes: %w", errBroke, d.size, err)
		}
	}
}

var errBroke = errors.New("the download broke off")

func (d *urlDownload) tooLong(n int64) error {
	d.discard()
	return &refusedError{fmt.Sprintf("it has %d bytes or more, and at most %d are accepted", n, d.limit)}
}

// keep makes the file the one at path.
func (d *urlDownload) keep(path string) error {
	if err := os.Rename(d.file.Name(), path); err != nil {
		return err
	}
	err := d.file.Close()
	d.file, d.size = nil, 0
	return err
}

// discard removes the file.
func (d *urlDownload) discard() {
	os.Remove(d.file.Name())
	d.file.Close()
	d.file, d.size = nil, 0
}

// close lets go of the file, which stays for the next call if that can go on.
func (d *urlDownload) close() {
	if d.file == nil {
		return
	}
	if d.size == 0 || d.validator == "" {
		d.discard()
		return
	}
	d.file.Close()
	d.file, d.size = nil, 0
}
