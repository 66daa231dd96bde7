//go:build linux

package agent

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lab/probe"
	"lab/probe/seccomp"
)

// containersDir is where the disk has each container: NAME/rootfs and
// NAME/config.json.
const containersDir = "/containers"

// A plan is all that the stage needs to become the container's command: the
// container's config with the test's spec applied. The agent sends it through
// a pipe, as JSON.
type plan struct {
	Config     specs.Spec
	Rootfs     string // on the disk
	Guest      string // no container is made, Rootfs is a root in the guest itself; there the container's is here
	AllDevices bool   // the guest's devices too
	UserNS     bool   // root is somebody else outside

	Caps        capSet // what may be had in the container at all
	Inheritable capSet // of the config, beyond Docker's sets
	Ambient     capSet

	SeccompName string          // what the filter is called in the result
	Seccomp     *seccomp.Filter // nil for none

	CgroupV2 bool
	Cgroups  []cgroupDir // the container's own groups

	Terminal *probe.Terminal // nil: no input

	Syslog   bool // there is a socket to bind to /dev/log
	CgroupNS bool // the kernel has cgroup namespaces: unshare it
	UTSNS    bool // the hostname is the container's own
}

// A cgroupDir is one of the container's control groups.
type cgroupDir struct {
	Controller string // name below the container's /sys/fs/cgroup, "" with cgroup2
	Dir        string // in the agent's mounts
}

// findContainer returns the name that is meant: the given one, or the only one.
func findContainer(name string) (string, error) {
	entries, err := os.ReadDir(containersDir)
	if err != nil {
		return "", fmt.Errorf("find container: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	switch {
	case name == "" && len(names) == 1:
		return names[0], nil
	case name != "" && slices.Contains(names, name):
		return name, nil
	case len(names) == 0:
		return "", fmt.Errorf("find container %q: the disk has none", name)
	}
	return "", fmt.Errorf("find container %q: the disk has %s", name, strings.Join(names, ", "))
}

// readConfig reads a container's runtime-spec config.
func readConfig(name string) (specs.Spec, error) {
	path := filepath.Join(containersDir, name, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return specs.Spec{}, fmt.Errorf("read container %s: %w", name, err)
	}
	var c specs.Spec
	if err := json.Unmarshal(data, &c); err != nil {
		return specs.Spec{}, fmt.Errorf("read container %s: %s: %w", name, path, err)
	}
	return c, nil
}

// makePlan applies the test's spec to the container's config.
func makePlan(name string, config specs.Spec, spec probe.Spec, last capability.Cap) (plan, []string, error) {
	process := specs.Process{Cwd: "/"}
	if config.Process != nil {
		process = *config.Process
	}
	if len(spec.Command) > 0 {
		process.Args = spec.Command
	}
	if len(process.Args) == 0 {
		return plan{}, nil, fmt.Errorf("container %s: the image has no command, and the test gives none", name)
	}
	if spec.Cwd != "" {
		process.Cwd = spec.Cwd
	}
	if !filepath.IsAbs(process.Cwd) {
		process.Cwd = "/" + process.Cwd
	}
	if spec.User != "" {
		process.User = specs.User{Username: spec.User, Umask: process.User.Umask}
	}
	if config.Hostname == "" {
		config.Hostname = name
	}
	process.Env = mergeEnv(process.Env, config.Hostname, spec.Env)

	p := plan{Rootfs: filepath.Join(containersDir, name, "rootfs"), AllDevices: spec.Privileged || spec.Devices, UserNS: spec.UserNS}
	caps, notes, err := containerCaps(process.Capabilities, spec, last)
	if err != nil {
		return plan{}, nil, fmt.Errorf("container %s: %w", name, err)
	}
	p.Caps = caps
	if c := process.Capabilities; c != nil {
		if p.Inheritable, err = parseCaps(c.Inheritable); err != nil {
			return plan{}, nil, fmt.Errorf("container %s: %w", name, err)
		}
		if p.Ambient, err = parseCaps(c.Ambient); err != nil {
			return plan{}, nil, fmt.Errorf("container %s: %w", name, err)
		}
	}

	var linux specs.Linux
	if config.Linux != nil {
		linux = *config.Linux
	}
	if len(config.Mounts) == 0 {
		config.Mounts = defaultMounts
	}
	if spec.Privileged || spec.Unmasked {
		linux.MaskedPaths = nil
	}
	if spec.Privileged || spec.Writable {
		linux.ReadonlyPaths = nil
		config.Mounts = writableMounts(config.Mounts)
	}
	config.Mounts = selinuxMounts(config.Mounts, spec.SELinuxFS)
	note, err := p.filter(spec, hasSeccomp())
	if err != nil {
		return plan{}, nil, err
	}
	if note != "" {
		notes = append(notes, note)
	}
	config.Process, config.Linux = &process, &linux
	p.Config = config
	return p, notes, nil
}

// defaultMounts are Docker's.
var defaultMounts = []specs.Mount{
	{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
	{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
	{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
	{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
}

// writableMounts is mounts with the kernel's own file systems writable, as a
// privileged container has them.
func writableMounts(mounts []specs.Mount) []specs.Mount {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if m.Type == "sysfs" || m.Type == "cgroup" || m.Type == "proc" {
			mounts[i].Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "ro" })
		}
	}
	return mounts
}

// defaultPath is the PATH of a container whose image sets none, Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mergeEnv is the environment of the container's command: defaults, then the
// image's, then the test's; a later value takes the place of an earlier one of
// the same name. HOME is left to the stage, which knows the user.
func mergeEnv(image []string, hostname string, test []string) []string {
	var env []string
	at := map[string]int{}
	for _, e := range slices.Concat([]string{"PATH=" + defaultPath, "HOSTNAME=" + hostname}, image, test) {
		name, _, ok := strings.Cut(e, "=")
		if !ok {
			continue
		}
		if i, ok := at[name]; ok {
			env[i] = e
			continue
		}
		at[name] = len(env)
		env = append(env, e)
	}
	return env
}

// getenv is the value of name in env, "" when it is not there.
func getenv(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
