package origin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"lab/kernel/gdb"
)

// A Mark is how a tracer in the guest tells of the system call that its tracee makes
// next: words of 8 bytes in its memory, of which Magic is the first and written last.
// Then there are the address and the length of a text, lines of /proc/kallsyms, and the
// registers of the call, a struct user_regs_struct.
type Mark struct {
	Call  string // name of the marked system call
	Addr  uint64 // of the words
	Magic uint64
}

// What follows the magic, in words.
const (
	markNames = 1
	markSize  = 2
	markRegs  = 3
	markWords = markRegs + len(userRegisters{})
)

// maxNames is how much of /proc/kallsyms is read: that of a kernel of everything has 14 MB.
const maxNames = 64 << 20

// Follow leads a guest that has not begun to run, whose gdbstub listens on the unix
// socket at path, to the system call that is marked, and through it. Where there are no
// symbols (nil) they are the kernel's own. Told is that of Record.
func Follow(ctx context.Context, path string, symbols *Symbols, mark Mark, told func(steps int)) (*Walk, *Symbols, error) {
	g, err := gdb.Dial(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	defer g.Close()
	want, names, err := marked(ctx, g, mark, symbols == nil)
	if err != nil {
		return nil, nil, err
	}
	if symbols == nil {
		if symbols, err = newSymbols(readMap(bytes.NewReader(names))); err != nil {
			return nil, nil, fmt.Errorf("read the kernel's own symbols, /proc/kallsyms: %w", err)
		}
	}
	name := mark.Call
	if other, ok := renamed[name]; ok {
		name = other
	}
	call, direct := symbols.entry(name)
	if call == 0 {
		return nil, nil, fmt.Errorf("the symbols have no function of the system call %s", name)
	}
	same := inRegisters
	if direct {
		same = inArguments
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
		return nil, nil, err
	}
	w, err := Record(ctx, g, symbols.Address("__switch_to_asm"), told)
	return w, symbols, err
}

// marked has the guest run until there is a mark, and reads what it says.
func marked(ctx context.Context, g *gdb.Stub, mark Mark, named bool) (call userRegisters, names []byte, err error) {
	if err := g.Watch(ctx, mark.Addr); err != nil {
		return call, nil, err
	}
	for {
		if err := g.Continue(ctx); err != nil {
			return call, nil, err
		}
		words, err := readWords(ctx, g, mark.Addr, markWords)
		if err != nil || words[0] != mark.Magic {
			continue // another program has something there
		}
		copy(call[:], words[markRegs:])
		if size := words[markSize]; named && size <= maxNames {
			if names, err = g.Memory(ctx, words[markNames], int(size)); err != nil {
				return call, nil, fmt.Errorf("read the kernel's own symbols: %w", err)
			}
		}
		return call, names, g.Unwatch(ctx, mark.Addr)
	}
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
		words, err := readWords(ctx, g, r.General[gdb.RDI], len(u))
		copy(u[:], words)
		return u, err
	}
	// The fourth is in rcx, as in any function.
	u[userRDI], u[userRSI], u[userRDX], u[userR10] = r.General[gdb.RDI], r.General[gdb.RSI], r.General[gdb.RDX], r.General[gdb.RCX]
	return u, nil
}

// readWords reads words of 8 bytes.
func readWords(ctx context.Context, g Guest, addr uint64, n int) ([]uint64, error) {
	data, err := g.Memory(ctx, addr, 8*n)
	if err != nil {
		return nil, err
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(data[8*i:])
	}
	return words, nil
}
