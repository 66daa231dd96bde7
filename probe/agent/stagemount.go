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

// pivot makes rootfs the root of the calling process's mount namespace and
// returns a descriptor of the old root, which stays mounted above the new one,
// out of reach of absolute paths (pivot_root(2), "pivot_root(".", ".")").
func pivot(rootfs string) (old int, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(rootfs, rootfs, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return 0, fmt.Errorf("bind the container's root %s: %w", rootfs, err)
	}
	if old, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return 0, fmt.Errorf("open the old root: %w", err)
	}
	if err := unix.Chdir(rootfs); err != nil {
		return 0, fmt.Errorf("enter the container's root %s: %w", rootfs, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return 0, fmt.Errorf("pivot to the container's root: %w", err)
	}
	return old, nil
}

// mount makes one mount of the container's config. What the kernel has no file
// system for is noted and left out.
func (s *stager) mount(m specs.Mount) error {
	if !filepath.IsAbs(m.Destination) {
		return errors.New("the path is not absolute")
	}
	o := parseOptions(m.Options)
	if m.Type == "cgroup" || m.Type == "cgroup2" {
		return s.mountCgroups(m.Destination, o)
	}
	if m.Type == "bind" || o.flags&unix.MS_BIND != 0 {
		return mountBind(m, o)
	}
	err := os.MkdirAll(m.Destination, 0o755)
	if err == nil {
		err = unix.Mount(m.Source, m.Destination, m.Type, o.flags, o.data)
	}
	if errors.Is(err, unix.EINVAL) && m.Type == "devpts" {
		s.note("the container shares the guest's terminals: the kernel has one %s for all (before Linux 4.7 without CONFIG_DEVPTS_MULTIPLE_INSTANCES)", m.Type)
		if err = unix.Mount(m.Source, m.Destination, m.Type, o.flags, ""); err == nil {
			err = s.makeNode("/dev/ptmx", unix.S_IFCHR|0o666, 5, 2)
		}
	}
	if errors.Is(err, unix.ENODEV) && m.Type != "proc" {
		s.note("%s is not mounted: the kernel has no %s file system", m.Destination, m.Type)
		return nil
	}
	if err == nil && o.propagation != 0 {
		err = unix.Mount("", m.Destination, "", o.propagation, "")
	}
	return err
}

// mountBind binds a path of the guest's disk.
func mountBind(m specs.Mount, o options) error {
	source := strings.TrimLeft(m.Source, "/") // relative: below the old root
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if st.IsDir() {
		err = os.MkdirAll(m.Destination, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(m.Destination), 0o755); err == nil {
		var f *os.File
		if f, err = os.OpenFile(m.Destination, os.O_CREATE, 0o644); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, m.Destination, "", unix.MS_BIND|o.flags&unix.MS_REC, ""); err != nil {
		return err
	}
	if flags := o.flags &^ (unix.MS_BIND | unix.MS_REC); flags != 0 {
		if err := remount(m.Destination, flags); err != nil {
			return err
		}
	}
	if o.propagation != 0 {
		return unix.Mount("", m.Destination, "", o.propagation, "")
	}
	return nil
}

// mountCgroups binds the container's own groups, the way it sees them with a
// cgroup namespace, on kernels that have none too.
func (s *stager) mountCgroups(target string, o options) error {
	if len(s.Cgroups) == 0 {
		return nil // said already, in hello
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		s.note("%s is not mounted: %v", target, err)
		return nil
	}
	flags := o.flags &^ (unix.MS_BIND | unix.MS_REC)
	bind := func(dir, target string) error {
		if err := unix.Mount(strings.TrimLeft(dir, "/"), target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		return remount(target, flags)
	}
	if s.CgroupV2 {
		return bind(s.Cgroups[0].Dir, target)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", flags&^unix.MS_RDONLY, "mode=755"); err != nil {
		return err
	}
	for _, c := range s.Cgroups {
		dir := filepath.Join(target, c.Controller)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := bind(c.Dir, dir); err != nil {
			return err
		}
	}
	return remount(target, flags)
}

// protect hides the masked paths and makes others read-only. Paths that are
// not there need neither.
func protect(masked, readonly []string) error {
	for _, path := range readonly {
		err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = remount(path, unix.MS_RDONLY)
		}
		if err != nil {
			return fmt.Errorf("make %s read-only in the container: %w", path, err)
		}
	}
	for _, path := range masked {
		st, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && st.IsDir() {
			err = unix.Mount("tmpfs", path, "tmpfs", unix.MS_RDONLY, "")
		} else if err == nil {
			err = unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("mask %s in the container: %w", path, err)
		}
	}
	return nil
}

// remount adds flags to those that the mount at path has.
func remount(path string, flags uintptr) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return err
	}
	// ST_* of statfs(2) have the values of their MS_*, but for relatime.
	const same = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags |= uintptr(st.Flags) & same
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
}

// options are a mount's options: what mount(2) has flags for, the propagation
// that needs a call of its own, and the rest, which is the file system's.
type options struct {
	flags, propagation uintptr
	data               string
}

func parseOptions(list []string) options {
	var o options
	var data []string
	for _, s := range list {
		if f, ok := mountFlags[s]; ok {
			if f.clear {
				o.flags &^= f.flag
			} else {
				o.flags |= f.flag
			}
		} else if p, ok := propagations[s]; ok {
			o.propagation = p
		} else if s != "" && s != "defaults" {
			data = append(data, s)
		}
	}
	o.data = strings.Join(data, ",")
	return o
}

// mountFlags are the options that are flags (mount(8), runtime-spec config
// "Linux mount options").
var mountFlags = map[string]struct {
	flag  uintptr
	clear bool
}{
	"ro":            {unix.MS_RDONLY, false},
	"rw":            {unix.MS_RDONLY, true},
	"nosuid":        {unix.MS_NOSUID, false},
	"suid":          {unix.MS_NOSUID, true},
	"nodev":         {unix.MS_NODEV, false},
	"dev":           {unix.MS_NODEV, true},
	"noexec":        {unix.MS_NOEXEC, false},
	"exec":          {unix.MS_NOEXEC, true},
	"sync":          {unix.MS_SYNCHRONOUS, false},
	"async":         {unix.MS_SYNCHRONOUS, true},
	"dirsync":       {unix.MS_DIRSYNC, false},
	"noatime":       {unix.MS_NOATIME, false},
	"atime":         {unix.MS_NOATIME, true},
	"nodiratime":    {unix.MS_NODIRATIME, false},
	"diratime":      {unix.MS_NODIRATIME, true},
	"relatime":      {unix.MS_RELATIME, false},
	"norelatime":    {unix.MS_RELATIME, true},
	"strictatime":   {unix.MS_STRICTATIME, false},
	"nostrictatime": {unix.MS_STRICTATIME, true},
	"bind":          {unix.MS_BIND, false},
	"rbind":         {unix.MS_BIND | unix.MS_REC, false},
}

var propagations = map[string]uintptr{
	"private":     unix.MS_PRIVATE,
	"rprivate":    unix.MS_PRIVATE | unix.MS_REC,
	"slave":       unix.MS_SLAVE,
	"rslave":      unix.MS_SLAVE | unix.MS_REC,
	"shared":      unix.MS_SHARED,
	"rshared":     unix.MS_SHARED | unix.MS_REC,
	"unbindable":  unix.MS_UNBINDABLE,
	"runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
}
