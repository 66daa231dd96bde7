package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	f, err := os.Open(path)
	if err != nil {
		return Check{}, fmt.Errorf("check kernel: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return Check{}, fmt.Errorf("check kernel: %w", err)
	} else if !info.Mode().IsRegular() {
		return Check{}, fmt.Errorf("check kernel %s: not a regular file", path)
	}
	head := make([]byte, 8)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Check{}, fmt.Errorf("check kernel: %w", err)
	}
	c := Check{File: path, Kind: "configuration"}
	var data []byte
	var modules kconfig.Modules
	switch {
	case IsPackage(path):
		c.Kind = "package"
		k, err := FromPackage(ctx, cache, path, Modules{})
		if err != nil {
			return Check{}, err
		}
		if k.Config == "" {
			return Check{}, fmt.Errorf("check package %s: there is no configuration in it", path)
		}
		if data, err = os.ReadFile(k.Config); err != nil {
			return Check{}, fmt.Errorf("check package: %w", err)
		}
		c.Release = k.Release
		modules = kconfig.Modules{Known: true, Loaded: k.moduleNames()}
	case bytes.HasPrefix(head[:n], []byte("\x1f\x8b")): // as /proc/config.gz is
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return Check{}, fmt.Errorf("check kernel: %w", err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			return Check{}, fmt.Errorf("check kernel %s: %w", path, err)
		}
		if data, err = io.ReadAll(io.LimitReader(z, maxConfig)); err != nil {
			return Check{}, fmt.Errorf("check kernel %s: %w", path, err)
		}
	case bytes.ContainsRune(head[:n], 0):
		c.Kind = "image"
		if data, err = EmbeddedConfig(path); err != nil {
			return Check{}, err
		}
		if banner, err := readBanner(f); err == nil {
			c.Release, _ = splitBanner(banner)
		}
		modules.Known = true
	default:
		if data, err = io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(head[:n]), f), maxConfig)); err != nil {
			return Check{}, fmt.Errorf("check kernel: %w", err)
		}
	}
	config, err := kconfig.Parse(bytes.NewReader(data))
	if err != nil {
		return Check{}, fmt.Errorf("check configuration %s: %w", path, err)
	}
	if len(config) == 0 {
		return Check{}, fmt.Errorf("check configuration %s: it sets nothing", path)
	}
	if c.Release == "" {
		c.Release = kconfig.Fragment{Data: data}.Release()
	}
	c.Findings = kconfig.Check(config, kconfig.ParseVersion(c.Release), modules)
	return c, nil
}
