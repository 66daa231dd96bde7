package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"lab/kernel/kconfig"
)

// A Check is what a kernel, or a configuration of one, can do for lab's guest
// and for containers.
type Check struct {
	File     string            `json:"file"`
	Kind     string            `json:"kind"`              // "configuration", "image" or "package"
	Release  string            `json:"release,omitempty"` // "" where the file does not say it
	Findings []kconfig.Finding `json:"findings"`
}

// Lacking gives what is missing of one level.
func (c Check) Lacking(l kconfig.Level) []kconfig.Finding {
	var missing []kconfig.Finding
	for _, f := range c.Findings {
		if f.Level == l && f.Lacking() {
			missing = append(missing, f)
		}
	}
	return missing
}

// CheckFile checks a .config, a kernel image that carries one, or a kernel
// package, which is unpacked into the cache. Of a .config it is not known which
// modules come along, so that one =m is believed to be there for the guest.
func CheckFile(ctx context.Context, cache, path string) (Check, error) {
	found, err := findConfiguration(ctx, cache, path)
	if err != nil {
		return Check{}, fmt.Errorf("check kernel %s: %w", path, err)
	}
	return Check{
		File: path, Kind: found.kind, Release: found.release,
		Findings: kconfig.Check(found.config, kconfig.ParseVersion(found.release), found.modules),
	}, nil
}

// HostConfig makes a fragment of the configuration of a distribution's kernel,
// from whatever CheckFile takes; a path of "" is the running kernel's,
// /boot/config-$(uname -r) or /proc/config.gz. The fragment is a base: lab's own
// are to lie on top of it, since lab builds no modules and the guest's disk must
// not be one. What ties a configuration to the place it was built in, or makes
// no two builds the same, is left out: keys, salt, debug information.
func HostConfig(ctx context.Context, cache, path string) (kconfig.Fragment, error) {
	name := "host:" + path
	if path == "" {
		name = "host"
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return kconfig.Fragment{}, fmt.Errorf("find the host's kernel: %w", err)
		}
		path = "/boot/config-" + unix.ByteSliceToString(u.Release[:])
		if _, err := os.Stat(path); err != nil {
			if _, e := os.Stat("/proc/config.gz"); e != nil {
				return kconfig.Fragment{}, fmt.Errorf("load config host: there is neither %s nor /proc/config.gz; name a kernel's package: host:FILE.deb", path)
			}
			path = "/proc/config.gz"
		}
	}
	found, err := findConfiguration(ctx, cache, path)
	if err != nil {
		return kconfig.Fragment{}, fmt.Errorf("load config %s: %w", name, err)
	}
	return kconfig.Fragment{Name: name, Data: slices.Concat(found.data, []byte("\n"+untied)), Base: true}, nil
}

// untied is said behind a distribution's configuration.
const untied = `CONFIG_BUILD_SALT=""
CONFIG_SYSTEM_TRUSTED_KEYS=""
CONFIG_SYSTEM_REVOCATION_KEYS=""
CONFIG_MODULE_SIG_KEY=""
CONFIG_DEBUG_INFO_NONE=y
# CONFIG_DEBUG_INFO is not set
# CONFIG_DEBUG_INFO_BTF is not set
# CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT is not set
# CONFIG_DEBUG_INFO_DWARF4 is not set
# CONFIG_DEBUG_INFO_DWARF5 is not set
`

// configuration is one that was found in a file.
type configuration struct {
	kind    string // as in Check
	release string
	data    []byte
	config  kconfig.Config
	modules kconfig.Modules
}

func findConfiguration(ctx context.Context, cache, path string) (configuration, error) {
	f, err := os.Open(path)
	if err != nil {
		return configuration{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return configuration{}, err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return configuration{}, errors.New("not a regular file")
	}
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if !info.IsDir() && err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return configuration{}, err
	}
	whole := io.NewSectionReader(f, 0, maxImage)
	c := configuration{kind: "configuration"}
	switch {
	case info.IsDir() || IsPackage(path):
		c.kind = "package"
		err = c.fromPackage(ctx, cache, path)
	case bytes.HasPrefix(head[:n], []byte("\x1f\x8b")): // as /proc/config.gz is
		var z *gzip.Reader
		if z, err = gzip.NewReader(whole); err == nil {
			c.data, err = io.ReadAll(io.LimitReader(z, maxConfig+1))
		}
	case bytes.ContainsRune(head[:n], 0):
		c.kind, c.modules.Known = "image", true
		if banner, err := readBanner(f); err == nil {
			c.release, _ = splitBanner(banner)
		}
		c.data, err = embeddedConfig(f)
	default:
		c.data, err = io.ReadAll(io.LimitReader(whole, maxConfig+1))
	}
	if err != nil {
		return configuration{}, err
	}
	if c.config, err = kconfig.Parse(bytes.NewReader(c.data)); err != nil {
		return configuration{}, err
	}
	if len(c.config) == 0 {
		return configuration{}, errors.New("it configures nothing")
	}
	if c.release == "" {
		c.release = kconfig.Fragment{Data: c.data}.Release()
	}
	return c, nil
}

func (c *configuration) fromPackage(ctx context.Context, cache, path string) error {
	k, err := FromPackage(ctx, cache, path, Modules{})
	if err != nil {
		return err
	}
	if k.Config == "" {
		return errors.New("there is no configuration in it")
	}
	c.release, c.modules = k.Release, kconfig.Modules{Known: true, Loaded: k.moduleNames()}
	c.data, err = os.ReadFile(k.Config)
	return err
}
