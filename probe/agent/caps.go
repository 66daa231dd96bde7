//go:build linux

package agent

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/moby/sys/capability"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"lab/probe"
)

// A capSet is a set of capabilities, bit n for capability n.
type capSet uint64

// dockerCaps is what a container has in Docker when nobody says otherwise:
// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP,
// NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
const dockerCaps capSet = 0xa80425fb

func (s capSet) list() []capability.Cap {
	var l []capability.Cap
	for c := range capability.Cap(64) {
		if s&(1<<c) != 0 {
			l = append(l, c)
		}
	}
	return l
}

// containerCaps is the set of capabilities that the container may have: that of
// its config (Docker's default when it says nothing), changed as the test's
// spec says. last is the kernel's highest capability; those above it that the
// spec asks for by name are noted.
func containerCaps(config *specs.LinuxCapabilities, spec probe.Spec, last capability.Cap) (capSet, []string, error) {
	all := capSet(1)<<(last+1) - 1
	if spec.Privileged {
		return all, nil, nil
	}
	set := dockerCaps
	if config != nil {
		var err error
		if set, err = parseCaps(config.Bounding); err != nil {
			return 0, nil, err
		}
	}
	if hasAll(spec.CapDrop) {
		set = 0
	}
	if hasAll(spec.CapAdd) {
		set = all
	}
	drop, err := parseCaps(spec.CapDrop)
	if err != nil {
		return 0, nil, err
	}
	add, err := parseCaps(spec.CapAdd)
	if err != nil {
		return 0, nil, err
	}
	var notes []string
	for _, c := range (add &^ all).list() {
		notes = append(notes, fmt.Sprintf("the kernel does not know CAP_%s, which the test asks for", strings.ToUpper(c.String())))
	}
	return (set&^drop | add) & all, notes, nil
}

// parseCaps makes a set of names, in which ALL is nothing by itself.
func parseCaps(names []string) (capSet, error) {
	var s capSet
	for _, name := range names {
		if strings.EqualFold(name, "ALL") {
			continue
		}
		c, err := probe.ParseCap(name)
		if err != nil {
			return 0, err
		}
		s |= 1 << c
	}
	return s, nil
}

func hasAll(names []string) bool {
	for _, n := range names {
		if strings.EqualFold(n, "ALL") {
			return true
		}
	}
	return false
}

// limitCaps takes everything but bounding from the calling thread's bounding
// set, for good.
func limitCaps(bounding capSet) error {
	c, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	c.Set(capability.BOUNDING, bounding.list()...)
	return c.Apply(capability.BOUNDS)
}

// setCaps gives the calling thread the sets that docker gives to a container's
// command: for root everything in bounding is permitted and effective, for any
// other user nothing is, as execve would have it; nothing is inheritable or
// ambient unless the container's config says so.
func setCaps(bounding, inheritable, ambient capSet, root bool) error {
	var permitted capSet
	if root {
		permitted = bounding
	}
	ambient &= bounding
	inheritable = inheritable&bounding | ambient
	permitted |= ambient
	c, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	c.Set(capability.PERMITTED|capability.EFFECTIVE, permitted.list()...)
	c.Set(capability.INHERITABLE, inheritable.list()...)
	c.Set(capability.AMBIENT, ambient.list()...)
	return c.Apply(capability.CAPS | capability.AMBS)
}

// become makes the calling thread the user u, and leaves it the capabilities
// that it had, for setCaps to cut down. The thread must exec before it does
// anything else: the process's other threads stay who they are.
func become(u identity) error {
	gids := u.groups
	if !slices.Contains(gids, u.gid) {
		gids = append([]int{u.gid}, gids...)
	}
	// Raw system calls, because those of package syscall change all threads.
	list := make([]uint32, len(gids))
	for i, g := range gids {
		list[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0); e != 0 {
		return fmt.Errorf("set groups %v: %w", gids, e)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)); e != 0 {
		return fmt.Errorf("set group %d: %w", u.gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)); e != 0 {
		return fmt.Errorf("set user %d: %w", u.uid, e)
	}
	return nil
}
