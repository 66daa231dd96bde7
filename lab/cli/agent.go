package cli

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/google/renameio/v2"

	"lab/lab"
)

// agentBinary gives the program that becomes /init in the guest, where there
// is no dynamic linker: this very binary when it is static, and else a static
// build of the same source, kept in the cache. The latter happens to
// developers: "go run" on a machine with a C compiler links dynamically.
func agentBinary(ctx context.Context, l *lab.Lab) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find lab's own binary: %w", err)
	}
	static, err := isStatic(self)
	if err != nil || static {
		return self, err
	}
	sum, err := fileDigest(self)
	if err != nil {
		return "", err
	}
	path := filepath.Join(l.Cache, "agents", sum)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	_, here, _, _ := runtime.Caller(0)
	source := filepath.Dir(filepath.Dir(filepath.Dir(here)))
	if _, err := os.Stat(filepath.Join(source, "go.mod")); err != nil {
		return "", fmt.Errorf("%s is linked dynamically and cannot be the guest's /init: install lab with CGO_ENABLED=0 go install -trimpath", self)
	}
	l.Progress.Show("building a static lab for the guest")
	defer l.Progress.Show("")
	return path, buildStatic(ctx, source, path)
}

func buildStatic(ctx context.Context, source, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return fmt.Errorf("make cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	built := filepath.Join(tmp, "lab")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", built, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build a static lab for the guest in %s: %w\n%s", source, err, out)
	}
	data, err := os.ReadFile(built)
	if err != nil {
		return fmt.Errorf("build a static lab for the guest: %w", err)
	}
	return renameio.WriteFile(path, data, 0o755)
}

// isStatic reports whether an ELF file asks for no interpreter.
func isStatic(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// namesFolders tells of a program that was built without -trimpath.
func namesFolders(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && !slices.Contains(info.Settings, debug.BuildSetting{Key: "-trimpath", Value: "true"})
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
