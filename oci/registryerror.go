package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// explainRegistry says in a user's words why a registry gave no image.
func explainRegistry(err error, ref name.Reference) error {
	host := familiar(ref.Context().RegistryStr())
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case ref.Context().Scheme() == "https" && speaksPlainHTTP(err):
		return fmt.Errorf("registry %s speaks plain HTTP, not TLS; ask for plain HTTP if that is meant: %w", host, err)
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &certificate):
		return fmt.Errorf("registry %s shows a certificate that this host does not trust: %w", host, err)
	case errors.As(err, &record):
		return fmt.Errorf("registry %s does not speak TLS: %w", host, err)
	}
	var terr *transport.Error
	if errors.As(err, &terr) {
		switch terr.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("registry %s says no (%d): %s: %w", host, terr.StatusCode, credentialsText(ref), err)
		case http.StatusNotFound:
			return fmt.Errorf("registry %s has no such %s: %w", host, missing(terr, ref), err)
		case http.StatusTooManyRequests:
			return fmt.Errorf("registry %s limits how often one may pull (429): wait, or log in for a higher limit: %w", host, err)
		}
		if terr.StatusCode >= 500 {
			return fmt.Errorf("registry %s is out of order (%d): %w", host, terr.StatusCode, err)
		}
		return err
	}
	if unreachable(err) && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("registry %s does not answer: %w", host, err)
	}
	return err
}

// speaksPlainHTTP knows net/http's error, which has no type of its own.
func speaksPlainHTTP(err error) bool {
	return errors.Is(err, http.ErrSchemeMismatch) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// missing names what a 404 is about.
func missing(err *transport.Error, ref name.Reference) string {
	for _, d := range err.Errors {
		switch d.Code {
		case transport.NameUnknownErrorCode:
			return "repository, " + ref.Context().RepositoryStr()
		case transport.BlobUnknownErrorCode:
			return "blob, though the image names it"
		}
	}
	if _, ok := ref.(name.Digest); ok {
		return "image, " + ref.Identifier()
	}
	return fmt.Sprintf("tag, %s of %s", ref.Identifier(), ref.Context().RepositoryStr())
}

// unreachable says whether an error means that the registry gave no answer,
// so that an image pulled before may stand in: no network, no service, and
// too many requests, but no refusal and no certificate that is wrong.
func unreachable(err error) bool {
	var terr *transport.Error
	if errors.As(err, &terr) {
		return terr.StatusCode >= 500 || terr.StatusCode == http.StatusTooManyRequests || terr.StatusCode == http.StatusRequestTimeout
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) || speaksPlainHTTP(err) {
		return false
	}
	// Not net.Error: a full disk's error is one too, by its method Timeout.
	var request *url.Error
	var socket *net.OpError
	return errors.As(err, &request) || errors.As(err, &socket) || errors.Is(err, context.DeadlineExceeded)
}

// credentialsText says which file was read for credentials and whether it had
// any. The order is authn.DefaultKeychain's.
func credentialsText(ref name.Reference) string {
	file := credentialsFile()
	host := familiar(ref.Context().RegistryStr())
	auth, err := authn.DefaultKeychain.Resolve(ref.Context())
	switch {
	case file == "":
		return fmt.Sprintf("there is no such image or it is private, and no file with credentials was found (docker login %s, or podman login, makes one)", host)
	case err != nil:
		return fmt.Sprintf("reading credentials from %s: %v", file, err)
	case auth == authn.Anonymous:
		return fmt.Sprintf("there is no such image or it is private, and %s has no credentials for %s (docker login %s, or podman login, adds them)", file, host, host)
	}
	return fmt.Sprintf("the credentials for %s in %s were not accepted", host, file)
}

func credentialsFile() string {
	exists := func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir()
	}
	home, _ := os.UserHomeDir()
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = filepath.Join(home, ".docker")
	}
	config := os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(home, ".config")
	}
	candidates := []string{filepath.Join(docker, "config.json"), os.Getenv("REGISTRY_AUTH_FILE")}
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		candidates = append(candidates, filepath.Join(run, "containers/auth.json"))
	}
	for _, c := range append(candidates, filepath.Join(config, "containers/auth.json")) {
		if c != "" && exists(c) {
			return c
		}
	}
	return ""
}
