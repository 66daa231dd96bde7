package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// SuCommand is the test of the story of su: it says OKAY where su works.
var SuCommand = []string{"su", "-c", "echo OKAY"}

// What libpam did with the kernel's answer EPERM to an audit message in 2014, and
// what it does since 1.3.0 (2015): the whole difference. ECONNREFUSED, which is "no
// audit here", libaudit has always shrugged off.
const (
	ruleOf2014 = "if (rc == -EPERM && getuid () != 0)"
	ruleOf2015 = "if (rc == -EPERM)"
)

// suStack is /etc/pam.d/su, and what other services get, with upstream's modules alone: the distributions'
// @include is a patch of theirs to the libpam that is replaced.
const suStack = `auth     sufficient  pam_rootok.so
auth     required    pam_unix.so
account  required    pam_unix.so
session  required    pam_unix.so
`

// SuRoot returns a tar of a root file system of this host's distribution whose
// libpam has the rule of 2014: built from the distribution's source package with
// that one line changed. It is made below dir the first time, and found there
// afterwards; say, which may be nil, is told what is done.
//
// It takes apt-get, mmdebstrap, make, gcc and libaudit's headers, and the
// distribution's archive. Nothing of the host's is changed: sources and package
// lists lie in a folder of their own, which is removed.
func SuRoot(ctx context.Context, dir string, say func(string)) (string, error) {
	path, err := suRoot(ctx, dir, say)
	if err != nil {
		return "", fmt.Errorf("make a root file system with the libpam of 2014: %w", err)
	}
	return path, nil
}

func suRoot(ctx context.Context, dir string, say func(string)) (string, error) {
	if say == nil {
		say = func(string) {}
	}
	suite, err := codename()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(dir, "su.lock"))
	if ok, err := lock.TryLockContext(ctx, 100*time.Millisecond); err != nil || !ok {
		return "", fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer lock.Unlock()

	recipe := sha256.Sum256([]byte(strings.Join([]string{suite, ruleOf2014, ruleOf2015, suStack}, "\x00")))
	path := filepath.Join(dir, "su-"+hex.EncodeToString(recipe[:8])+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	tmp := filepath.Join(dir, "su.tmp") // a killed run's is cleared away; the lock is ours
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	say("building libpam with the rule of 2014")
	triplet, err := run(ctx, tmp, "gcc", "-print-multiarch")
	if err != nil {
		return "", err
	}
	libraries := "/lib/" + strings.TrimSpace(triplet)
	library, err := oldPAM(ctx, tmp, suite, libraries)
	if err != nil {
		return "", err
	}
	say("making a root file system with it")
	stack := filepath.Join(tmp, "su")
	if err := os.WriteFile(stack, []byte(suStack), 0o644); err != nil {
		return "", err
	}
	made := filepath.Join(tmp, "root.tar")
	if _, err := run(ctx, tmp, "mmdebstrap", "--quiet", `--aptopt=Acquire::Check-Valid-Until "false"`, "--variant=essential",
		"--customize-hook=upload "+library+" /usr"+libraries+"/"+filepath.Base(library),
		"--customize-hook=upload "+stack+" /etc/pam.d/su", "--customize-hook=upload "+stack+" /etc/pam.d/other", suite, made); err != nil {
		return "", err
	}
	return path, os.Rename(made, path)
}

// oldPAM builds libpam.so from the distribution's source package, without the
// distribution's patches, for a system that has its modules in libraries/security.
// It returns its path below dir.
func oldPAM(ctx context.Context, dir, suite, libraries string) (string, error) {
	list, err := sourceList(ctx, dir, suite)
	if err != nil {
		return "", err
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "pam"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	apt := []string{
		"apt-get", "--quiet", "-o", "APT::Sandbox::User=", "-o", "Acquire::Check-Valid-Until=false",
		"-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + dir + "/state/lists", "-o", "Dir::Cache=" + dir + "/cache",
	}
	source := filepath.Join(dir, "pam")
	for _, args := range [][]string{{"update"}, {"source", "--download-only", "pam"}} {
		if _, err := run(ctx, source, append(apt, args...)...); err != nil {
			return "", err
		}
	}
	archives, err := filepath.Glob(source + "/pam_*.orig.tar.*")
	if err != nil || len(archives) == 0 {
		return "", errors.Join(err, errors.New("the source package pam has no pam_*.orig.tar"))
	}
	if _, err := run(ctx, source, "tar", "-xf", archives[0], "--strip-components=1"); err != nil {
		return "", err
	}
	audit := filepath.Join(source, "libpam", "pam_audit.c")
	code, err := os.ReadFile(audit)
	if err != nil {
		return "", err
	}
	old := bytes.Replace(code, []byte(ruleOf2015), []byte(ruleOf2014), 1)
	if bytes.Equal(old, code) {
		return "", fmt.Errorf("%s of %s has no %q to change", filepath.Base(audit), filepath.Base(archives[0]), ruleOf2015)
	}
	if err := os.WriteFile(audit, old, 0o644); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(source, "configure")); err != nil {
		return "", fmt.Errorf("%s is not built with configure and make: the story of su knows PAM up to 1.6: %w", filepath.Base(archives[0]), err)
	}
	for _, args := range [][]string{
		{"./configure", "--quiet", "--enable-audit", "--sysconfdir=/etc", "--libdir=" + libraries, "--disable-doc", "--disable-nls", "--disable-selinux", "--disable-econf", "--disable-nis", "--disable-db"},
		{"make", "-C", "libpam", "-j4"},
	} {
		if _, err := run(ctx, source, args...); err != nil {
			return "", err
		}
	}
	return filepath.EvalSymlinks(filepath.Join(source, "libpam/.libs/libpam.so.0"))
}

// sourceList writes the lines of sources.list(5) for the source packages of where
// this host gets its packages, and returns the file.
func sourceList(ctx context.Context, dir, suite string) (string, error) {
	targets, err := run(ctx, dir, "apt-get", "indextargets", "--format", "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for line := range strings.Lines(targets) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "main" && (f[2] == suite || strings.HasPrefix(f[2], suite+"-")) {
			b.WriteString(line)
		}
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("apt-get knows no archive of %s: see /etc/apt/sources.list", suite)
	}
	path := filepath.Join(dir, "sources.list")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// codename is the name of this host's release (os-release(5)).
func codename() (string, error) {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok && name != "" {
			return strings.Trim(name, `"`), nil
		}
	}
	return "", errors.New("/etc/os-release has no VERSION_CODENAME: it takes Debian, or what is made of it")
}

// run runs a program in dir and returns what it wrote to its standard output. The
// error has the end of all that it said.
func run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := command(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &all
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		said := strings.TrimSpace(stdout.String() + all.String())
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, said[max(0, len(said)-1000):])
	}
	return stdout.String(), nil
}
