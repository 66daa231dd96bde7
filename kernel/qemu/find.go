package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
)

// ErrMissing is returned when there is no QEMU to run.
type ErrMissing struct {
	Binary string // the program that was looked for
}

func (e *ErrMissing) Error() string { return e.Binary + " is not installed" }

// Find returns the path of the system emulator for guests of an architecture
// ("amd64" or "x86_64"), or an *ErrMissing.
func Find(arch string) (string, error) {
	if arch != "amd64" && arch != "x86_64" {
		return "", fmt.Errorf("find qemu: guests of architecture %q are not supported", arch)
	}
	// Red Hat ships its only emulator under another name, outside $PATH.
	for _, name := range []string{defaultBinary, "/usr/libexec/qemu-kvm"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &ErrMissing{Binary: defaultBinary}
}

// lookPath finds m.Binary or the default.
func lookPath(binary string) (string, error) {
	if binary == "" {
		return Find("amd64")
	}
	path, err := exec.LookPath(binary)
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return "", &ErrMissing{Binary: binary}
	case err != nil:
		return "", fmt.Errorf("find qemu: %w", err)
	}
	return path, nil
}

// Version returns the version of a QEMU binary ("" means the one that Find
// finds), as in "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)".
func Version(ctx context.Context, binary string) (string, error) {
	path, err := lookPath(binary)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = environ("")
	cmd.WaitDelay = killGrace
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s --version: %w", path, err)
	}
	v, err := parseVersion(out)
	if err != nil {
		return "", fmt.Errorf("read version of %s: %w", path, err)
	}
	return v, nil
}

// parseVersion reads the first line of QEMU's --version.
func parseVersion(out []byte) (string, error) {
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if len(line) > 256 {
		line = line[:256]
	}
	v, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "QEMU emulator version ")
	if !ok || v == "" || v[0] < '0' || v[0] > '9' || strings.IndexFunc(v, control) >= 0 {
		return "", fmt.Errorf("%q is not a QEMU version", line)
	}
	return v, nil
}
