package origin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"lab/kernel/gdb"
)

// A Mark is how a tracer in the guest tells of the system call that its tracee makes
// next: by reboot(2) with the two magic numbers, which every kernel refuses, and with
// the address of the registers of the call, a struct user_regs_struct.
type Mark struct {
	Call           string // name of the marked system call
	Magic1, Magic2 uint32
}

// Follow leads a guest that has not begun to run, whose gdbstub listens on the unix
// socket at path, to the system call that is marked, and through it. Told is that of
// Record.
func Follow(ctx context.Context, path string, symbols *Symbols, mark Mark, told func(steps int)) (*Walk, error) {
	g, err := gdb.Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	name := mark.Call
	if other, ok := renamed[name]; ok {
		name = other
	}
	reboot, direct := symbols.entry("reboot")
	call, _ := symbols.entry(name)
	if reboot == 0 || call == 0 {
		return nil, fmt.Errorf("the symbols have no function of the system calls reboot and %s", name)
	}
	same := inRegisters
	if direct {
		same = inArguments
	}
	var want userRegisters
	err = until(ctx, g, reboot, func() (bool, error) {
		now, err := arguments(ctx, g, direct)
		if err != nil || uint32(now[userRDI]) != mark.Magic1 || uint32(now[userRSI]) != mark.Magic2 {
			return false, err
		}
		want, err = readUser(ctx, g, now[userR10])
		return true, err
	})
	if err != nil {
		return nil, err
	}
	err = until(ctx, g, call, func() (bool, error) {
		now, err := arguments(ctx, g, direct)
		for _, i := range same {
			if now[i] != want[i] {
				return false, err
			}
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return Record(ctx, g, symbols.Address("__switch_to_asm"), told)
}

// until has the guest run until it stops at an address and what is asked for holds.
func until(ctx context.Context, g Guest, addr uint64, holds func() (bool, error)) error {
	for {
		if err := errors.Join(g.Break(ctx, addr), g.Continue(ctx), g.Clear(ctx, addr)); err != nil {
			return err
		}
		if ok, err := holds(); ok || err != nil {
			return err
		}
		if err := g.Step(ctx); err != nil { // off the breakpoint
			return err
		}
	}
}

// renamed are system calls that the kernel's functions have other names for
// (arch/x86/entry/syscalls/syscall_64.tbl).
var renamed = map[string]string{
	"stat": "newstat", "fstat": "newfstat", "lstat": "newlstat", "uname": "newuname", "umount2": "umount", "sendfile": "sendfile64",
}

// entry is the kernel's function of a system call. Since Linux 4.17 that gets a pointer
// to the caller's registers, and before the arguments (direct).
func (s *Symbols) entry(name string) (addr uint64, direct bool) {
	if addr = s.Address("__x64_sys_" + name); addr != 0 {
		return addr, false
	}
	return s.Address("SyS_"+name, "sys_"+name), true
}

// userRegisters are those of a process at a system call: struct pt_regs
// (arch/x86/include/asm/ptrace.h), with which struct user_regs_struct begins.
type userRegisters [21]uint64

// Where some are.
const (
	userR10, userR9, userR8            = 7, 8, 9
	userRDX, userRSI, userRDI, userOrg = 12, 13, 14, 15
	userRIP, userRSP                   = 16, 19
)

// What tells a call from others: all that it is made with, or what of that the function
// of an old kernel gets.
var (
	inRegisters = []int{userRDI, userRSI, userRDX, userR10, userR8, userR9, userOrg, userRIP, userRSP}
	inArguments = []int{userRDI, userRSI, userRDX}
)

// arguments are those of the system call at whose function the guest has stopped.
func arguments(ctx context.Context, g Guest, direct bool) (u userRegisters, err error) {
	r, err := g.Registers(ctx)
	if err != nil {
		return u, err
	}
	if !direct {
		return readUser(ctx, g, r.General[gdb.RDI])
	}
	// The fourth is in rcx, as in any function.
	u[userRDI], u[userRSI], u[userRDX], u[userR10] = r.General[gdb.RDI], r.General[gdb.RSI], r.General[gdb.RDX], r.General[gdb.RCX]
	return u, nil
}

func readUser(ctx context.Context, g Guest, addr uint64) (u userRegisters, err error) {
	data, err := g.Memory(ctx, addr, 8*len(u))
	if err != nil {
		return u, err
	}
	for i := range u {
		u[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return u, nil
}
