package qemu

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// cacheDir/host.json holds what was proven about accelerators, by host and
// QEMU: caches live in home directories, and those on several hosts.
//
//	{
//	  "format": 1,
//	  "hosts": {
//	    "<hostKey>": {"name": "tcg", "reason": "…", "proof": "linux", "tried": "2025-01-02T03:04:05Z"}
//	  }
//	}
type hostFile struct {
	Format int              `json:"format"`
	Hosts  map[string]Accel `json:"hosts"`
}

const (
	hostFormat  = 1
	hostName    = "host.json"
	maxHosts    = 64
	maxHostFile = 1 << 20
)

// hostKey identifies a host as far as accelerators go: the SHA-256 of the
// machine-id(5), the running kernel's release and version, the CPU's model and
// QEMU's version, one a line. The machine-id itself must not leave the host,
// says its man page, so only the hash is ever written.
func hostKey(qemuVersion string) string {
	h := sha256.New()
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil || len(id) == 0 {
		// Containers often have none: then it holds until the next boot.
		id, _ = os.ReadFile("/proc/sys/kernel/random/boot_id")
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	fmt.Fprintf(h, "lab accelerator\n%s\n%s\n%s\n%s\n%s\n", strings.TrimSpace(string(id)),
		unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), cpuModel(), qemuVersion)
	return hex.EncodeToString(h.Sum(nil))
}

// cpuModel returns the identifying lines of the first CPU in /proc/cpuinfo.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	var model []string
	s := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for s.Scan() && s.Text() != "" {
		key, value, _ := strings.Cut(s.Text(), ":")
		switch strings.TrimSpace(key) {
		case "vendor_id", "cpu family", "model", "model name", "stepping":
			model = append(model, strings.TrimSpace(value))
		}
	}
	return strings.Join(model, "|")
}

// recall reads what is remembered about a host.
func recall(dir, key string) (Accel, bool) {
	if dir == "" {
		return Accel{}, false
	}
	h, err := readHosts(filepath.Join(dir, hostName))
	if err != nil {
		return Accel{}, false
	}
	a, ok := h.Hosts[key]
	a.Remembered = true
	return a, ok && (a.Name == "kvm" || a.Name == "tcg")
}

// remember writes what was proven about a host and returns what holds: a
// guest that did not boot is conclusive, but one that booted does not overrule
// a stronger proof to the contrary.
func remember(ctx context.Context, dir, key string, a Accel) (Accel, error) {
	if dir == "" {
		return a, nil
	}
	path := filepath.Join(dir, hostName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return a, fmt.Errorf("write %s: %w", path, err)
	}
	lock := flock.New(path + ".lock")
	defer lock.Close()
	if _, err := lock.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return a, fmt.Errorf("lock %s: %w", path, err)
	}
	h, err := readHosts(path)
	if err != nil {
		h = hostFile{} // absent, damaged or of another format: begin anew
	}
	if old, ok := h.Hosts[key]; ok && a.Name == "kvm" && old.Proof.rank() > a.Proof.rank() {
		old.Remembered = true
		return old, nil
	}
	if h.Hosts == nil {
		h.Hosts = map[string]Accel{}
	}
	h.Format = hostFormat
	a.Remembered = false
	h.Hosts[key] = a
	for len(h.Hosts) > maxHosts {
		oldest := ""
		for k, v := range h.Hosts {
			if k != key && (oldest == "" || v.Tried.Before(h.Hosts[oldest].Tried)) {
				oldest = k
			}
		}
		delete(h.Hosts, oldest)
	}
	data, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return a, fmt.Errorf("write %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return a, fmt.Errorf("write %s: %w", path, err)
	}
	return a, nil
}

func readHosts(path string) (hostFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return hostFile{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHostFile+1))
	if err != nil {
		return hostFile{}, err
	}
	if len(data) > maxHostFile {
		return hostFile{}, errors.New("too large")
	}
	return parseHosts(data)
}

func parseHosts(data []byte) (hostFile, error) {
	var h hostFile
	if err := json.Unmarshal(data, &h); err != nil {
		return hostFile{}, err
	}
	if h.Format != hostFormat {
		return hostFile{}, fmt.Errorf("format %d, not %d", h.Format, hostFormat)
	}
	return h, nil
}
