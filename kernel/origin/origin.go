package origin

import (
	"golang.org/x/arch/x86/x86asm"

	"lab/kernel/gdb"
)

// An Origin is where a value came from.
type Origin struct {
	Step   int   // of the instruction that made it, in Walk.Steps; -1 where it was there before the walk
	passed []int // the steps, the first first, at which functions returned it
}

// place is where a value is: in a register, or in memory.
type place struct {
	memory bool
	reg    int // of gdb.Registers.General
	addr   uint64
	size   int // in bytes
}

// OfResult is the origin of what the walk's function returned.
func (w *Walk) OfResult() Origin { return w.trace(len(w.Steps)-1, place{reg: gdb.RAX, size: 4}) }

// OfStore is the origin of what a function wrote to memory, but for its stack: the
// last 4 bytes with that value between two addresses. ok tells whether it did.
func (w *Walk) OfStore(from, to uint64, value int32) (o Origin, ok bool) {
	for i := len(w.Steps) - 2; i >= 0; i-- {
		r := w.Steps[i]
		inst, known := w.code[r.RIP]
		if r.RIP < from || r.RIP >= to || !known || inst.Op != x86asm.MOV || inst.MemBytes != 4 {
			continue
		}
		m, ok := inst.Args[0].(x86asm.Mem)
		if !ok || m.Base == x86asm.RSP || m.Base == x86asm.RBP {
			continue
		}
		switch src := inst.Args[1].(type) {
		case x86asm.Reg:
			if n := general(src); n >= 0 && int32(r.General[n]) == value {
				return w.trace(i, place{reg: n, size: 4}), true
			}
		case x86asm.Imm:
			if int32(src) == value {
				return Origin{Step: i}, true
			}
		}
	}
	return Origin{}, false
}

// trace goes back from the state before step i.
func (w *Walk) trace(i int, at place) Origin {
	var o Origin
	for i--; i >= 0; i-- {
		r := &w.Steps[i]
		inst, known := w.code[r.RIP]
		if known && inst.Op == x86asm.RET && !at.memory && at.reg == gdb.RAX {
			o.passed = append([]int{i}, o.passed...)
		}
		next, made := at, false
		switch {
		case !known:
			made = !at.memory && r.General[at.reg] != w.Steps[i+1].General[at.reg]
		default:
			next, made = back(inst, r, &w.Steps[i+1], at)
		}
		if made {
			o.Step = i
			return o
		}
		at = next
	}
	o.Step = -1
	return o
}

// reads are instructions whose first operand is not written.
var reads = map[x86asm.Op]bool{
	x86asm.CMP: true, x86asm.TEST: true, x86asm.PUSH: true, x86asm.JMP: true, x86asm.CALL: true, x86asm.RET: true,
	x86asm.BT: true, x86asm.NOP: true, x86asm.MUL: true, x86asm.DIV: true, x86asm.IDIV: true, x86asm.INVLPG: true,
}

// copies are instructions that copy their second operand to the first.
var copies = map[x86asm.Op]bool{x86asm.MOV: true, x86asm.MOVZX: true, x86asm.MOVSX: true, x86asm.MOVSXD: true}

// back says where a value was before an instruction that is there behind it, or that
// the instruction made it.
func back(inst x86asm.Inst, before, after *gdb.Registers, at place) (was place, made bool) {
	if inst.Args[0] == nil {
		// cdqe, rep movs and the like.
		if extends := inst.Op == x86asm.CDQE || inst.Op == x86asm.CWDE; extends || at.memory {
			return at, false
		}
		return at, before.General[at.reg] != after.General[at.reg]
	}
	switch inst.Op {
	case x86asm.PUSH:
		if sp := after.General[gdb.RSP]; at.memory && overlaps(at, sp, 8) {
			return source(inst, inst.Args[0], before, at)
		}
		return at, false
	case x86asm.CALL:
		return at, at.memory && overlaps(at, after.General[gdb.RSP], 8)
	case x86asm.POP:
		if n, ok := register(inst.Args[0]); ok && !at.memory && at.reg == n {
			return place{memory: true, addr: before.General[gdb.RSP], size: at.size}, false
		}
	case x86asm.XCHG:
		for i := range 2 {
			if writes(inst, inst.Args[i], before, at) {
				return source(inst, inst.Args[1-i], before, at)
			}
		}
		return at, false
	}
	switch {
	case reads[inst.Op] || !writes(inst, inst.Args[0], before, at):
		// Something that it writes besides, such as rdx of a division.
		return at, !at.memory && before.General[at.reg] != after.General[at.reg]
	case copies[inst.Op]:
		return source(inst, inst.Args[1], before, at)
	case conditional(inst.Op):
		was, made := source(inst, inst.Args[1], before, at)
		if !was.memory && !at.memory && before.General[was.reg] != after.General[at.reg] {
			return at, false // the condition did not hold
		}
		if was.memory && before.General[at.reg] == after.General[at.reg] {
			return at, false // as far as one can see
		}
		return was, made
	}
	return at, true
}

// conditional tells whether it is a cmov.
func conditional(op x86asm.Op) bool {
	name := op.String()
	return len(name) > 4 && name[:4] == "CMOV"
}

// source is the place that an operand is, or else the value was made.
func source(inst x86asm.Inst, arg x86asm.Arg, r *gdb.Registers, at place) (place, bool) {
	if n, ok := register(arg); ok {
		return place{reg: n, size: at.size}, false
	}
	if m, ok := arg.(x86asm.Mem); ok {
		return place{memory: true, addr: address(inst, m, r), size: min(at.size, max(1, inst.MemBytes))}, false
	}
	return at, true
}

// writes tells whether an operand, which is written, is where the value is.
func writes(inst x86asm.Inst, arg x86asm.Arg, r *gdb.Registers, at place) bool {
	if n, ok := register(arg); ok {
		return !at.memory && at.reg == n
	}
	m, ok := arg.(x86asm.Mem)
	return ok && at.memory && overlaps(at, address(inst, m, r), max(1, inst.MemBytes))
}

func overlaps(at place, addr uint64, n int) bool {
	return at.addr < addr+uint64(n) && addr < at.addr+uint64(at.size)
}

// address is what a memory operand refers to.
func address(inst x86asm.Inst, m x86asm.Mem, r *gdb.Registers) uint64 {
	a := uint64(m.Disp)
	switch n := general(m.Base); {
	case m.Base == x86asm.RIP:
		a += r.RIP + uint64(inst.Len)
	case n >= 0:
		a += r.General[n]
	}
	if n := general(m.Index); n >= 0 {
		a += r.General[n] * uint64(m.Scale)
	}
	switch m.Segment {
	case x86asm.FS:
		a += r.FSBase
	case x86asm.GS:
		a += r.GSBase
	}
	return a
}

func register(arg x86asm.Arg) (int, bool) {
	r, ok := arg.(x86asm.Reg)
	if !ok {
		return 0, false
	}
	n := general(r)
	return n, n >= 0
}

// general is where a register, or the part of one, is in gdb's order; -1 for others.
func general(r x86asm.Reg) int {
	// x86asm has them in the order in which instructions number them.
	order := [16]int{gdb.RAX, gdb.RCX, gdb.RDX, gdb.RBX, gdb.RSP, gdb.RBP, gdb.RSI, gdb.RDI, gdb.R8, gdb.R9, gdb.R10, gdb.R11, gdb.R12, gdb.R13, gdb.R14, gdb.R15}
	switch {
	case r >= x86asm.RAX && r <= x86asm.R15:
		return order[r-x86asm.RAX]
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return order[r-x86asm.EAX]
	case r >= x86asm.AX && r <= x86asm.R15W:
		return order[r-x86asm.AX]
	case r >= x86asm.AL && r <= x86asm.BL:
		return order[r-x86asm.AL]
	case r >= x86asm.AH && r <= x86asm.BH:
		return order[r-x86asm.AH]
	case r >= x86asm.SPB && r <= x86asm.DIB:
		return order[4+r-x86asm.SPB]
	case r >= x86asm.R8B && r <= x86asm.R15B:
		return order[8+r-x86asm.R8B]
	}
	return -1
}
