//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are the nodes that every container has (runtime-spec,
// config-linux "Default Devices"), by the numbers of admin-guide/devices.txt.
var defaultDevices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3},
	{"zero", 1, 5},
	{"full", 1, 7},
	{"random", 1, 8},
	{"urandom", 1, 9},
	{"tty", 5, 0},
}

// deviceLinks are the links that every container has in /dev.
var deviceLinks = []struct{ name, target string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
	{"core", "/proc/kcore"},
}

// makeDevices fills the container's /dev. The caller's umask must be 0.
func (s *stager) makeDevices(extra []specs.LinuxDevice) error {
	if err := os.MkdirAll("/dev", 0o755); err != nil {
		return fmt.Errorf("make devices: %w", err)
	}
	for _, d := range defaultDevices {
		if err := s.makeNode("/dev/"+d.name, unix.S_IFCHR|0o666, d.major, d.minor); err != nil {
			return err
		}
	}
	for _, l := range deviceLinks {
		if err := os.Symlink(l.target, "/dev/"+l.name); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make device link: %w", err)
		}
	}
	for _, d := range extra {
		kinds := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
		mode, ok := kinds[d.Type]
		if !ok {
			return fmt.Errorf("make device %s: type %q", d.Path, d.Type)
		}
		perm := os.FileMode(0o666)
		if d.FileMode != nil {
			perm = d.FileMode.Perm()
		}
		if err := os.MkdirAll(filepath.Dir(d.Path), 0o755); err != nil {
			return fmt.Errorf("make device %s: %w", d.Path, err)
		}
		if err := s.makeNode(d.Path, mode|uint32(perm), uint32(d.Major), uint32(d.Minor)); err != nil {
			return err
		}
		if d.UID != nil && d.GID != nil && !s.UserNS {
			if err := os.Lchown(d.Path, int(*d.UID), int(*d.GID)); err != nil {
				return fmt.Errorf("make device %s: %w", d.Path, err)
			}
		}
	}
	return nil
}

// makeNode makes a device node. A node that is there already (of an image
// without a /dev of its own mounted) stays. In a user namespace nobody can make
// nodes: there the guest's own of the same name is bound to it, as by runc.
func (s *stager) makeNode(path string, mode uint32, major, minor uint32) error {
	if s.UserNS {
		if err := mountBind(specs.Mount{Source: path, Destination: path}, options{}); err != nil {
			return fmt.Errorf("bind device %s: %w", path, err)
		}
		return nil
	}
	err := unix.Mknod(path, mode, int(unix.Mkdev(major, minor)))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make device %s: %w", path, err)
	}
	return nil
}

// copyDevices makes every device node below the directory from in the
// container's /dev.
func (s *stager) copyDevices(from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy devices: %w", err)
		}
		name := strings.TrimPrefix(path, from)
		if d.IsDir() {
			return os.MkdirAll("/dev"+name, 0o755)
		}
		if d.Type()&fs.ModeDevice == 0 {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("copy device %s: %w", path, err)
		}
		rdev := st.Rdev
		if name == "/console" {
			return nil // the machine's, not the container's
		}
		return s.makeNode("/dev"+name, st.Mode, unix.Major(rdev), unix.Minor(rdev))
	})
}
