package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// Accel is what QEMU should run guests with on this host, and why.
type Accel struct {
	Name       string    `json:"name"`       // "kvm" or "tcg"
	Reason     string    `json:"reason"`     // one sentence without a full stop
	Proof      string    `json:"proof"`      // what was booted to know: ProofNone, ProofTiny or ProofLinux
	Remembered bool      `json:"remembered"` // read from cacheDir, not tried now
	Tried      time.Time `json:"tried"`
}

// The proofs, the weakest first.
const (
	ProofNone  = ""      // nothing was booted: /dev/kvm cannot be opened
	ProofTiny  = "tiny"  // the built-in probe guest
	ProofLinux = "linux" // a Linux kernel that reached its userspace
)

// ProbeOptions say how the accelerator is proven. The zero value works.
type ProbeOptions struct {
	Binary   string        // QEMU; default "qemu-system-x86_64"
	Kernel   string        // a Linux to boot; the built-in probe guest when empty
	Initrd   string        // its initramfs
	Cmdline  string        // its command line; default "console=ttyS0 panic=-1"
	Marker   string        // what its init prints on ttyS0; default "Run /init as init process"
	Deadline time.Duration // for one boot; default 10 s
	Refresh  bool          // try again, whatever is remembered
}

// Accelerator tells which accelerator works on this host.
func Accelerator(ctx context.Context, cacheDir string, o ProbeOptions) (Accel, error) {
	return Accel{}, errors.ErrUnsupported
}

// Remember records what a run found out about this host's accelerator.
func Remember(ctx context.Context, cacheDir, binary string, a Accel) error {
	return errors.ErrUnsupported
}

// Find returns the path of the system emulator for a Go architecture name
// ("amd64", "arm64"; "x86_64" and "aarch64" are understood), or *ErrMissing.
func Find(arch string) (string, error) {
	names := map[string][]string{
		"amd64":  {"qemu-system-x86_64", "/usr/libexec/qemu-kvm"},
		"x86_64": {"qemu-system-x86_64", "/usr/libexec/qemu-kvm"},
	}[arch]
	if names == nil {
		return "", fmt.Errorf("find qemu: guests of architecture %q are not supported", arch)
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &ErrMissing{Binary: names[0]}
}

// Version returns the version of a QEMU binary, as in "7.2.22".
func Version(ctx context.Context, binary string) (string, error) {
	return "", errors.ErrUnsupported
}
