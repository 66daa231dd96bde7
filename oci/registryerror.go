package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// explainRegistry says in a user's words why a registry gave no image, and
// what can be done about it. What went wrong on this side it leaves as it is.
func explainRegistry(err error, where place, l login) error {
	if ours(err) || errors.Is(err, context.Canceled) {
		return err
	}
	said := plainError{err}
	host := where.host()
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var refused *refusedError
	var limit *rateLimitError
	var status *transport.Error
	switch {
	case speaksPlainHTTP(err) && (where.ref.Context().Scheme() == "https" || errors.As(err, &refused)):
		return fmt.Errorf("%s speaks plain HTTP, not TLS; if that is meant, name it with --plain-http %s: %w", where, host, said)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%s shows a certificate that is not valid at this time; is this host's clock right? %w", where, said)
	case errors.As(err, &hostname):
		return fmt.Errorf("%s shows a certificate that this host does not trust, for it is another host's: %w", where, said)
	case errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, &certificate):
		return fmt.Errorf("%s shows a certificate that this host does not trust; name its authority's certificate in SSL_CERT_FILE, or a folder of such in SSL_CERT_DIR: %w", where, said)
	case errors.As(err, &record):
		return fmt.Errorf("%s does not speak TLS: %w", where, said)
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %w", where, said)
	case errors.As(err, &limit):
		return fmt.Errorf("%s limits how often one may pull; %s: %w", where, waysOut(limit, where, l), said)
	case errors.As(err, &status):
		return explainStatus(status, where, l, said)
	case unreachable(err):
		return fmt.Errorf("%s does not answer: %w", where, said)
	}
	return fmt.Errorf("%s: %w", where, said)
}

// explainStatus is explainRegistry for an answer that says no.
func explainStatus(status *transport.Error, where place, l login, said error) error {
	switch code := status.StatusCode; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fmt.Errorf("%s says no (%d): %s: %w", where, code, loginText(where, l), said)
	case code == http.StatusNotFound:
		return fmt.Errorf("%s has no such %s: %w", where, missing(status, where.ref), said)
	case code >= 500:
		return fmt.Errorf("%s is out of order (%d); try again later, or pull from a mirror with --registry-mirror: %w", where, code, said)
	default:
		return fmt.Errorf("%s answers %d, which lab has no use for: %w", where, code, said)
	}
}

// waysOut says when to come back, and what helps before that.
func waysOut(limit *rateLimitError, where place, l login) string {
	var s string
	if limit.after > 0 {
		s = fmt.Sprintf("come back in %s (%s), or ", short(limit.after), time.Now().Add(limit.after).Format("Jan 2 15:04"))
	}
	if l.from == "" {
		s += fmt.Sprintf("log in for a higher limit (docker login %s), ", where.host())
	}
	return s + "pull from a mirror (--registry-mirror), or use a file (oci-archive:FILE)"
}

// speaksPlainHTTP knows net/http's error, which has no type of its own.
func speaksPlainHTTP(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// missing names what a 404 is about, by what was asked for at first: another
// host that a blob is fetched from has words of its own.
func missing(err *transport.Error, ref name.Reference) string {
	path := ""
	if err.Request != nil {
		_, first := origin(err.Request)
		path = first.URL.Path
	}
	repo := ref.Context().RepositoryStr()
	_, byDigest := ref.(name.Digest)
	switch {
	case strings.Contains(path, "/blobs/"):
		return "blob, though the image names it; push the image again"
	case strings.Contains(path, "/manifests/") && !strings.HasSuffix(path, "/"+ref.Identifier()):
		return "manifest, though the image's index names it; push the image again"
	case slices.ContainsFunc(err.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.NameUnknownErrorCode }):
		return "repository, " + repo + "; check the spelling"
	case byDigest:
		return fmt.Sprintf("image, %s of %s; it may have been deleted", ref.Identifier(), repo)
	}
	return fmt.Sprintf("tag, %s of %s; check the spelling", ref.Identifier(), repo)
}

// unreachable says whether an error means that the registry gave no answer,
// so that an image pulled before may stand in: no network, no service, and
// too many requests, but no refusal and no certificate that is wrong.
func unreachable(err error) bool {
	var status *transport.Error
	if errors.As(err, &status) {
		return status.StatusCode >= 500 || status.StatusCode == http.StatusTooManyRequests || status.StatusCode == http.StatusRequestTimeout
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, new(*refusedError)) || errors.As(err, &certificate) || speaksPlainHTTP(err) {
		return false
	}
	// Not net.Error: a full disk's error is one too, by its method Timeout.
	var request *url.Error
	var socket *net.OpError
	return errors.As(err, new(*rateLimitError)) || errors.Is(err, errStalled) ||
		errors.As(err, &request) || errors.As(err, &socket) || errors.Is(err, context.DeadlineExceeded)
}

// passing says whether to send a request again at once: the connection broke,
// or the answer says that the trouble will pass. It is asked by the library,
// whose own errors of that kind say so themselves.
func passing(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errStalled) {
		return false
	}
	var says interface{ Temporary() bool }
	return errors.As(err, &says) && says.Temporary() || brokenConnection(err)
}

// ours says whether an error is of this machine, and would be the same with
// any registry: the store's files, or the user's limits.
func ours(err error) bool {
	return errors.As(err, new(*fs.PathError)) || errors.As(err, new(*os.LinkError)) || errors.As(err, new(*LimitError))
}

// loginText says what was tried to be let in with.
func loginText(where place, l login) string {
	host := where.host()
	switch {
	case l.from != "":
		return fmt.Sprintf("the credentials for %s in %s were not accepted", host, l.from)
	case l.trouble != nil:
		return fmt.Sprintf("it was asked without credentials, since %v", l.trouble)
	case len(l.looked) == 0:
		return fmt.Sprintf("there is no such image or it is private, and no file with credentials was found (docker login %s, or podman login, makes one)", host)
	}
	return fmt.Sprintf("there is no such image or it is private, and %s has no credentials for %s (docker login %s, or podman login, adds them)",
		strings.Join(l.looked, " or "), host, host)
}

// plainError is an error whose text is fit to be printed: others wrote parts
// of it.
type plainError struct{ err error }

func (e plainError) Error() string { return plainText(e.err.Error()) }
func (e plainError) Unwrap() error { return e.err }

// plainText makes one line of others' words, without what a terminal would
// obey, and not too long.
func plainText(s string) string {
	const most = 600
	if len(s) > 2*most {
		s = s[:2*most]
	}
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s)), " ")
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return s
}

// refusalText finds a registry's own words in an answer that says no: the
// messages of the distribution specification's errors, or a line of text.
func refusalText(body []byte) string {
	var answer struct {
		Errors []struct{ Message string }
	}
	if json.Unmarshal(body, &answer) == nil {
		var words []string
		for _, e := range answer.Errors {
			if e.Message != "" {
				words = append(words, e.Message)
			}
		}
		return plainText(strings.Join(words, "; "))
	}
	if strings.HasPrefix(strings.TrimSpace(string(body)), "<") {
		return "" // a page for browsers
	}
	return plainText(string(body))
}
