//go:build linux

package agent

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An instruction is one of eBPF's (Documentation/bpf/instruction-set.rst).
type instruction struct {
	code uint8
	regs uint8 // source in the high half, destination in the low
	off  int16
	imm  int32
}

// The operations that the device filter is made of.
const (
	opLoad32   = 0x61 // dst = *(u32 *)(src + off)
	opAnd      = 0x57 // dst &= imm
	opShift    = 0x77 // dst >>= imm
	opMove     = 0xb7 // dst = imm
	opSkipIf   = 0x15 // if dst == imm, skip off instructions
	opSkipIfNe = 0x55 // if dst != imm, skip off instructions
	opExit     = 0x95 // return r0
)

// Access types of struct bpf_cgroup_dev_ctx (linux/bpf.h).
const (
	accessMknod = 1
	deviceChar  = 2
)

// deviceFilter is the program that allows what version 1's devices.allow does:
// to make nodes of any device, and to use rules' character devices, a minor
// number of -1 meaning all. Its context has the access (in the high half) and
// the type (in the low), the major and the minor number.
func deviceFilter(rules [][2]int32) []instruction {
	const r0, r1, r2, r3, r4, r5 = 0, 1, 2, 3, 4, 5
	allow := []instruction{{opMove, r0, 0, 1}, {opExit, 0, 0, 0}}
	program := []instruction{
		{opLoad32, r1<<4 | r2, 0, 0},
		{opLoad32, r1<<4 | r3, 0, 0},
		{opLoad32, r1<<4 | r4, 4, 0},
		{opLoad32, r1<<4 | r5, 8, 0},
		{opAnd, r2, 0, 0xffff},
		{opShift, r3, 0, 16},
		{opSkipIfNe, r3, 2, accessMknod},
	}
	program = append(program, allow...)
	program = append(program, instruction{opSkipIf, r2, 2, deviceChar}, instruction{opMove, r0, 0, 0}, instruction{opExit, 0, 0, 0})
	for _, r := range rules {
		if r[1] >= 0 {
			program = append(program, instruction{opSkipIfNe, r4, 3, r[0]}, instruction{opSkipIfNe, r5, 2, r[1]})
		} else {
			program = append(program, instruction{opSkipIfNe, r4, 2, r[0]})
		}
		program = append(program, allow...)
	}
	return append(program, instruction{opMove, r0, 0, 0}, instruction{opExit, 0, 0, 0})
}

// attachDeviceFilter gives a cgroup2 the filter, for as long as it exists
// (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE since Linux 4.15).
func attachDeviceFilter(dir string, rules [][2]int32) error {
	program := deviceFilter(rules)
	license := []byte("GPL\x00")
	load := struct {
		kind, count    uint32
		program        uint64
		license        uint64
		level, size    uint32
		log            uint64
		version, flags uint32
	}{
		kind:    unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:   uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if errno == unix.EINVAL || errno == unix.ENOSYS { // as of a program, or a call, that it does not know
		return fmt.Errorf("load the device filter: %w (does the kernel have CONFIG_CGROUP_BPF, and is it Linux 4.15?)", errno)
	}
	if errno != 0 {
		return fmt.Errorf("load the device filter: %w", errno)
	}
	defer unix.Close(int(fd))
	group, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer group.Close()
	attach := struct{ target, program, kind, flags uint32 }{
		target:  uint32(group.Fd()),
		program: uint32(fd),
		kind:    unix.BPF_CGROUP_DEVICE,
	}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return fmt.Errorf("attach the device filter: %w", errno)
	}
	return nil
}
