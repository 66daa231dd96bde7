package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// toolchain is what a build is made with, as far as it can be seen in the
// bytes that come out.
type toolchain struct {
	compiler string   // first line of gcc --version
	identity []string // versions and digests
}

type toolchainOnce struct {
	sync.Mutex
	toolchain
}

// buildTools are the programs without which no kernel builds. What else a
// configuration or an age of the tree asks for, the build's log tells.
var buildTools = []string{"git", "make", "gcc", "ld", "as", "flex", "bison"}

// findToolchain looks at the programs on the PATH, once for each Tree.
func (t *Tree) findToolchain(ctx context.Context) (toolchain, error) {
	t.toolchain.Lock()
	defer t.toolchain.Unlock()
	if t.toolchain.compiler != "" {
		return t.toolchain.toolchain, nil
	}
	for _, tool := range buildTools {
		if _, err := exec.LookPath(tool); err != nil {
			return toolchain{}, &MissingError{Tool: tool, For: "build a kernel"}
		}
	}
	var found toolchain
	for _, tool := range []string{"gcc", "ld", "as"} {
		version, err := t.ask(ctx, tool, "--version")
		if err != nil {
			return toolchain{}, err
		}
		if tool == "gcc" {
			found.compiler = version
		}
		found.identity = append(found.identity, version)
	}
	// gcc only starts the compiler proper, cc1, which may change without it.
	for _, tool := range []string{"gcc", "cc1", "as", "ld"} {
		path := tool
		if tool == "cc1" {
			var err error
			if path, err = t.ask(ctx, "gcc", "-print-prog-name=cc1"); err != nil {
				return toolchain{}, err
			}
		}
		path, err := exec.LookPath(path)
		if err != nil {
			return toolchain{}, &MissingError{Tool: tool, For: "build a kernel"}
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return toolchain{}, fmt.Errorf("find %s: %w", tool, err)
		}
		digest, err := digestFile(path)
		if err != nil {
			return toolchain{}, fmt.Errorf("find %s: %w", tool, err)
		}
		found.identity = append(found.identity, tool+" "+digest)
	}
	t.toolchain.toolchain = found
	return found, nil
}

// ask returns the first line of what a program prints.
func (t *Tree) ask(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	c := child{dir: t.base, env: baseEnv(t.trees), stdout: &out}
	if err := c.run(ctx, name, args...); err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", name, err)
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.New("ask " + name + " for its version: it says nothing")
	}
	return line, nil
}
