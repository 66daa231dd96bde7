//go:build linux

package agent

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/seccomp"
)

// hasSeccomp asks for a filter without giving one (seccomp(2), "EFAULT").
func hasSeccomp() bool {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0) == unix.EFAULT
}

// filter makes the filter that the test's spec asks for, for the plan's capabilities,
// and says what there is to say of it.
func (p *plan) filter(spec probe.Spec, has bool) (note string, err error) {
	p.SeccompName = spec.Seccomp
	switch {
	case spec.Seccomp == "" && spec.Privileged:
		p.SeccompName = probe.SeccompUnconfined
	case spec.Seccomp == "":
		p.SeccompName = probe.SeccompDefault
	}
	switch {
	case p.SeccompName == probe.SeccompUnconfined:
		return "", nil
	case !has && spec.Seccomp != "":
		return "", fmt.Errorf("the test wants the seccomp profile %s, and the kernel has no seccomp filter (CONFIG_SECCOMP_FILTER)", spec.Seccomp)
	case !has:
		p.SeccompName = "none"
		return "the kernel has no seccomp filter; the container runs without", nil
	}
	var profile []byte
	if spec.SeccompProfile != "" {
		profile = []byte(spec.SeccompProfile)
	}
	f, err := seccomp.Compile(profile, p.Caps.names())
	if err != nil {
		return "", err
	}
	if !hasActions(f) {
		return "", fmt.Errorf("the seccomp profile %s lets system calls through and logs them, and the kernel cannot (since 4.14)", p.SeccompName)
	}
	p.Seccomp = &f
	return "", nil
}

// hasActions says whether the kernel knows the filter's answers. SECCOMP_RET_LOG would
// kill where it does not, the others do at the least what they should.
func hasActions(f seccomp.Filter) bool {
	for _, in := range f.Program {
		if in.Op == unix.BPF_RET|unix.BPF_K && in.K == unix.SECCOMP_RET_LOG {
			action := in.K
			_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
			return e == 0
		}
	}
	return true
}

// loadFilter puts the calling thread under the filter, and all that it becomes.
func loadFilter(f seccomp.Filter) error {
	program := make([]unix.SockFilter, len(f.Program))
	for i, in := range f.Program {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if f.Flags != 0 {
		_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&fprog)))
		if e == 0 {
			return nil
		}
		if f.Chosen {
			return fmt.Errorf("load the seccomp filter with flags %#x: %w (does the kernel have them?)", f.Flags, e)
		}
	}
	// All that a kernel before 3.17 has, and the flags before theirs.
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)), 0, 0); err != nil {
		return fmt.Errorf("load the seccomp filter: %w", err)
	}
	return nil
}
