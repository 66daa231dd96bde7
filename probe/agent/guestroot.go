//go:build linux

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// runGuest runs the test's command in the guest itself: with the agent's namespaces, all
// capabilities, in no control group of its own, through no filter. Its root is the base,
// around the containers; where there is none it is the container's root file system.
func (a *agent) runGuest(spec probe.Spec, name string, config specs.Spec, last capability.Cap) (wire.Done, error) {
	failed := wire.Done{Exit: -1}
	spec.Runtime = ""
	inside := filepath.Join(containersDir, name, "rootfs")
	env, root, guest := []string(nil), "/", inside
	if !hasBase() {
		root, guest = inside, "/"
		if config.Process != nil {
			env = config.Process.Env
		}
	}
	if spec.Init == "" {
		if err := a.furnish(root, root != inside, "lab-"+name, spec.Cgroup); err != nil {
			return failed, err
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return failed, fmt.Errorf("ask the guest's name: %w", err)
	}
	process := specs.Process{Args: spec.Command, Cwd: "/", Env: mergeEnv(env, host, spec.Env)}
	c := container{agent: a, spec: spec, plan: plan{
		Config: specs.Spec{Process: &process, Linux: &specs.Linux{}},
		Guest:  guest, Rootfs: root, Terminal: spec.Terminal,
		Caps: capSet(1)<<(last+1) - 1, SeccompName: probe.SeccompUnconfined,
	}}
	return c.run()
}

// furnish gives the guest what an init gives a system: control groups, for engines want
// some that are tried by hand, what is mounted below its root, a network to itself.
func (a *agent) furnish(root string, base bool, group, version string) error {
	if _, err := newCgroup(group, version); err != nil {
		a.note("the guest has no control groups: %v", err)
	}
	if base {
		if err := mountRun(); err != nil {
			return err
		}
	}
	if err := mountGuest(root); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		a.note("bring up the loopback interface: %v", err)
	}
	return nil
}

// hasBase says whether there is more on the disk than containers.
func hasBase() bool {
	own := []string{containersDir[1:], "lost+found", "dev", "proc", "sys"}
	entries, err := os.ReadDir("/")
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return !slices.Contains(own, e.Name()) })
}

// mountGuest mounts what a system has below its root: terminals, and where the root is
// another one than the agent's, what the agent has mounted there.
func mountGuest(root string) error {
	err := os.MkdirAll("/dev/pts", 0o755)
	if err == nil && hasFilesystem("devpts") {
		err = unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666")
	}
	if err != nil {
		return fmt.Errorf("mount /dev/pts: %w", err)
	}
	if root == "/" {
		return nil
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		err := os.MkdirAll(root+dir, 0o755)
		if err == nil {
			err = unix.Mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil {
			return fmt.Errorf("mount %s in the container's root: %w", dir, err)
		}
	}
	return nil
}

// enterGuest makes the plan's root ours.
func (s *stager) enterGuest() error {
	err := unix.Chroot(s.Rootfs)
	if err == nil {
		err = unix.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("enter %s: %w", s.Rootfs, err)
	}
	if s.Syslog {
		if err := bindLog(logFD, "/dev/log"); err != nil {
			s.note("syslog is not captured: make /dev/log: %v", err)
		}
	}
	return nil
}
