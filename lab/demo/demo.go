// Package demo makes everything that "lab demo" bisects: a git history with a
// real regression on top of the distribution's kernel source, and the container
// whose program shows it.
//
// The regression is an old one on a new kernel. In Linux 3.14 the kernel's
// audit socket listened in the initial network namespace only: a program in a
// container that sent it a message was told ECONNREFUSED, which PAM takes for
// "no audit here". Since the socket exists in every network namespace the same
// message reaches it, and a container without CAP_AUDIT_WRITE is answered
// EPERM: su and login in it say "System error". [History] puts the old
// behaviour back as the base of its history, and one commit in the middle
// undoes that. [AuditProbe] is the container's program, [Image] the container,
// [Serve] a registry to pull it from.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
)

// A Repo is the bare git repository that History makes.
type Repo struct {
	Dir     string `json:"-"`       // absolute path
	Good    string `json:"good"`    // full hash, also refs/tags/good: the program is content here
	Bad     string `json:"bad"`     // full hash, also refs/tags/bad and refs/heads/main
	Culprit string `json:"culprit"` // full hash of the commit that changes the answer; for tests to compare with
	Commits int    `json:"commits"` // commits reachable from Bad and not from Good
}

// sourceDir is where Debian and Ubuntu put their linux-source packages.
const sourceDir = "/usr/src"

// Source finds the distribution's kernel source archive, the newest one if
// there are several: /usr/src/linux-source-VERSION.tar.xz (or .zst, .bz2, .gz).
// Without any, the error names the package to install.
func Source() (string, error) {
	return newestSource(sourceDir)
}

func newestSource(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find kernel source archive: %w", err)
	}
	archive := regexp.MustCompile(`^linux-source-([0-9][0-9.]*)\.tar\.(xz|zst|bz2|gz)$`)
	var best string
	var bestVersion []int
	for _, e := range entries {
		m := archive.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if v := version(m[1]); best == "" || newer(v, bestVersion) {
			best, bestVersion = path, v
		}
	}
	if best == "" {
		return "", fmt.Errorf("find kernel source archive: no linux-source-*.tar.xz in %s: install the package linux-source", dir)
	}
	return best, nil
}

// version splits "6.1" or "6.8.0" into its numbers.
func version(s string) []int {
	var v []int
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(s, -1) {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return v
		}
		v = append(v, n)
	}
	return v
}

func newer(a, b []int) bool {
	for i := range a {
		if i >= len(b) {
			return true
		}
		if a[i] != b[i] {
			return a[i] > b[i]
		}
	}
	return false
}

// stampFile, inside the repository, says what History made. It is written last.
const stampFile = "lab-demo.json"

// History returns the demonstration's git repository below dir, made from a
// kernel source archive the first time and found again afterwards. It is keyed
// by the archive's digest and by the history itself. The same archive gives
// the same commit hashes on every machine.
//
// The files go from the archive straight into one pack: there is no work tree.
// progress, which may be nil, is told how many of the archive's total bytes
// are done. Several processes may call History on one dir; one of them works,
// the others wait. A killed one leaves only a directory that the next removes.
//
// It needs git. An archive whose files lack the text that a commit of the
// history edits is an error that names the file.
func History(ctx context.Context, dir, archive string, progress func(done, total int64, what string)) (Repo, error) {
	if progress == nil {
		progress = func(int64, int64, string) {}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	key, err := historyKey(ctx, archive)
	if err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}

	lock := flock.New(filepath.Join(dir, "history.lock"))
	if ok, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil || !ok {
		return Repo{}, fmt.Errorf("lock history %s: %w", lock.Path(), err)
	}
	defer lock.Unlock()

	path := filepath.Join(dir, "history-"+key+".git")
	if repo, err := openHistory(ctx, path); err == nil {
		return repo, nil
	} else if ctx.Err() != nil {
		return Repo{}, ctx.Err()
	}
	// What is there is a damaged repository, or the remains of a killed run.
	stale, err := filepath.Glob(filepath.Join(dir, "history-*.tmp"))
	if err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	for _, p := range append(stale, path) {
		if err := os.RemoveAll(p); err != nil {
			return Repo{}, fmt.Errorf("clean up history: %w", err)
		}
	}

	tmp, err := os.MkdirTemp(dir, "history-*.tmp")
	if err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	repo, err := makeHistory(ctx, tmp, archive, progress)
	if err != nil {
		return Repo{}, fmt.Errorf("make history from %s: %w", archive, err)
	}
	stamp, err := json.Marshal(repo)
	if err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(tmp, stampFile), stamp, 0o644); err != nil {
		return Repo{}, fmt.Errorf("make history: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return Repo{}, fmt.Errorf("publish history: %w", err)
	}
	repo.Dir = path
	return repo, nil
}

// historyKey names a history: the archive's bytes and the commits put on them.
func historyKey(ctx context.Context, archive string) (string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, f}); err != nil {
		return "", fmt.Errorf("read %s: %w", archive, err)
	}
	commits, err := json.Marshal(series)
	if err != nil {
		return "", err
	}
	h.Write(commits)
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// openHistory returns the repository at path if it is whole as far as can be
// told without reading it all: the stamp, the refs, and that the objects the
// refs name are in a pack whose index matches.
func openHistory(ctx context.Context, path string) (Repo, error) {
	data, err := os.ReadFile(filepath.Join(path, stampFile))
	if err != nil {
		return Repo{}, err
	}
	repo := Repo{Dir: path}
	if err := json.Unmarshal(data, &repo); err != nil {
		return Repo{}, fmt.Errorf("read %s: %w", stampFile, err)
	}
	out, err := git(ctx, path, "rev-parse", "--verify", "--quiet", "--end-of-options", "refs/tags/good^{commit}").Output()
	if err != nil || string(out) != repo.Good+"\n" {
		return Repo{}, fmt.Errorf("open history %s: refs/tags/good is not %s", path, repo.Good)
	}
	out, err = git(ctx, path, "rev-parse", "--verify", "--quiet", "--end-of-options", "refs/heads/main^{commit}").Output()
	if err != nil || string(out) != repo.Bad+"\n" {
		return Repo{}, fmt.Errorf("open history %s: refs/heads/main is not %s", path, repo.Bad)
	}
	if err := git(ctx, path, "cat-file", "-e", repo.Bad+":Makefile").Run(); err != nil {
		return Repo{}, fmt.Errorf("open history %s: its files are missing: %w", path, err)
	}
	return repo, nil
}

// contextReader ends a long read when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
