package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"lab/kernel/kconfig"
)

// A pin is the resolved configuration that those of all other commits of a
// bisect are compared with: that of the first kernel that was built, which is
// the good end's. It lies in the bisect's folder, so that one that goes on has
// the same.
type pin struct {
	name   string // its commit, or the release of a ready-made kernel
	config kconfig.Config
	told   string // the drift that was said last
}

const (
	pinFile = "pin.config"
	pinHead = "# lab: the configuration of "
)

// drift records in a trial what differs between its configuration and the pin,
// and says it in a line, unless the line would be the one before. A kernel that
// did not build has no configuration.
func (b *bisection) drift(t *Trial) error {
	if t.Kernel.Config == "" {
		return nil
	}
	data, err := os.ReadFile(t.Kernel.Config)
	if err != nil {
		return fmt.Errorf("read config of kernel: %w", err)
	}
	name := t.Kernel.Commit
	if name == "" {
		name = t.Kernel.Release // of a ready-made kernel
	}
	if err := b.pinned(name, data); err != nil {
		return err
	}
	config, err := kconfig.Parse(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read config %s: %w", t.Kernel.Config, err)
	}
	t.Drift = kconfig.Drift(b.pin.config, config)
	brief := kconfig.Brief(t.Drift, 6)
	if brief == b.pin.told {
		return nil
	}
	if b.pin.told = brief; brief == "" {
		b.Progress.Say("  config: again that of %s", shortName(b.pin.name))
	} else {
		b.Progress.Say("  config: %s from %s: %s", differ(len(t.Drift)), shortName(b.pin.name), brief)
	}
	return nil
}

// shortName shortens a commit's hash, and leaves a release as it is.
func shortName(name string) string {
	if len(name) >= 40 && !strings.Contains(name, ".") {
		return short(name)
	}
	return name
}

func differ(n int) string {
	if n == 1 {
		return "1 symbol differs"
	}
	return plural(n, "symbol") + " differ"
}

// pinned reads the pin, or makes this configuration the pin.
func (b *bisection) pinned(name string, data []byte) error {
	if b.pin.config != nil {
		return nil
	}
	path := filepath.Join(b.journal.dir, pinFile)
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		old = append([]byte(pinHead+name+"\n"), data...)
		err = renameio.WriteFile(path, old, 0o644)
	}
	if err != nil {
		return fmt.Errorf("pin config: %w", err)
	}
	head, _, _ := strings.Cut(string(old), "\n")
	b.pin.name = strings.TrimPrefix(head, pinHead)
	if b.pin.config, err = kconfig.Parse(bytes.NewReader(old)); err != nil {
		return fmt.Errorf("read pinned config %s: %w; remove it to pin the next kernel's", path, err)
	}
	return nil
}
