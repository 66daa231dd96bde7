package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// bearer lets in who brings a token, which its token server gives to user:pass
// and, where public, to anybody. Token servers stand under the registry's own
// name here: the library refuses to log in at another private address.
func bearer(host string, public bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			if auth := r.Header.Get("Authorization"); auth == "Basic "+userPass || public && auth == "" {
				fmt.Fprintf(w, `{"token":"t%d"}`, time.Now().UnixNano())
				return true
			}
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`)
			return true
		case strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t"):
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="here"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

// helper puts a credential helper on PATH: a shell script.
func helper(t *testing.T, suffix, script string) {
	t.Helper()
	dir := t.TempDir()
	writeConfig(t, filepath.Join(dir, "docker-credential-"+suffix), "#!/bin/sh\n"+script, 0o755)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

const goodHelper = `test "$1" = get || exit 1
read -r server
test "$server" = registry.example || { echo credentials not found in native keychain; exit 1; }
echo '{"ServerURL":"registry.example","Username":"user","Secret":"pass"}'
`

func TestLogin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		file    string // below the home
		text    string
		env     map[string]string // $HOME is the home
		helper  string            // docker-credential-lab
		public  bool              // the registry asks for nothing
		want    string            // in the error; empty: the image is pulled
		notices string            // is in a notice
	}{
		{name: "docker's file", file: ".docker/config.json", text: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`},
		{name: "docker's file with an address", file: ".docker/config.json", text: `{"auths":{"https://registry.example/v1/":{"auth":"dXNlcjpwYXNz"}}}`},
		{name: "name and password in clear", file: ".docker/config.json", text: `{"auths":{"registry.example":{"username":"user","password":"pass"}}}`},
		{name: "$DOCKER_CONFIG", file: "d/config.json", text: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`, env: map[string]string{"DOCKER_CONFIG": "$HOME/d"}},
		{name: "$DOCKER_AUTH_CONFIG", env: map[string]string{"DOCKER_AUTH_CONFIG": `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`}},
		{name: "$REGISTRY_AUTH_FILE", file: "f.json", text: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`, env: map[string]string{"REGISTRY_AUTH_FILE": "$HOME/f.json"}},
		{name: "podman's at run time", file: "run/containers/auth.json", text: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`, env: map[string]string{"XDG_RUNTIME_DIR": "$HOME/run"}},
		{name: "podman's for good", file: ".config/containers/auth.json", text: `{"auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`},
		{name: "podman's for a repository", file: ".config/containers/auth.json", text: `{"auths":{"registry.example":{"auth":"eDp5"},"registry.example/team/app":{"auth":"dXNlcjpwYXNz"}}}`},
		{name: "podman's for a team", file: ".config/containers/auth.json", text: `{"auths":{"registry.example/team":{"auth":"dXNlcjpwYXNz"},"registry.example/team/other":{"auth":"eDp5"}}}`},
		{name: "helper for all", file: ".docker/config.json", text: `{"credsStore":"lab","auths":{"registry.example":{}}}`, helper: goodHelper},
		{name: "helper for one", file: ".docker/config.json", text: `{"credsStore":"missing","credHelpers":{"registry.example":"lab"}}`, helper: goodHelper},
		{name: "helper has nothing, the file has", file: ".docker/config.json", text: `{"credsStore":"lab","auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`, helper: "echo credentials not found in native keychain; exit 1"},
		{name: "helper missing, the file has", file: ".docker/config.json", text: `{"credsStore":"missing","auths":{"registry.example":{"auth":"dXNlcjpwYXNz"}}}`,
			notices: "docker-credential-missing is not on PATH ($HOME/.docker/config.json names it); registry registry.example is asked with the credentials of $HOME/.docker/config.json"},

		{name: "nothing", want: "no file with credentials was found (docker login registry.example"},
		{name: "for others", file: ".docker/config.json", text: `{"auths":{"other.example":{"auth":"dXNlcjpwYXNz"}}}`, want: "it is private, and $HOME/.docker/config.json has no credentials for registry.example"},
		{name: "wrong", file: ".docker/config.json", text: `{"auths":{"registry.example":{"auth":"eDp5"}}}`, want: "the credentials for registry.example in $HOME/.docker/config.json were not accepted"},
		{name: "wrong ones of a helper", file: ".docker/config.json", text: `{"credsStore":"lab"}`, helper: `echo '{"Username":"x","Secret":"y"}'`,
			want: "the credentials for registry.example in docker-credential-lab ($HOME/.docker/config.json names it) were not accepted"},
		{name: "helper missing", file: ".docker/config.json", text: `{"credsStore":"missing"}`,
			want: "it was asked without credentials, since credential helper docker-credential-missing is not on PATH ($HOME/.docker/config.json names it)"},
		{name: "helper fails", file: ".docker/config.json", text: `{"credHelpers":{"registry.example":"lab"}}`, helper: "echo the keyring is locked; exit 3",
			want: "since credential helper docker-credential-lab fails for registry.example: exit status 3: the keyring is locked"},
		{name: "helper fails on stderr", file: ".docker/config.json", text: `{"credsStore":"lab"}`, helper: `echo '{"Secret":"hidden"}'; printf 'no \033[2Jbus\n' >&2; exit 1`,
			want: "fails for registry.example: exit status 1: no [2Jbus"},
		{name: "helper talks nonsense", file: ".docker/config.json", text: `{"credsStore":"lab"}`, helper: "echo hello", want: "docker-credential-lab gives no JSON for registry.example"},
		{name: "two helpers missing", file: ".docker/config.json", text: `{"credsStore":"missing"}`, env: map[string]string{"DOCKER_AUTH_CONFIG": `{"credsStore":"gone"}`},
			want: "docker-credential-gone is not on PATH ($DOCKER_AUTH_CONFIG names it); credential helper docker-credential-missing is not on PATH"},
		{name: "no JSON", file: ".docker/config.json", text: `nonsense`, want: "it was asked without credentials, since read credentials from $HOME/.docker/config.json"},
		{name: "no base64", file: ".docker/config.json", text: `{"auths":{"registry.example":{"auth":"?"}}}`, want: "read the credentials for registry.example"},

		// What is public needs no credentials, and works with broken ones.
		{name: "public, nothing", public: true},
		{name: "public, helper missing", public: true, file: ".docker/config.json", text: `{"credsStore":"missing"}`, notices: "docker-credential-missing is not on PATH ($HOME/.docker/config.json names it); registry registry.example is asked without credentials"},
		{name: "public, helper fails", public: true, file: ".docker/config.json", text: `{"credsStore":"lab"}`, helper: "exit 1", notices: "credential helper docker-credential-lab fails"},
		{name: "public, no JSON", public: true, file: ".docker/config.json", text: `nonsense`, notices: "read credentials from $HOME/.docker/config.json"},
	} {
		for _, kind := range []string{"basic", "bearer"} {
			t.Run(tt.name+", "+kind, func(t *testing.T) {
				n := newTown(t)
				home := os.Getenv("HOME")
				expand := func(s string) string { return strings.ReplaceAll(s, "$HOME", home) }
				if tt.file != "" {
					writeConfig(t, filepath.Join(home, tt.file), tt.text, 0o600)
				}
				for k, v := range tt.env {
					t.Setenv(k, expand(v))
				}
				if tt.helper != "" {
					helper(t, "lab", tt.helper)
				}
				img := oneFile(t, "one")
				registry := n.settle("registry.example:80")
				registry.give(t, "team/app:1", img)
				switch {
				case kind == "bearer":
					registry.let(bearer("registry.example", tt.public))
				case !tt.public:
					registry.let(basic)
				}
				o := n.options("registry.example")
				var notices string
				o.Notice = func(s string) { notices += s + "\n" }
				_, err := newStore(t).Pull(t.Context(), "registry.example/team/app:1", o)
				if tt.want == "" && err != nil {
					t.Fatal(err)
				}
				if want := expand(tt.want); want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "registry registry.example says no (401)")) {
					t.Errorf("error %v\nwant %s", err, want)
				}
				if !strings.Contains(notices, expand(tt.notices)) || tt.want == "" && tt.notices == "" && notices != "" {
					t.Errorf("notices %q\nwant %s", notices, expand(tt.notices))
				}
				if err != nil && strings.Contains(err.Error()+notices, "hidden") {
					t.Errorf("a secret is told: %v, %s", err, notices)
				}
			})
		}
	}
}

// Docker Hub has more names than one, and docker and podman keep its
// credentials under different ones.
func TestLoginToDockerHub(t *testing.T) {
	home := noLogin(t)
	file := filepath.Join(home, ".docker/config.json")
	helper(t, "lab", `read -r server; echo '{"Username":"'"$server"'","Secret":"s"}'`)
	helper(t, "token", `echo '{"Username":"<token>","Secret":"s"}'`)
	repo := must(name.NewRepository("debian"))
	for text, want := range map[string]authn.AuthConfig{
		`{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYXNz"}}}`: {Username: "user", Password: "pass", Auth: "dXNlcjpwYXNz"},
		`{"auths":{"docker.io":{"auth":"dXNlcjpwYXNz"}}}`:                   {Username: "user", Password: "pass", Auth: "dXNlcjpwYXNz"},
		`{"auths":{"docker.io/library":{"auth":"dXNlcjpwYXNz"}}}`:           {Username: "user", Password: "pass", Auth: "dXNlcjpwYXNz"},
		`{"credsStore":"lab"}`:                                            {Username: "https://index.docker.io/v1/", Password: "s"},
		`{"credHelpers":{"docker.io":"lab"}}`:                             {Username: "docker.io", Password: "s"},
		`{"credHelpers":{"docker.io":"token"}}`:                           {IdentityToken: "s"},
		`{"auths":{"https://index.docker.io/v1/":{"identitytoken":"i"}}}`: {IdentityToken: "i"},
	} {
		writeConfig(t, file, text, 0o600)
		l := findLogin(t.Context(), repo)
		got, err := authn.Authorization(t.Context(), l.auth)
		if err != nil || *got != want || l.trouble != nil {
			t.Errorf("%s: %+v, %v, %v", text, got, err, l.trouble)
		}
	}
}

// A helper that hangs is stopped with the pull.
func TestLoginStopsWithTheContext(t *testing.T) {
	home := noLogin(t)
	writeConfig(t, filepath.Join(home, ".docker/config.json"), `{"credsStore":"lab"}`, 0o600)
	helper(t, "lab", "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if l := findLogin(ctx, must(name.NewRepository("debian"))); l.trouble == nil {
		t.Error("a helper that was killed is no trouble")
	}
}

// FuzzLogin looks for a repository in whatever a file may hold.
func FuzzLogin(f *testing.F) {
	for _, s := range []string{`{"auths":{"docker.io":{"auth":"dXNlcjpwYXNz"}}}`, `{"auths":{"https://index.docker.io/v1/":{}}}`, `{"auths":{"x":1},"credHelpers":{"":""}}`} {
		f.Add(s)
	}
	repo := must(name.NewRepository("debian"))
	f.Fuzz(func(t *testing.T, s string) {
		t.Setenv("PATH", "") // no helper is run
		var file loginFile
		if json.Unmarshal([]byte(s), &file) != nil {
			return
		}
		auth, helper, err := file.find(t.Context(), repo)
		switch {
		case helper != "":
			t.Errorf("%s gave %+v though there is none", helper, auth)
		case auth != nil && *auth == (authn.AuthConfig{}):
			t.Error("found credentials that are none")
		case err != nil && strings.Contains(err.Error(), "dXNlcjpwYXNz"):
			t.Errorf("a secret is told: %v", err)
		}
	})
}
