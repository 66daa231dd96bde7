//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lab/probe"
)

// cgroupRoot is where control groups are mounted (cgroups(7)).
const cgroupRoot = "/sys/fs/cgroup"

// A cgroup is the container's control group: one directory with cgroup2, one
// for each controller with version 1, none on a kernel without.
type cgroup struct {
	v2          bool
	controllers []string // names below cgroupRoot, version 1 only
	name        string
}

// newCgroup mounts the hierarchies and makes the container's group in each. It
// takes the version that is asked for ("1", "2", "none"), or where none is cgroup2
// if the kernel has it whole. The group's own version is what came of it.
func newCgroup(name, version string) (cgroup, error) {
	g := cgroup{name: name}
	if version == "none" {
		return g, nil
	}
	v1, err := v1Controllers("/proc/cgroups")
	if err != nil {
		return g, err
	}
	if v1 == nil {
		return g, nil
	}
	if version == "2" {
		v1 = []string{} // the controllers that it has not are not missed
	}
	if version != "1" {
		if g.v2, err = mountCgroup2(v1); err != nil {
			return g, err
		}
	}
	if !g.v2 && version != "2" {
		if g.controllers, err = mountCgroup1(v1); err != nil {
			return g, err
		}
	}
	for _, dir := range g.dirs() {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return g, fmt.Errorf("make the container's control group: %w", err)
		}
	}
	return g, g.initCpuset()
}

// v1Controllers reads the enabled controllers from /proc/cgroups (cgroups(7)),
// nil when the kernel has no control groups.
func v1Controllers(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read control group controllers: %w", err)
	}
	names := []string{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		// name, hierarchy, groups, enabled
		f := strings.Fields(lines.Text())
		if len(f) == 4 && !strings.HasPrefix(f[0], "#") && f[3] == "1" {
			names = append(names, f[0])
		}
	}
	return names, nil
}

// mountCgroup2 mounts cgroup2 with all its controllers, unless the kernel has
// none, or one so young (4.5 to 4.14) that the processor's controller, which a
// host of its day would have had, is with version 1 only.
func mountCgroup2(v1 []string) (bool, error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if isCgroup2() {
		// The base's init has mounted it.
	} else if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, ""); errors.Is(err, unix.ENODEV) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("mount cgroup2: %w", err)
	}
	b, err := os.ReadFile(cgroupRoot + "/cgroup.controllers")
	if err != nil {
		return false, fmt.Errorf("read cgroup2 controllers: %w", err)
	}
	v2 := strings.Fields(string(b))
	if slices.Contains(v1, "cpu") && !slices.Contains(v2, "cpu") {
		if err := unix.Unmount(cgroupRoot, 0); err != nil {
			return false, fmt.Errorf("unmount cgroup2: %w", err)
		}
		return false, nil
	}
	for _, c := range v2 {
		// One by one: a controller that is not for groups below is no loss.
		_ = os.WriteFile(cgroupRoot+"/cgroup.subtree_control", []byte("+"+c), 0)
	}
	return true, nil
}

// isCgroup2 says whether cgroup2 is mounted.
func isCgroup2() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// groupName is what the container's group is called. Engines have systemd make
// theirs, in a slice (systemd.slice(5)), whose name has a dash for a slice above it.
func groupName(container string, spec probe.Spec) string {
	if cgroupDriver(spec) == systemd {
		return "lab.slice"
	}
	return "lab-" + container
}

// mountCgroup1 mounts each controller as a hierarchy of its own, and returns
// those that could be mounted.
func mountCgroup1(v1 []string) ([]string, error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("cgroup", cgroupRoot, "tmpfs", flags, "mode=755"); err != nil {
		return nil, fmt.Errorf("mount tmpfs on %s: %w", cgroupRoot, err)
	}
	var mounted []string
	for _, c := range v1 {
		dir := filepath.Join(cgroupRoot, c)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("mount control groups: %w", err)
		}
		if err := unix.Mount("cgroup", dir, "cgroup", flags, c); err != nil {
			_ = os.Remove(dir)
			continue // it is listed, and cannot be had
		}
		mounted = append(mounted, c)
	}
	return mounted, nil
}

// version is that of the container's groups: 1, 2 or none.
func (g cgroup) version() string {
	switch {
	case g.v2:
		return "2"
	case len(g.controllers) > 0:
		return "1"
	}
	return "none"
}

// dirs are the container's groups.
func (g cgroup) dirs() []string {
	if g.v2 {
		return []string{filepath.Join(cgroupRoot, g.name)}
	}
	var d []string
	for _, c := range g.controllers {
		d = append(d, filepath.Join(cgroupRoot, c, g.name))
	}
	return d
}

// initCpuset copies the root's processors and memory nodes: with version 1 a
// new cpuset has none, and takes no process (cpuset(7)).
func (g cgroup) initCpuset() error {
	if !slices.Contains(g.controllers, "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, "cpuset", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(cgroupRoot, "cpuset", g.name, file), b, 0)
		}
		if err != nil {
			return fmt.Errorf("prepare the container's cpuset: %w", err)
		}
	}
	return nil
}

// limitDevices lets the group use no devices but those that every container
// has, and make nodes of any, as Docker does: with version 1 through the files
// of the devices controller, with cgroup2 by a program.
func (g cgroup) limitDevices() error {
	rules := [][2]int32{{136, -1}, {5, 2}} // terminals in /dev/pts, ptmx
	for _, d := range defaultDevices {
		rules = append(rules, [2]int32{int32(d.major), int32(d.minor)})
	}
	if g.v2 {
		return attachDeviceFilter(g.dirs()[0], rules)
	}
	if !slices.Contains(g.controllers, "devices") {
		return nil
	}
	dir := filepath.Join(cgroupRoot, "devices", g.name)
	if err := os.WriteFile(dir+"/devices.deny", []byte("a"), 0); err != nil {
		return fmt.Errorf("limit devices: %w", err)
	}
	allow := []string{"c *:* m", "b *:* m"}
	for _, r := range rules {
		minor := "*"
		if r[1] >= 0 {
			minor = strconv.Itoa(int(r[1]))
		}
		allow = append(allow, fmt.Sprintf("c %d:%s rwm", r[0], minor))
	}
	for _, a := range allow {
		if err := os.WriteFile(dir+"/devices.allow", []byte(a), 0); err != nil {
			return fmt.Errorf("limit devices to %s: %w", a, err)
		}
	}
	return nil
}

// add puts the process into the group.
func (g cgroup) add(pid int) error {
	for _, dir := range g.dirs() {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("put the container into its control group: %w", err)
		}
	}
	return nil
}

// kill kills every process of the group, and says whether none is left.
func (g cgroup) kill() bool {
	dirs := g.dirs()
	if len(dirs) == 0 {
		return true
	}
	if os.WriteFile(dirs[0]+"/cgroup.kill", []byte("1"), 0) == nil { // since Linux 5.14
		return true
	}
	return killAll(func() []string {
		b, _ := os.ReadFile(dirs[0] + "/cgroup.procs") // gone with its last process
		return strings.Fields(string(b))
	})
}

// killAll kills the processes that list names, and says whether none is left.
func killAll(list func() []string) bool {
	// A tree that forks faster than we kill it gets a few hundred rounds.
	for range 300 {
		pids := list()
		if len(pids) == 0 {
			return true
		}
		for _, p := range pids {
			if pid, err := strconv.Atoi(p); err == nil && pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// strangers are the processes that run another program than the agent's. Kernel
// threads and the dead run none (proc(5), exe).
func strangers() []string {
	own, _ := os.Readlink("/proc/self/exe")
	programs, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is good
	var pids []string
	for _, p := range programs {
		if program, err := os.Readlink(p); err == nil && program != own {
			pids = append(pids, filepath.Base(filepath.Dir(p)))
		}
	}
	return pids
}
