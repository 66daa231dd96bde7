package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"debian":                               "docker://docker.io/library/debian:latest",
		"debian:12":                            "docker://docker.io/library/debian:12",
		"docker://debian:12":                   "docker://docker.io/library/debian:12",
		"docker.io/library/debian:12":          "docker://docker.io/library/debian:12",
		"index.docker.io/user/app":             "docker://docker.io/user/app:latest",
		"quay.io/a/b:1":                        "docker://quay.io/a/b:1",
		"127.0.0.1:5000/app:1":                 "docker://127.0.0.1:5000/app:1",
		"localhost:5000/app":                   "docker://localhost:5000/app:latest",
		"app:1@" + digest:                      "docker://docker.io/library/app@" + digest,
		"docker://r.example/app@" + digest:     "docker://r.example/app@" + digest,
		"oci:./layout":                         "oci:./layout",
		"oci:./layout:app":                     "oci:./layout:app",
		"oci:/l:docker://127.0.0.1:5000/app:1": "oci:/l:docker://127.0.0.1:5000/app:1",
		"oci:/l@" + digest:                     "oci:/l@" + digest,
		"oci-archive:a.tar:1":                  "oci-archive:a.tar:1",
		"docker-archive:a.tar:app:1":           "docker-archive:a.tar:app:1",
		"rootfs:a:b.tar":                       "rootfs:a:b.tar",
		"rootfs:/":                             "rootfs:/",
	} {
		r, err := parseReference(in, loopback)
		if err != nil || r.String() != want {
			t.Errorf("%s: %s, %v; want %s", in, r, err, want)
		}
		again, err := parseReference(r.String(), loopback)
		if err != nil || again.String() != want || again.digest != r.digest {
			t.Errorf("%s read again: %+v, %v", r, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                        "is empty",
		"http://example.com/a":    `unknown transport "http"`,
		"containers-storage:a":    `unknown transport "containers-storage"; known are docker://`,
		"docker-daemon:a:1":       `unknown transport "docker-daemon"`,
		"docker:a":                `unknown transport "docker"`,
		"DOCKER://a":              `unknown transport "DOCKER"`,
		"dir:/x":                  `unknown transport "dir"`,
		"./app.tar":               "a path needs its transport",
		"/srv/app":                "a path needs its transport",
		"oci:":                    "no path",
		"rootfs:":                 "no path",
		"oci:d@sha256:123":        "digest",
		"app@sha256:123":          "parse reference",
		"UPPER":                   "parse reference",
		"a b":                     "parse reference",
		"docker://":               "parse reference",
		"app\n":                   "control character",
		"docker-archive::app:tag": "no path",
	} {
		if _, err := parseReference(in, loopback); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", in, err, want)
		}
	}
}

func TestPlainHTTPOnlyWhereItIsSafe(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:5000/a": "http", "127.3.2.1/a": "http", "localhost/a": "http", "localhost:1/a": "http", "[::1]:5000/a": "http", "r.localhost:80/a": "http",
		"example.com/a": "https", "debian": "https", "127.0.0.1.example.com/a": "https", "localhost.example.com/a": "https",
	} {
		r, err := parseReference(in, loopback)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := r.registry.Context().Scheme(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	r, err := parseReference("example.com/a", (&PullOptions{PlainHTTP: []string{"example.com"}}).plain)
	if err != nil || r.registry.Context().Scheme() != "http" {
		t.Errorf("plain HTTP asked for: %v", err)
	}
	r, _ = parseReference("example.com/a", loopback)
	full := &fs.PathError{Op: "write", Path: "/cache/blob", Err: syscall.ENOSPC}
	if err := explainRegistry(full, place{ref: r.registry}, login{}); !errors.Is(err, full) || unreachable(err) || strings.Contains(err.Error(), "answer") {
		t.Errorf("a full disk: %v", err)
	}
	err = explainRegistry(fmt.Errorf("Get: %w", http.ErrSchemeMismatch), place{ref: r.registry}, login{})
	if !strings.Contains(err.Error(), "registry example.com speaks plain HTTP, not TLS; if that is meant, name it with --plain-http example.com:") || unreachable(err) {
		t.Errorf("error %v", err)
	}
}

func TestPlatformRank(t *testing.T) {
	for _, tt := range []struct {
		want, have string
		ok         bool
	}{
		{"linux/amd64", "linux/amd64", true}, {"linux/amd64", "linux/amd64/v1", true}, {"linux/amd64", "linux/amd64/v3", false},
		{"linux/amd64/v3", "linux/amd64/v3", true}, {"linux/amd64", "windows/amd64", false}, {"linux/arm64", "linux/arm64/v8", true},
		{"linux/arm64/v8", "linux/arm64", true}, {"linux/arm/v7", "linux/arm/v6", false}, {"linux/arm", "linux/arm/v5", true},
	} {
		want, err := parsePlatform(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		have, err := v1.ParsePlatform(tt.have)
		if err != nil {
			t.Fatal(err)
		}
		if got := platformRank(want, *have) > 0; got != tt.ok {
			t.Errorf("%s for %s: %v", tt.have, tt.want, got)
		}
	}
}

// Whatever is accepted has a canonical form that means the same.
func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"debian", "docker://a/b:c", "oci:dir:tag", "rootfs:x", "127.0.0.1:5000/a@sha256:" + strings.Repeat("0", 64), "docker-archive:a:b:c", "::", "oci:@sha256:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReference(s, loopback)
		if err != nil {
			if errors.Unwrap(err) == nil && err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		again, err := parseReference(r.String(), loopback)
		if err != nil {
			t.Fatalf("%q became %q, which is no reference: %v", s, r, err)
		}
		if again.String() != r.String() {
			t.Fatalf("%q became %q and then %q", s, r, again)
		}
	})
}
