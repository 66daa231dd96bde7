// Package origin finds out where a value came from: of a stretch of a kernel's
// execution, recorded instruction by instruction, it says which instruction made the
// value that is seen at its end, in which function, and who had called that.
//
// It goes backwards. A value in a register was put there by the last instruction that
// wrote the register: from another register or from memory, and then the search goes
// on with those, or by the instruction itself, and then that is where it came from.
// Which is which is decoded of the instruction, and what the addresses were is known,
// because every register was recorded at every step.
package origin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"lab/kernel/gdb"
)

// A Guest is stopped, and can be led on.
type Guest interface {
	Registers(context.Context) (gdb.Registers, error)
	Memory(ctx context.Context, addr uint64, n int) ([]byte, error)
	Step(context.Context) error
	Break(ctx context.Context, addr uint64) error
	Clear(ctx context.Context, addr uint64) error
	Continue(context.Context) error
}

// A Walk is what was executed: the registers before each instruction.
type Walk struct {
	Steps []gdb.Registers
	code  map[uint64]x86asm.Inst // at the addresses that were executed; without what cannot be decoded
}

// MaxSteps is how many instructions of a system call are followed.
const MaxSteps = 500_000

// Result is what the function returned, as an int.
func (w *Walk) Result() int32 { return int32(w.Steps[len(w.Steps)-1].General[gdb.RAX]) }

// longest is that of an x86 instruction, in bytes.
const longest = 15

// errLong is that there was no end within MaxSteps.
var errLong = errors.New("the kernel executed more instructions than are followed")

// Record follows a function of the kernel from its first instruction, where the guest
// has stopped, to the one after its return. Where the kernel switches to another
// task (at the address that is given), it lets the guest run until this one goes on.
// Told, which may be nil, is called now and then.
func Record(ctx context.Context, g Guest, switches uint64, told func(steps int)) (*Walk, error) {
	w := &Walk{code: map[uint64]x86asm.Inst{}}
	seen := map[uint64]bool{}
	top := uint64(0)
	for {
		r, err := g.Registers(ctx)
		if err != nil {
			return nil, err
		}
		sp := r.General[gdb.RSP]
		if len(w.Steps) == 0 {
			top = sp
		}
		w.Steps = append(w.Steps, r)
		if sp == top+8 { // the return address was taken off
			return w, nil
		}
		if len(w.Steps) > MaxSteps {
			return nil, fmt.Errorf("%w, %d", errLong, MaxSteps)
		}
		if told != nil && len(w.Steps)%1000 == 0 {
			told(len(w.Steps))
		}
		if !seen[r.RIP] {
			seen[r.RIP] = true
			if code, err := instruction(ctx, g, r.RIP); err == nil {
				if inst, err := x86asm.Decode(code, 64); err == nil {
					w.code[r.RIP] = inst
				}
			}
		}
		if r.RIP == switches && switches != 0 {
			err = away(ctx, g, sp)
		} else {
			err = g.Step(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

// instruction reads the bytes of one, of which the last may be those of a page that
// is not there.
func instruction(ctx context.Context, g Guest, addr uint64) ([]byte, error) {
	code, err := g.Memory(ctx, addr, longest)
	if err != nil {
		return g.Memory(ctx, addr, int(min(longest, 4096-addr%4096)))
	}
	return code, nil
}

// away lets others run until the task whose stack this is comes back from the switch.
func away(ctx context.Context, g Guest, sp uint64) error {
	word, err := g.Memory(ctx, sp, 8)
	if err != nil {
		return err
	}
	back := uint64(0)
	for i, b := range word {
		back |= uint64(b) << (8 * i)
	}
	if err := g.Break(ctx, back); err != nil {
		return err
	}
	for {
		if err := g.Continue(ctx); err != nil {
			return err
		}
		r, err := g.Registers(ctx)
		if err != nil {
			return err
		}
		if r.General[gdb.RSP] == sp+8 && r.RIP == back {
			return g.Clear(ctx, back)
		}
		// Another task; its breakpoint would hold it for ever.
		if err := errors.Join(g.Clear(ctx, back), g.Step(ctx), g.Break(ctx, back)); err != nil {
			return err
		}
	}
}

// thunk tells of a function that it stands in the place of an instruction, a return or a
// jump through a register (arch/x86/lib/retpoline.S).
func thunk(name string) bool { return strings.Contains(name, "_thunk") }

// Returned are the functions that returned the value, the first first.
func (w *Walk) Returned(o Origin, s *Symbols) (names []string) {
	for _, i := range o.passed {
		for i > 0 && thunk(s.function(w.Steps[i].RIP).Function) {
			i--
		}
		places := s.Places(w.Steps[i].RIP)
		names = append(names, places[len(places)-1].Function)
	}
	return names
}

// At is where an instruction is that was executed at step i, the innermost of functions
// that are inlined first, and behind that who had called it, up to the function at
// whose beginning the walk begins.
func (w *Walk) At(i int, s *Symbols) (at, callers []Place) {
	type frame struct {
		from, to uint64 // the call, and where it led
		sp       uint64 // where its return address is
	}
	var stack []frame
	// A frame is gone when the stack that it is on is above it. Interrupts and the like have
	// stacks of their own.
	const stackSize = 16 << 10 // THREAD_SIZE of x86-64 (arch/x86/include/asm/page_64_types.h)
	for k := 1; k <= i; k++ {
		before, sp := w.Steps[k-1], w.Steps[k].General[gdb.RSP]
		for len(stack) > 0 && stack[len(stack)-1].sp/stackSize == sp/stackSize && sp > stack[len(stack)-1].sp {
			stack = stack[:len(stack)-1]
		}
		if w.code[before.RIP].Op == x86asm.CALL {
			stack = append(stack, frame{before.RIP, w.Steps[k].RIP, sp})
		}
	}
	pos := w.Steps[i].RIP
	for k := len(stack); ; k-- {
		if at == nil {
			at = s.Places(pos)
		} else {
			callers = append(callers, s.Places(pos)...)
		}
		entered := w.Steps[0].RIP
		if k > 0 {
			entered = stack[k-1].to
		}
		if f := s.function(entered); f.Function != s.function(pos).Function && !thunk(f.Function) {
			callers = append(callers, Place{Function: f.Function, Jumped: true})
		}
		if k == 0 {
			return at, callers
		}
		pos = stack[k-1].from
	}
}
