package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// CloneOptions change how Clone works; the zero value is right for most.
type CloneOptions struct {
	Progress func(line string) // what git says of its progress; may be nil
	Notice   func(text string) // what the user should know though nothing failed; may be nil
}

// cloneSchemes are what Clone takes. Of those that git knows beside them, some
// run programs that the address names.
var cloneSchemes = []string{"https", "http", "git", "ssh", "file"}

// IsURL tells a repository's address from a directory.
func IsURL(repo string) bool { return strings.Contains(repo, "://") }

// Clone keeps a copy of a remote repository in cache/trees and returns its
// directory, for OpenTree. It has every commit and every directory of the history,
// some hundred bytes for each; the contents of files follow when a commit is
// built (partial clone, gitrepository-layout(5), "promisor"). A clone that is
// there is brought up to date; when its remote does not answer, it is used as
// it is and o.Notice told.
func Clone(ctx context.Context, cache, address string, o CloneOptions) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("clone: the repository's address is not a URL") // url's own error repeats it, password and all
	}
	shown := u.Redacted()
	if !slices.Contains(cloneSchemes, u.Scheme) {
		return "", fmt.Errorf("clone %s: its scheme is not one of %s", shown, strings.Join(cloneSchemes, ", "))
	}
	trees, err := filepath.Abs(filepath.Join(cache, "trees"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(address))
	c := clone{address: address, trees: trees, dir: filepath.Join(trees, "clone-"+hex.EncodeToString(sum[:8])+".git"), options: o}
	if err := c.update(ctx); err != nil {
		return "", fmt.Errorf("clone %s: %w", shown, err)
	}
	return c.dir, nil
}

type clone struct {
	address, trees, dir string
	options             CloneOptions
}

func (c *clone) update(ctx context.Context) error {
	if err := os.MkdirAll(c.trees, 0o755); err != nil {
		return err
	}
	if err := writeIfChanged(filepath.Join(c.trees, ".gitconfig"), gitConfig); err != nil {
		return err
	}
	lock, err := lockFile(ctx, c.dir+".lock", holder(), func(other string) { c.progress("waiting for " + other) })
	if err != nil {
		return err
	}
	defer lock.Close()
	done := filepath.Join(c.dir, "lab-complete") // since when it has been whole
	_, missing := os.Stat(done)
	if missing != nil {
		if err := c.init(ctx); err != nil {
			return err
		}
	}
	err = c.fetch(ctx, lock)
	switch {
	case err != nil && missing == nil && ctx.Err() == nil && errors.As(err, new(*exec.ExitError)):
		if c.options.Notice != nil {
			c.options.Notice(fmt.Sprintf("the repository could not be brought up to date, using it as it was: %v", err))
		}
		return nil
	case err != nil:
		return err
	}
	if missing != nil {
		if err := c.setHead(ctx); err != nil {
			return err
		}
	}
	return renameio.WriteFile(done, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644)
}

// init makes an empty repository that knows its remote. What an interrupted
// fetch left stays: git fetch goes on from the packs that came whole.
func (c *clone) init(ctx context.Context) error {
	if err := c.git(ctx, nil, "init", "--quiet", "--bare", "--template=", c.dir); err != nil {
		return err
	}
	return promise(func(key, value string) error {
		return c.git(ctx, nil, "--git-dir="+c.dir, "config", key, value)
	}, c.address)
}

// promise makes a repository a partial clone of a remote, from which git gets
// what is missing when it is needed.
func promise(set func(key, value string) error, address string) error {
	for _, kv := range [][2]string{
		{"core.repositoryFormatVersion", "1"},
		{"extensions.partialClone", "origin"},
		{"remote.origin.url", address},
		{"remote.origin.promisor", "true"},
		{"remote.origin.partialCloneFilter", "blob:none"},
		{"remote.origin.fetch", "+refs/heads/*:refs/heads/*"},
	} {
		if err := set(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

// setHead has HEAD mean what the remote's means: its main branch.
func (c *clone) setHead(ctx context.Context) error {
	var out bytes.Buffer
	if err := c.output(ctx, &out, nil, "--git-dir="+c.dir, "ls-remote", "--symref", "origin", "HEAD"); err != nil {
		return err
	}
	// "ref: refs/heads/main\tHEAD", or nothing of the kind when it is detached.
	ref, name, ok := strings.Cut(strings.TrimPrefix(out.String(), "ref: "), "\t")
	if !ok || !strings.HasPrefix(ref, "refs/heads/") || !strings.HasPrefix(name, "HEAD\n") {
		return nil
	}
	return c.git(ctx, nil, "--git-dir="+c.dir, "symbolic-ref", "HEAD", ref)
}

func (c *clone) fetch(ctx context.Context, lock *os.File) error {
	return c.git(ctx, lock, "--git-dir="+c.dir, "fetch", "--progress", "--prune", "--tags", "--force", "--filter=blob:none", "origin")
}

// git runs it with what it needs to get out: proxies, certificates and the
// agent for ssh. Nobody is asked for a password.
func (c *clone) git(ctx context.Context, lock *os.File, args ...string) error {
	return c.output(ctx, nil, lock, args...)
}

func (c *clone) output(ctx context.Context, stdout io.Writer, lock *os.File, args ...string) error {
	out := &lineWriter{line: c.progress}
	child := child{dir: c.trees, env: append(gitBaseEnv(c.trees), networkEnv()...), stdout: stdout, stderr: out}
	if lock != nil {
		child.extra = []*os.File{lock}
	}
	err := child.run(ctx, "git", args...)
	said := out.complaint()
	var exit *exec.ExitError
	switch {
	case err != nil && strings.Contains(said, "No space left on device"):
		return fmt.Errorf("git: %w", syscall.ENOSPC)
	case errors.As(err, &exit) && said != "":
		return fmt.Errorf("git %s: %w: %s", gitVerb(args), err, said)
	case err != nil:
		return fmt.Errorf("git %s: %w", gitVerb(args), err)
	}
	return nil
}

// gitVerb is the first argument that is no option.
func gitVerb(args []string) string {
	i := slices.IndexFunc(args, func(a string) bool { return !strings.HasPrefix(a, "-") })
	return args[max(i, 0)]
}

func (c *clone) progress(line string) {
	if c.options.Progress != nil && line != "" {
		c.options.Progress(line)
	}
}

// networkEnv is what of the user's environment git needs for the network; see
// git(1), curl(1) and ssh-agent(1).
func networkEnv() []string {
	var env []string
	for _, name := range []string{
		"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND",
	} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	if os.Getenv("GIT_SSH_COMMAND") == "" {
		env = append(env, "GIT_SSH_COMMAND=ssh -oBatchMode=yes")
	}
	// A connection over which next to nothing comes for a minute is a dead one
	// (git-config(1), http.lowSpeedLimit).
	return append(env, "GIT_HTTP_LOW_SPEED_LIMIT=1000", "GIT_HTTP_LOW_SPEED_TIME=60")
}

// lineWriter passes on each line, those that a carriage return ends too, and
// remembers the last few that are no progress.
type lineWriter struct {
	line    func(string)
	partial []byte
	last    []string
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.partial = append(w.partial, b...)
	for {
		i := bytes.IndexAny(w.partial, "\r\n")
		if i < 0 {
			break
		}
		w.take(w.partial[:i])
		w.partial = w.partial[i+1:]
	}
	if len(w.partial) > 64<<10 { // no line of git's
		w.partial = nil
	}
	return len(b), nil
}

func (w *lineWriter) take(b []byte) {
	line := strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.TrimPrefix(line, "remote: "))
	if line == "" {
		return
	}
	line = line[:min(len(line), 300)]
	w.line(line)
	if !strings.Contains(line, "%") {
		w.last = append(w.last, line)
		w.last = w.last[max(0, len(w.last)-5):]
	}
}

// complaint is what git said at last.
func (w *lineWriter) complaint() string {
	w.take(w.partial)
	w.partial = nil
	return strings.Join(w.last, "; ")
}
