// Package kernel gets candidate kernels: from a file, from a distribution's
// package, or built from a commit of a git tree.
//
// What comes out is always the same: a Kernel, which is a set of paths and
// facts. Kernels from packages and commits are kept in a cache by the digest
// of what they were made from, and checked against their own digests whenever
// they are used again.
package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lab/kernel/kconfig"
)

// Kernel is a kernel that can be booted. Paths are absolute. Everything but
// Image, Digest and Source may be empty: a bare bzImage brings nothing else.
type Kernel struct {
	Image     string   `json:"image"`                // bzImage, or an ELF vmlinux with a PVH entry
	Config    string   `json:"config,omitempty"`     // the resolved .config
	SystemMap string   `json:"system_map,omitempty"` // System.map
	Release   string   `json:"release,omitempty"`    // as uname -r says
	Commit    string   `json:"commit,omitempty"`     // full hash
	Digest    string   `json:"digest"`               // sha256:… of Image
	Source    string   `json:"source"`               // "commit HASH", "package NAME VERSION", "image REFERENCE" or "file"
	Modules   []string `json:"modules,omitempty"`    // .ko files, uncompressed, in the order to load them
	Log       string   `json:"log,omitempty"`        // build log
	Footprint string   `json:"footprint,omitempty"`  // which source files the build read: see [Footprint]
	Compiler  string   `json:"compiler,omitempty"`   // first line of the compiler's version
	Missing   []string `json:"missing,omitempty"`    // what was asked of the configuration and did not survive
	// OnTop are the picks and patches that were asked for, and what became of
	// each of them at the commit.
	OnTop []Addition `json:"on_top,omitempty"`
	// Known are breakages that no build fails of: everything is compiled again
	// each time, or the kernel hangs. The cache has none.
	Known []Breakage `json:"known,omitempty"`

	Toolchain *Toolchain `json:"toolchain,omitempty"` // what it was built with; nil: not by lab

	held *os.File // keeps the cache from freeing it; nil where it did not come from there
}

// Configuration reads the kernel's configuration, nil when it came without one
// and has none inside, and names the modules that come along.
func (k Kernel) Configuration() (c kconfig.Config, modules []string, err error) {
	if k.Config == "" {
		data, err := EmbeddedConfig(k.Image)
		if err != nil {
			return nil, nil, nil // a kernel of which nothing is known, as most are
		}
		if c, err = kconfig.Parse(bytes.NewReader(data)); err != nil {
			return nil, nil, fmt.Errorf("read config in kernel %s: %w", k.Image, err)
		}
		return c, nil, nil
	}
	f, err := os.Open(k.Config)
	if err != nil {
		return nil, nil, fmt.Errorf("read config of kernel: %w", err)
	}
	defer f.Close()
	if c, err = kconfig.Parse(f); err != nil {
		return nil, nil, fmt.Errorf("read config %s: %w", k.Config, err)
	}
	return c, k.moduleNames(), nil
}

// moduleNames names the modules that come along.
func (k Kernel) moduleNames() []string {
	var names []string
	for _, path := range k.Modules {
		names = append(names, moduleName(path))
	}
	return names
}

// StepPatch is the step of a Failure in which a pick or a patch does not apply.
const StepPatch = "patch"

// Failure says why a commit gives no kernel. It is a finding about the commit,
// not an error of ours.
type Failure struct {
	Step string `json:"step"` // "patch", "config" or "compile"
	Line string `json:"line"` // the first line of the log that says what is wrong
	Log  string `json:"log"`  // path of the whole log; none of the step "patch"
	// Hint is the known breakage behind it, if it is one. The cache has none: it
	// is found when the failure is read.
	Hint *Breakage `json:"hint,omitempty"`
}

// MissingError is returned when a program or a header that a build needs is
// not installed on this host, or not in the toolchain's image.
type MissingError struct {
	Tool  string // "flex", "lz4c", "openssl/bio.h"
	For   string // what it is needed for
	Image string // the toolchain's image that does not have it; empty: the host
}

func (e *MissingError) Error() string {
	if e.Image != "" {
		return fmt.Sprintf("%s: the toolchain image %s has no %s", e.For, e.Image, e.Tool)
	}
	return fmt.Sprintf("%s: %s is not installed", e.For, e.Tool)
}

// ErrInterrupted is returned when a build's processes were killed by something
// other than lab, the kernel's out-of-memory killer as a rule. Such a build
// says nothing about the commit.
var ErrInterrupted = errors.New("the build was killed from outside")

// moduleName is the name by which the kernel knows the module in that file.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// digestFile returns sha256:… of a file's bytes.
func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
