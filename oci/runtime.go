package oci

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What Docker gives a container that asks for nothing, from moby's
// daemon/pkg/oci/defaults.go and caps/defaults.go.
const (
	specVersion = "1.0.2" // the newest that crun 1.8 and runc 1.1 take
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// The fourteen of 0xa80425fb.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// DefaultCapabilities are those that the process of a RuntimeSpec has.
func DefaultCapabilities() []string { return slices.Clone(defaultCapabilities) }

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	"/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// The order matters: /dev before what is mounted in it.
var defaultMounts = []specs.Mount{
	{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
	{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
	{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
}

// RuntimeSpec makes the config.json of a container (runtime-spec) from an
// image's config, with what Docker would add: capabilities, mounts, masked and
// read-only paths, device rules, and namespaces for pid, mount, uts, ipc,
// network and cgroup. The root file system is the directory rootfs beside it,
// writable.
//
// Args are entrypoint and command; an image that has neither leaves them
// empty. Process.User.Username holds the image's USER as it is written, for
// the names in it mean something only in the container's /etc/passwd; UID and
// GID are set too when USER is all numbers.
//
// The same image gives the same spec.
func RuntimeSpec(img v1.Image) (*specs.Spec, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read config of %s: %w", imageName(img), err)
	}
	if file.OS != "" && file.OS != "linux" {
		return nil, fmt.Errorf("make runtime config of %s: image is for %s, not for linux", imageName(img), file.OS)
	}
	c := file.Config
	env, err := environment(c.Env)
	if err != nil {
		return nil, fmt.Errorf("make runtime config of %s: %w", imageName(img), err)
	}
	args := slices.Concat(c.Entrypoint, c.Cmd)
	for _, s := range append(slices.Clone(args), c.WorkingDir, c.User) {
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("make runtime config of %s: config has a zero byte in %q", imageName(img), s)
		}
	}
	spec := &specs.Spec{
		Version: specVersion,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			User: user(c.User),
			Args: args,
			Env:  env,
			Cwd:  path.Join("/", c.WorkingDir),
			Capabilities: &specs.LinuxCapabilities{
				Bounding:  slices.Clone(defaultCapabilities),
				Effective: slices.Clone(defaultCapabilities),
				Permitted: slices.Clone(defaultCapabilities),
			},
		},
		Linux: &specs.Linux{
			MaskedPaths:   slices.Clone(maskedPaths),
			ReadonlyPaths: slices.Clone(readonlyPaths),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace},
			},
			Resources: &specs.LinuxResources{Devices: deviceRules()},
		},
	}
	for _, m := range defaultMounts {
		m.Options = slices.Clone(m.Options)
		spec.Mounts = append(spec.Mounts, m)
	}
	return spec, nil
}

// environment adds a PATH when the image has none. Of a variable set twice
// the last counts, as in a shell, but programs differ: only that one is kept.
func environment(list []string) ([]string, error) {
	last := map[string]int{}
	for i, v := range list {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.ContainsRune(v, 0) {
			return nil, errors.New("config has the environment entry " + strconv.Quote(v))
		}
		last[name] = i
	}
	var env []string
	if _, ok := last["PATH"]; !ok {
		env = append(env, defaultPath)
	}
	for i, v := range list {
		if name, _, _ := strings.Cut(v, "="); last[name] == i {
			env = append(env, v)
		}
	}
	return env, nil
}

// user reads USER: user[:group], each a name or a number.
func user(s string) specs.User {
	u := specs.User{Username: s}
	name, group, hasGroup := strings.Cut(s, ":")
	uid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return u
	}
	gid, err := strconv.ParseUint(group, 10, 32)
	if hasGroup && err != nil {
		return u
	}
	u.UID, u.GID = uint32(uid), uint32(gid)
	return u
}

// deviceRules are those of a container without --device: everybody's devices
// and no other; mknod is allowed, using the result is not.
func deviceRules() []specs.LinuxDeviceCgroup {
	number := func(n int64) *int64 { return &n }
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
		{Allow: true, Type: "c", Major: number(136), Access: "rwm"}, // pts
	}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null, zero, full, random, urandom
		{5, 0}, {5, 1}, {5, 2}, // tty, console, ptmx
	} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(d[0]), Minor: number(d[1]), Access: "rwm"})
	}
	return rules
}
