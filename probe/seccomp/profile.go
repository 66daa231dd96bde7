// Package seccomp makes the filter of a container's system calls (seccomp(2)) out of a
// profile as Docker has them (https://docs.docker.com/engine/security/seccomp/).
//
// What a profile means is what Docker, runc and libseccomp make of it on x86-64:
// Docker leaves out the rules that are not for the container's capabilities, the
// kernel or the machine; runc gives ENOSYS in the place of the default's errno for
// system calls that are newer than any the profile names; and libseccomp's filters
// know x86-64's own calls, and, where the profile lists them, those of i386 and x32.
package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	docker "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxProfile is how large a profile may be, in bytes. Docker's own has 14,000.
const MaxProfile = 256 << 10

// A rule gives the answer to a system call whose arguments meet all conditions.
type rule struct {
	when   []specs.LinuxSeccompArg
	answer uint32 // a SECCOMP_RET_*, with its data
}

// An abi is a way to enter the kernel: a table of system calls.
type abi struct {
	name  specs.Arch
	audit uint32 // the AUDIT_ARCH_* that a filter sees
	first uint32 // of its numbers
	table map[string]int
	// narrow: arguments have 32 bits.
	narrow bool
}

// abis are those of x86-64 kernels, the machine's own first. The numbers of x32 are
// those of x86-64 with bit 30 (Documentation/userspace-api/seccomp_filter.rst).
var abis = []abi{
	{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, 0, arch.X86_64.SyscallNames, false},
	{specs.ArchX32, unix.AUDIT_ARCH_X86_64, x32Bit, x32Names(), true},
	{specs.ArchX86, unix.AUDIT_ARCH_I386, 0, arch.I386.SyscallNames, true},
}

const x32Bit = 0x40000000

// x32Names is x32's table by names. The one that it is made of has x86-64's calls too
// that are not x32's: those that are made in another way there have numbers from 512
// on, the others are not there (arch/x86/entry/syscalls/syscall_64.tbl, "64").
func x32Names() map[string]int {
	names := map[string]int{}
	for n, name := range arch.X32.SyscallNumbers {
		names[name] = max(names[name], n)
	}
	for _, name := range []string{"set_thread_area", "get_thread_area", "epoll_ctl_old", "epoll_wait_old"} {
		delete(names, name)
	}
	return names
}

// newer are the numbers that came after the tables; they are the same in each
// (Linux, scripts/syscall.tbl).
var newer = map[string]int{
	"setxattrat": unix.SYS_SETXATTRAT, "getxattrat": unix.SYS_GETXATTRAT, "listxattrat": unix.SYS_LISTXATTRAT,
	"removexattrat": unix.SYS_REMOVEXATTRAT, "open_tree_attr": unix.SYS_OPEN_TREE_ATTR,
	"file_getattr": unix.SYS_FILE_GETATTR, "file_setattr": unix.SYS_FILE_SETATTR,
}

// number is that of a system call, without the abi's bit.
func (a abi) number(name string) (uint32, bool) {
	n, ok := a.table[name]
	if !ok {
		n, ok = newer[name]
	}
	return uint32(n) &^ x32Bit, ok
}

// multiplexed are the calls of i386 that can be made by way of another one as well,
// whose first argument says which is meant (net/socket.c, ipc/syscall.c).
var multiplexed = map[string]struct {
	by       string
	argument uint64
}{
	"socket": {"socketcall", 1}, "bind": {"socketcall", 2}, "connect": {"socketcall", 3}, "listen": {"socketcall", 4},
	"accept": {"socketcall", 5}, "getsockname": {"socketcall", 6}, "getpeername": {"socketcall", 7},
	"socketpair": {"socketcall", 8}, "send": {"socketcall", 9}, "recv": {"socketcall", 10}, "sendto": {"socketcall", 11},
	"recvfrom": {"socketcall", 12}, "shutdown": {"socketcall", 13}, "setsockopt": {"socketcall", 14},
	"getsockopt": {"socketcall", 15}, "sendmsg": {"socketcall", 16}, "recvmsg": {"socketcall", 17},
	"accept4": {"socketcall", 18}, "recvmmsg": {"socketcall", 19}, "sendmmsg": {"socketcall", 20},
	"semop": {"ipc", 1}, "semget": {"ipc", 2}, "semctl": {"ipc", 3}, "semtimedop": {"ipc", 4},
	"msgsnd": {"ipc", 11}, "msgrcv": {"ipc", 12}, "msgget": {"ipc", 13}, "msgctl": {"ipc", 14},
	"shmat": {"ipc", 21}, "shmdt": {"ipc", 22}, "shmget": {"ipc", 23}, "shmctl": {"ipc", 24},
}

// Check says what is wrong with a profile, whatever the kernel and the capabilities.
func Check(profile []byte) error {
	if len(profile) > MaxProfile {
		return fmt.Errorf("seccomp profile: %d bytes, at most %d are taken", len(profile), MaxProfile)
	}
	var p docker.Seccomp
	if err := json.Unmarshal(profile, &p); err != nil {
		return fmt.Errorf("seccomp profile: %w", err)
	}
	if p.DefaultAction == "" {
		return errors.New("seccomp profile: it has no defaultAction")
	}
	if slices.Contains(p.Syscalls, nil) {
		return errors.New("seccomp profile: a rule is null")
	}
	// Of what is left out in another place than this, all must be right too.
	whole := p.LinuxSeccomp
	for _, c := range p.Syscalls {
		if name := c.Name; name != "" { //nolint:staticcheck // profiles of old have it, and Docker takes them
			c.Names = append(c.Names, name)
		}
		if len(c.Names) == 0 {
			return errors.New("seccomp profile: a rule names no system call")
		}
		if _, err := rules(c.LinuxSyscall); err != nil {
			return err
		}
	}
	if _, err := flags(whole.Flags); err != nil {
		return err
	}
	if _, err := answer(whole.DefaultAction, whole.DefaultErrnoRet); err != nil {
		return fmt.Errorf("seccomp profile: the default: %w", err)
	}
	_, err := Compile(profile, nil)
	return err
}

// Resolve gives what a profile, or Docker's default where it is nil, says to a
// container with some capabilities (CAP_CHOWN) on the running kernel.
func Resolve(profile []byte, capabilities []string) (*specs.LinuxSeccomp, error) {
	container := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}}}
	if profile == nil {
		return docker.GetDefaultProfile(container)
	}
	return docker.LoadProfile(string(profile), container)
}

// answers are the actions of profiles (runtime-spec, config-linux "Seccomp"). A
// listener, as SCMP_ACT_NOTIFY wants one, is in no container of lab's.
var answers = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill:        unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillThread:  unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
	specs.ActTrap:        unix.SECCOMP_RET_TRAP,
	specs.ActErrno:       unix.SECCOMP_RET_ERRNO,
	specs.ActTrace:       unix.SECCOMP_RET_TRACE,
	specs.ActAllow:       unix.SECCOMP_RET_ALLOW,
	specs.ActLog:         unix.SECCOMP_RET_LOG,
}

func answer(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	ret, ok := answers[a]
	if !ok {
		return 0, fmt.Errorf("action %q is unknown here", a)
	}
	if a == specs.ActErrno || a == specs.ActTrace {
		data := uint(unix.EPERM)
		if errno != nil {
			data = *errno
		}
		if data > 4095 { // MAX_ERRNO
			return 0, fmt.Errorf("errno %d: at most 4095 is one", data)
		}
		ret |= uint32(data)
	}
	return ret, nil
}

// filterFlags are those of seccomp(2) for SECCOMP_SET_MODE_FILTER. All of the
// container's threads come from the one that gets the filter: TSYNC is nothing more.
var filterFlags = map[specs.LinuxSeccompFlag]uint{
	"SECCOMP_FILTER_FLAG_TSYNC":     0,
	specs.LinuxSeccompFlagLog:       unix.SECCOMP_FILTER_FLAG_LOG,
	specs.LinuxSeccompFlagSpecAllow: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}

func flags(list []specs.LinuxSeccompFlag) (uint, error) {
	var all uint
	for _, f := range list {
		bit, ok := filterFlags[f]
		if !ok {
			return 0, fmt.Errorf("seccomp profile: flag %q is unknown here", f)
		}
		all |= bit
	}
	return all, nil
}

// rules are what a rule of a profile says of each of its calls. As in runc, two
// conditions on the same argument are alternatives.
func rules(c specs.LinuxSyscall) ([]rule, error) {
	ret, err := answer(c.Action, c.ErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %s: %w", c.Names[0], err)
	}
	var seen [6]bool
	twice := false
	for _, a := range c.Args {
		if a.Index >= uint(len(seen)) {
			return nil, fmt.Errorf("seccomp profile: %s: argument %d: there are 0 to 5", c.Names[0], a.Index)
		}
		if _, ok := comparisons[a.Op]; !ok {
			return nil, fmt.Errorf("seccomp profile: %s: operator %q is unknown", c.Names[0], a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return []rule{{c.Args, ret}}, nil
	}
	var list []rule
	for _, a := range c.Args {
		list = append(list, rule{[]specs.LinuxSeccompArg{a}, ret})
	}
	return list, nil
}

// A policy is what a profile says to the calls of one abi.
type policy struct {
	abi
	calls    map[uint32][]rule // the first whose conditions are met counts
	fallback uint32            // for calls that have no rule, or meet none
	last     uint32            // what is above gets beyond
	beyond   uint32
}

// policies are those of all abis that the profile lists, x86-64's own always.
func policies(s *specs.LinuxSeccomp) ([]policy, error) {
	for _, name := range s.Architectures {
		if !slices.ContainsFunc(abis, func(a abi) bool { return a.name == name }) {
			return nil, fmt.Errorf("seccomp profile: architecture %q is none of an x86-64 machine", name)
		}
	}
	fallback, err := answer(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: the default: %w", err)
	}
	const enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	var list []policy
	for i, a := range abis {
		if i > 0 && !slices.Contains(s.Architectures, a.name) {
			continue
		}
		p := policy{abi: a, calls: map[uint32][]rule{}, fallback: fallback, beyond: enosys}
		conditional := 0
		for _, c := range s.Syscalls {
			if len(c.Names) == 0 {
				continue
			}
			said, err := rules(c)
			if err != nil {
				return nil, err
			}
			// Each takes an instruction at the least: names times conditions may be many.
			if len(c.Args) > 0 && said[0].answer != fallback {
				if conditional += len(c.Names) * len(said); conditional > maxProgram {
					return nil, errTooLong
				}
			}
			for _, name := range c.Names {
				if n, ok := a.number(name); ok {
					p.last = max(p.last, n)
					p.add(n, said)
				}
				if m, ok := multiplexed[name]; ok && a.name == specs.ArchX86 && len(c.Args) == 0 {
					n, _ := a.number(m.by)
					p.add(n, []rule{{[]specs.LinuxSeccompArg{{Index: 0, Value: m.argument, Op: specs.OpEqualTo}}, said[0].answer}})
				}
			}
		}
		switch fallback {
		case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
			p.beyond = fallback
		}
		if s.DefaultAction == specs.ActTrace || p.last == 0 {
			p.beyond = fallback
		}
		list = append(list, p)
	}
	return list, nil
}

// add puts rules behind those of a call. One without conditions takes the place of
// all others, and what says no more than the fallback says nothing.
func (p *policy) add(n uint32, said []rule) {
	have := p.calls[n]
	for _, r := range said {
		switch {
		case r.answer == p.fallback, len(have) == 1 && len(have[0].when) == 0:
		case len(r.when) == 0:
			have = []rule{r}
		default:
			have = append(have, r)
		}
	}
	if len(have) > 0 {
		p.calls[n] = have
	}
}
