package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// login is what the user has to identify himself to a registry with.
type login struct {
	auth    authn.Authenticator // anonymous where there is nothing
	from    string              // the file or variable that has it, or names the helper that gave it
	looked  []string            // what was read in vain
	trouble error               // what could not be asked: a helper, a file
}

// loginFile is what docker's config.json and podman's auth.json have in common
// (containers-auth.json(5)).
type loginFile struct {
	Auths       map[string]json.RawMessage `json:"auths"`       // by registry, or repository
	CredHelpers map[string]string          `json:"credHelpers"` // by registry
	CredsStore  string                     `json:"credsStore"`  // the helper for all others
}

// findLogin looks for credentials where docker and podman keep them. Unlike
// theirs, its search goes on to the next file when one has none for the
// registry. What cannot be read or asked is no reason to stop: most images are
// public.
func findLogin(ctx context.Context, repo name.Repository) login {
	l := login{auth: authn.Anonymous}
	for _, source := range loginSources() {
		data, err := source.read()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		l.looked = append(l.looked, source.name)
		var file loginFile
		if err == nil {
			err = json.Unmarshal(data, &file)
		}
		if err != nil {
			l.add(fmt.Errorf("read credentials from %s: %w", source.name, err))
			continue
		}
		auth, helper, err := file.find(ctx, repo)
		if err != nil {
			l.add(fmt.Errorf("%w (%s names it)", err, source.name))
		}
		if auth != nil {
			l.auth, l.from = authn.FromConfig(*auth), source.name
			if helper != "" {
				l.from = fmt.Sprintf("%s (%s names it)", helper, source.name)
			}
			break
		}
	}
	return l
}

// add notes trouble beside what there was already.
func (l *login) add(err error) {
	if l.trouble != nil {
		err = fmt.Errorf("%w; %w", l.trouble, err)
	}
	l.trouble = err
}

type loginSource struct {
	name string
	read func() ([]byte, error)
}

// loginSources lists where credentials may be: what a variable names before
// what is merely there.
func loginSources() []loginSource {
	var list []loginSource
	add := func(path string) {
		list = append(list, loginSource{path, func() ([]byte, error) { return os.ReadFile(path) }})
	}
	home, _ := os.UserHomeDir()
	if text := os.Getenv("DOCKER_AUTH_CONFIG"); text != "" {
		list = append(list, loginSource{"$DOCKER_AUTH_CONFIG", func() ([]byte, error) { return []byte(text), nil }})
	}
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		add(path)
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		add(filepath.Join(dir, "config.json"))
	} else if home != "" {
		add(filepath.Join(home, ".docker/config.json"))
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		add(filepath.Join(dir, "containers/auth.json"))
	}
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		add(filepath.Join(dir, "containers/auth.json"))
	} else if home != "" {
		add(filepath.Join(home, ".config/containers/auth.json"))
	}
	return list
}

// hubServer is the name that docker keeps Docker Hub's credentials under.
const hubServer = "https://index.docker.io/v1/"

// String says in what name a registry is asked.
func (l login) String() string {
	if l.from == "" {
		return "without credentials"
	}
	return "with the credentials of " + l.from
}

// find looks a repository up: the most specific entry first, then the helper
// for its registry, then the entry of the registry. Helper is the program that
// gave what was found; an error is about it.
func (f *loginFile) find(ctx context.Context, repo name.Repository) (auth *authn.AuthConfig, helper string, err error) {
	host := familiar(repo.RegistryStr())
	for key := host + "/" + repo.RepositoryStr(); key != host; key = key[:strings.LastIndexByte(key, '/')] {
		if auth, err := f.entry(key); auth != nil || err != nil {
			return auth, "", err
		}
	}
	program, server := f.CredsStore, host
	if host == "docker.io" {
		server = hubServer
	}
	for key, p := range f.CredHelpers {
		if loginKey(key) == host {
			program, server = p, key
		}
	}
	if program != "" {
		auth, err := askHelper(ctx, program, server)
		if auth != nil {
			return auth, helperPrefix + program, nil
		}
		if err != nil {
			stored, _ := f.entry(host)
			return stored, "", err
		}
	}
	auth, err = f.entry(host)
	return auth, "", err
}

// entry gives what the file itself holds under a key, however it is spelled.
func (f *loginFile) entry(key string) (*authn.AuthConfig, error) {
	for k, raw := range f.Auths {
		if loginKey(k) != key {
			continue
		}
		var auth authn.AuthConfig
		if err := json.Unmarshal(raw, &auth); err != nil {
			return nil, fmt.Errorf("read the credentials for %s: %w", key, err)
		}
		if auth != (authn.AuthConfig{}) { // docker leaves an empty one where a helper has it
			return &auth, nil
		}
	}
	return nil, nil
}

// loginKey gives one spelling to the names that a registry goes by in files
// with credentials, of which some are addresses of an API long gone.
func loginKey(s string) string {
	bare := strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	url := bare != s
	bare = strings.TrimSuffix(bare, "/")
	if url {
		bare = strings.TrimSuffix(strings.TrimSuffix(bare, "/v1"), "/v2")
	}
	host, rest, found := strings.Cut(bare, "/")
	if host == name.DefaultRegistry || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if !found {
		return host
	}
	return host + "/" + rest
}

const helperPrefix = "docker-credential-"

// askHelper runs a credential helper: get, the server's name on stdin, JSON on
// stdout (docker's credential helper protocol). One that has nothing for the
// server gives neither credentials nor an error.
func askHelper(ctx context.Context, program, server string) (*authn.AuthConfig, error) {
	program = helperPrefix + program
	if _, err := exec.LookPath(program); err != nil {
		return nil, fmt.Errorf("credential helper %s is not on PATH", program)
	}
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.Output()
	text := strings.TrimSpace(string(out))
	if err != nil {
		// The protocol puts its errors on stdout.
		if strings.HasPrefix(text, "credentials not found") {
			return nil, nil
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && (text == "" || strings.HasPrefix(text, "{")) {
			text = string(exit.Stderr)
		}
		return nil, fmt.Errorf("credential helper %s fails for %s: %w: %s", program, server, err, plainText(text))
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("credential helper %s gives no JSON for %s: %w", program, server, err)
	}
	switch {
	case answer.Secret == "":
		return nil, nil
	case answer.Username == "<token>":
		return &authn.AuthConfig{IdentityToken: answer.Secret}, nil
	}
	return &authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}
