package oci

import (
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

var (
	hostPattern = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?$`)
	// <name> of the distribution specification, spec.md, "Pulling manifests".
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Mirror is a registry that has another one's images and is asked first. It
// says what a tag means in the other's place, so it has to be trusted as much;
// what a digest means nobody can change. It is asked with the credentials that
// the user has for the mirror itself, never with those for the registry.
type Mirror struct {
	Registry  string // whose images it has: HOST[:PORT], docker.io for Docker Hub
	Host      string // HOST[:PORT] to ask
	Prefix    string // before each repository's name there; may be empty
	PlainHTTP bool   // the mirror was given as http://
}

// ParseMirror reads [REGISTRY=]MIRROR, where MIRROR is HOST[:PORT][/PREFIX],
// with https:// or http:// before it for whoever likes. Without REGISTRY it is
// a mirror of Docker Hub, as in dockerd's --registry-mirror.
func ParseMirror(s string) (Mirror, error) {
	registry, where, found := strings.Cut(s, "=")
	if !found {
		registry, where = "docker.io", s
	}
	m := Mirror{}
	if rest, ok := strings.CutPrefix(where, "http://"); ok {
		m.PlainHTTP, where = true, rest
	}
	where = strings.TrimSuffix(strings.TrimPrefix(where, "https://"), "/")
	m.Host, m.Prefix, _ = strings.Cut(where, "/")
	var err error
	if m.Registry, err = ParseHost(registry); err != nil {
		return Mirror{}, fmt.Errorf("parse mirror %q: registry: %w", s, err)
	}
	if m.Host, err = ParseHost(m.Host); err != nil {
		return Mirror{}, fmt.Errorf("parse mirror %q: %w", s, err)
	}
	if m.Prefix != "" && !repositoryPattern.MatchString(m.Prefix) {
		return Mirror{}, fmt.Errorf("parse mirror %q: prefix %q is not the beginning of a repository's name", s, m.Prefix)
	}
	return m, nil
}

// String is the mirror's place as an image's reference would name it.
func (m Mirror) String() string {
	if m.Prefix == "" {
		return m.Host
	}
	return m.Host + "/" + m.Prefix
}

// ParseHost reads the HOST[:PORT] of a registry. All names of Docker Hub are
// docker.io.
func ParseHost(s string) (string, error) {
	host := strings.TrimSuffix(s, "/")
	switch host {
	case "":
		return "", fmt.Errorf("registry %q has no name: want HOST[:PORT]", s)
	case name.DefaultRegistry, "registry-1.docker.io":
		host = "docker.io"
	}
	if !hostPattern.MatchString(host) {
		return "", fmt.Errorf("registry %q is not of the form HOST[:PORT]", s)
	}
	return host, nil
}

// place is where an image is looked for: its registry, or a mirror of it.
type place struct {
	ref    name.Reference
	mirror string // as the user knows it; empty for the registry itself
}

func (p place) String() string {
	if p.mirror != "" {
		return "mirror " + p.mirror
	}
	return "registry " + p.host()
}

func (p place) host() string { return familiar(p.ref.Context().RegistryStr()) }

// places lists the mirrors of a reference's registry, and the registry at last.
func (o *PullOptions) places(ref name.Reference) ([]place, error) {
	var list []place
	registry := familiar(ref.Context().RegistryStr())
	for _, m := range o.Mirrors {
		if !strings.EqualFold(m.Registry, registry) {
			continue
		}
		host, err := name.NewRegistry(m.Host, o.nameOptions(m.Host)...)
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m, err)
		}
		repo := host.Repo(m.Prefix, ref.Context().RepositoryStr())
		var there name.Reference = repo.Tag(ref.Identifier())
		if _, ok := ref.(name.Digest); ok {
			there = repo.Digest(ref.Identifier())
		}
		list = append(list, place{there, m.String()})
	}
	return append(list, place{ref: ref}), nil
}

// nameOptions tell the library whom it may speak plain HTTP to. It believes
// that of private addresses too; guard does not.
func (o *PullOptions) nameOptions(host string) []name.Option {
	opts := []name.Option{name.WeakValidation}
	if o.plain(host) {
		opts = append(opts, name.Insecure)
	}
	return opts
}

// plain says whether plain HTTP to a host[:port] is fine: on this machine, or
// where the user asked for it. A name without a port stands for all ports.
func (o *PullOptions) plain(host string) bool {
	return loopback(host) || o.named(host)
}

func (o *PullOptions) named(host string) bool {
	bare := hostname(host)
	for _, p := range o.PlainHTTP {
		if strings.EqualFold(p, host) || strings.EqualFold(p, bare) {
			return true
		}
	}
	for _, m := range o.Mirrors {
		if m.PlainHTTP && strings.EqualFold(m.Host, host) {
			return true
		}
	}
	return false
}

// hostname is a host[:port] without its port and brackets.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.Trim(host, "[]")
}
