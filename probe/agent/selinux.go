//go:build linux

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// selinuxDir is where a kernel whose SELinux is on has the mount point of
// selinuxfs (security/selinux/selinuxfs.c); any other kernel has no such folder.
const selinuxDir = "/sys/fs/selinux"

// diskContext is the label of all that is on the disk, where the policy knows it:
// its files bring none, and of an unlabeled file a policy forbids nearly everything.
// The reference policy lets the kernel's own domain, which the agent and the
// container are in, do with such files what it likes.
const diskContext = "system_u:object_r:tmpfs_t:s0"

// startSELinux mounts selinuxfs where SELinux is on, and loads the test's policy.
// It comes before the disk: only a mount that is made with a policy can be told its
// label. A kernel without SELinux is no error: the same test is made with and
// without.
func (a *agent) startSELinux(spec probe.Spec) error {
	err := unix.Mount("selinuxfs", selinuxDir, "selinuxfs", unix.MS_NOSUID|unix.MS_NOEXEC, "")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		if spec.SELinuxFS != "" || len(spec.SELinuxPolicy) > 0 || hasParameter(a.cmdline, "security=selinux") {
			a.note("SELinux is off: it takes a kernel with CONFIG_SECURITY_SELINUX, and security=selinux on its command line where it is not the default")
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("mount selinuxfs: %w", err)
	}
	if len(spec.SELinuxPolicy) == 0 {
		a.note("SELinux is on without a policy: everything is permitted and nothing has a label")
		return nil
	}
	policy, err := probe.UnpackPolicy(spec.SELinuxPolicy)
	if err != nil {
		return err
	}
	// One write, whole: a second one would be another policy (sel_write_load).
	f, err := os.OpenFile(selinuxDir+"/load", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("load the SELinux policy: %w", err)
	}
	defer f.Close()
	n, err := unix.Write(int(f.Fd()), policy)
	if err == nil && n != len(policy) {
		err = fmt.Errorf("the kernel took %d of its %d bytes", n, len(policy))
	}
	if err != nil {
		return fmt.Errorf("load the SELinux policy: %w (the kernel reads versions up to %s, the policy has %d; its log says more)", err, selinuxSays("policyvers"), probe.PolicyVersion(policy))
	}
	return nil
}

// selinuxMountData is what the disk is mounted with: its label, or nothing where there is no
// policy that knows it.
func selinuxMountData() string {
	f, err := os.OpenFile(selinuxDir+"/context", os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	// What is written there is refused unless the policy has it; without a policy
	// anything is fine.
	if _, err := unix.Write(int(f.Fd()), []byte(diskContext)); err != nil || !hasPolicy() {
		return ""
	}
	return "context=" + diskContext
}

// hasPolicy says whether there is one: without, every process is of the initial
// label, which has but one part.
func hasPolicy() bool {
	return strings.Contains(selinuxLabel(os.Getpid()), ":")
}

// selinuxSays reads a file of selinuxfs.
func selinuxSays(name string) string {
	data, err := os.ReadFile(selinuxDir + "/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(data), "\x00\n")
}

// selinuxLabel is a process's (proc(5), attr/current).
func selinuxLabel(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", pid))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(data), "\x00\n")
}

// selinuxState is what the container's process is under, nil where SELinux is off.
func selinuxState(pid int, spec probe.Spec) *wire.SELinux {
	enforce := selinuxSays("enforce")
	if enforce == "" {
		return nil
	}
	s := &wire.SELinux{Mode: "permissive", Label: selinuxLabel(pid)}
	if enforce == "1" {
		s.Mode = "enforcing"
	}
	if policy, err := probe.UnpackPolicy(spec.SELinuxPolicy); err == nil && len(policy) > 0 {
		s.PolicyVersion = probe.PolicyVersion(policy)
		s.Policy = probe.PolicyDigest(policy)
	}
	return s
}

// selinuxMounts shows selinuxfs in the container. libselinux takes a selinuxfs that
// is read-only, or is not there, for SELinux being off. It is bound: no user namespace
// may mount one.
func selinuxMounts(mounts []specs.Mount, mode string) []specs.Mount {
	if mode != "rw" && mode != "ro" || selinuxSays("enforce") == "" {
		return mounts
	}
	return append(mounts[:len(mounts):len(mounts)], specs.Mount{
		Destination: selinuxDir, Type: "bind", Source: selinuxDir, Options: []string{"bind", "nosuid", "noexec", mode},
	})
}
