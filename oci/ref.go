package oci

import (
	"fmt"
	"net"
	"regexp"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The transports of a reference, in the notation of containers-transports(5).
const (
	transportRegistry      = "docker"         // docker://[HOST/]NAME[:TAG][@DIGEST], and whatever names no transport
	transportLayout        = "oci"            // oci:DIR[:TAG] or oci:DIR@DIGEST
	transportLayoutArchive = "oci-archive"    // oci-archive:FILE[:TAG]
	transportDockerArchive = "docker-archive" // docker-archive:FILE[:NAME:TAG]
	transportRootfs        = "rootfs"         // rootfs:FILE.tar[.gz|.xz|.zst] or rootfs:DIR; lab's own
)

const transportsText = "docker://, oci:, oci-archive:, docker-archive: and rootfs:"

var localTransports = map[string]bool{transportLayout: true, transportLayoutArchive: true, transportDockerArchive: true, transportRootfs: true}

// HasTransport tells whether a text begins with a transport, as the reference of
// an image does in a place where a path could stand too.
func HasTransport(s string) bool {
	word, _, found := strings.Cut(s, ":")
	return found && (word == transportRegistry || localTransports[word])
}

// Transports that other tools know. Without this list docker-daemon:app would
// be read as the tag app of an image called docker-daemon.
var foreignTransports = map[string]bool{
	"atomic": true, "containerd": true, "containers-storage": true, "dir": true, "docker-daemon": true,
	"docker-image": true, "file": true, "http": true, "https": true, "oci-dir": true, "ostree": true,
	"podman": true, "sif": true, "ssh": true, "tarball": true,
}

var schemePattern = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+-]*)://`)

// reference is a parsed reference to an image.
type reference struct {
	transport string
	path      string  // of a local transport: a file or a directory
	tag       string  // of a local transport: which image of several; may be empty
	digest    v1.Hash // when the reference has one
	registry  name.Reference
}

// String is the reference in one canonical spelling, so that debian and
// docker://docker.io/library/debian:latest are one pin.
func (r reference) String() string {
	if r.transport == transportRegistry {
		return "docker://" + familiar(r.registry.Name())
	}
	s := r.transport + ":" + r.path
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != (v1.Hash{}) {
		s += "@" + r.digest.String()
	}
	return s
}

// familiar turns the name of Docker Hub's server into the name people know.
func familiar(s string) string {
	if rest, ok := strings.CutPrefix(s, name.DefaultRegistry); ok {
		return "docker.io" + rest
	}
	return s
}

// parseReference reads a reference in any transport's notation. It looks at
// nothing but the text. Plain says whom plain HTTP may be spoken to.
func parseReference(s string, plain func(host string) bool) (reference, error) {
	if s == "" {
		return reference{}, fmt.Errorf("reference is empty: name an image, as in docker://debian:12 or rootfs:app.tar")
	}
	if strings.ContainsAny(s, "\x00\n\r") {
		return reference{}, fmt.Errorf("parse reference %q: it holds a control character", s)
	}
	if m := schemePattern.FindStringSubmatch(s); m != nil {
		if m[1] != transportRegistry {
			return reference{}, unknownTransport(s, m[1])
		}
		return parseRegistry(s, s[len(m[0]):], plain)
	}
	word, rest, found := strings.Cut(s, ":")
	switch {
	case found && localTransports[word]:
		return parseLocal(word, rest)
	case found && (foreignTransports[word] || word == transportRegistry):
		return reference{}, unknownTransport(s, word)
	}
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, ".") || strings.HasPrefix(s, "~") {
		return reference{}, fmt.Errorf("parse reference %q: a path needs its transport, one of rootfs: oci: oci-archive: docker-archive: before it", s)
	}
	return parseRegistry(s, s, plain)
}

func unknownTransport(s, word string) error {
	return fmt.Errorf("parse reference %q: unknown transport %q; known are %s", s, word, transportsText)
}

func parseLocal(transport, rest string) (reference, error) {
	r := reference{transport: transport, path: rest}
	if transport != transportRootfs {
		if dir, digest, ok := strings.Cut(rest, "@sha256:"); ok && transport != transportDockerArchive {
			h, err := v1.NewHash("sha256:" + digest)
			if err != nil {
				return reference{}, fmt.Errorf("parse reference %q: digest: %w", transport+":"+rest, err)
			}
			r.path, r.digest = dir, h
		} else {
			r.path, r.tag, _ = strings.Cut(rest, ":")
		}
	}
	if r.path == "" {
		return reference{}, fmt.Errorf("parse reference %q: it has no path", transport+":"+rest)
	}
	return r, nil
}

func parseRegistry(whole, s string, plain func(host string) bool) (reference, error) {
	opts := []name.Option{name.WeakValidation}
	ref, err := name.ParseReference(s, opts...)
	if err == nil && plain(ref.Context().RegistryStr()) {
		ref, err = name.ParseReference(s, append(opts, name.Insecure)...)
	}
	if err != nil {
		return reference{}, fmt.Errorf("parse reference %q: %w", whole, err)
	}
	r := reference{transport: transportRegistry, registry: ref}
	if d, ok := ref.(name.Digest); ok {
		if r.digest, err = v1.NewHash(d.DigestStr()); err != nil {
			return reference{}, fmt.Errorf("parse reference %q: digest: %w", whole, err)
		}
	}
	return r, nil
}

// loopback says whether a registry's host[:port] is this machine's own, where
// plain HTTP gives nothing away.
func loopback(registry string) bool {
	host := hostname(registry)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// parsePlatform reads os/arch[/variant]; empty means Linux on this program's
// own architecture.
func parsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return normalPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}), nil
	}
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.ContainsAny(s, " \t\n:,") {
		return v1.Platform{}, fmt.Errorf("parse platform %q: want os/arch[/variant], as in linux/amd64", s)
	}
	for _, p := range parts {
		if p == "" {
			return v1.Platform{}, fmt.Errorf("parse platform %q: want os/arch[/variant], as in linux/amd64", s)
		}
	}
	p := v1.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return normalPlatform(p), nil
}

// normalPlatform gives one spelling to platforms that mean the same: the
// names of uname, and the variants that are their architecture's only one.
func normalPlatform(p v1.Platform) v1.Platform {
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	}
	if (p.Architecture == "arm64" && p.Variant == "v8") || (p.Architecture == "amd64" && p.Variant == "v1") {
		p.Variant = ""
	}
	return v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}
}

// platformRank says how well an image for have serves a wish: 0 not at all,
// more is better. A wish without a variant takes the plain one first.
func platformRank(want, have v1.Platform) int {
	have = normalPlatform(have)
	switch {
	case have.OS != want.OS || have.Architecture != want.Architecture:
		return 0
	case have.Variant == want.Variant:
		return 3
	case want.Variant != "":
		return 0
	case have.Architecture == "arm" && have.Variant == "v7":
		return 2
	case have.Architecture == "amd64":
		return 0 // amd64/v2 and above need instructions that the guest's CPU may lack
	}
	return 1
}
