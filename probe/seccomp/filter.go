package seccomp

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A Filter is what the kernel is given: a program of classic BPF over a struct
// seccomp_data, and the flags of seccomp(2).
type Filter struct {
	Program []bpf.RawInstruction
	Flags   uint
	// Chosen: the profile names the flags. Those of a profile that names none, which
	// runc chooses, can be done without on a kernel that does not have them.
	Chosen bool
}

// maxProgram is BPF_MAXINSNS.
const maxProgram = 4096

var errTooLong = fmt.Errorf("seccomp profile: its filter has more instructions than the %d that the kernel takes", maxProgram)

// Compile makes the filter of a profile, or of Docker's default where it is nil, for
// a container with some capabilities (CAP_CHOWN) on the running kernel. A filter
// without a program lets everything through.
func Compile(profile []byte, capabilities []string) (Filter, error) {
	s, err := Resolve(profile, capabilities)
	if err != nil {
		return Filter{}, fmt.Errorf("seccomp profile: %w", err)
	}
	if s == nil {
		return Filter{}, nil
	}
	f := Filter{Flags: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW}
	if len(s.Flags) > 0 {
		f.Chosen = true
		if f.Flags, err = flags(s.Flags); err != nil {
			return Filter{}, err
		}
	}
	list, err := policies(s)
	if err != nil {
		return Filter{}, err
	}
	program := assemble(list)
	if len(program) > maxProgram {
		return Filter{}, errTooLong
	}
	if f.Program, err = bpf.Assemble(program); err != nil {
		return Filter{}, fmt.Errorf("seccomp profile: assemble its filter: %w", err)
	}
	return f, nil
}

// Digest is that of the program's bytes, as the kernel of a little-endian machine has
// them (struct sock_filter).
func (f Filter) Digest() string {
	h := sha256.New()
	_ = binary.Write(h, binary.LittleEndian, f.Program) // a hash takes everything
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}

// Where a struct seccomp_data has its fields (linux/seccomp.h).
const (
	offNumber = 0
	offAudit  = 4
	offArgs   = 16 // six of 64 bits
)

func load(off uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: off, Size: 4} }

// assemble makes one program of the policies: a search tree over the numbers of each
// machine that the kernel may name. What it names besides is killed, as by libseccomp.
func assemble(list []policy) []bpf.Instruction {
	spans := map[uint32][]span{} // by audit
	for _, p := range list {
		spans[p.audit] = append(spans[p.audit], p.spans()...)
	}
	if own := spans[unix.AUDIT_ARCH_X86_64]; own[len(own)-1].from < x32Bit {
		spans[unix.AUDIT_ARCH_X86_64] = append(own, span{from: x32Bit, fallback: unix.SECCOMP_RET_KILL_THREAD})
	}
	program := []bpf.Instruction{load(offAudit)}
	for _, audit := range slices.Backward(slices.Sorted(maps.Keys(spans))) {
		part := append([]bpf.Instruction{load(offNumber)}, tree(spans[audit])...)
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: audit, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(part))})
		program = append(program, part...)
	}
	return append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_THREAD})
}

// A span is a range of numbers, up to the next one's, with the same answer.
type span struct {
	from     uint32
	rules    []rule
	fallback uint32
	narrow   bool
}

// spans are the policy's, in the order of their numbers, as few as there can be.
func (p policy) spans() []span {
	list := []span{{from: p.first, fallback: p.fallback, narrow: p.narrow}}
	add := func(s span) {
		last := &list[len(list)-1]
		if last.from == s.from {
			*last = s
			if len(list) < 2 {
				return
			}
			list = list[:len(list)-1]
			last = &list[len(list)-1]
		}
		if len(last.rules) > 0 || len(s.rules) > 0 || last.fallback != s.fallback {
			list = append(list, s)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(p.calls)) {
		s := span{from: p.first + n, rules: p.calls[n], fallback: p.fallback, narrow: p.narrow}
		if len(s.rules[0].when) == 0 {
			s.rules, s.fallback = nil, s.rules[0].answer
		}
		add(s)
		add(span{from: p.first + n + 1, fallback: p.fallback, narrow: p.narrow})
	}
	add(span{from: p.first + p.last + 1, fallback: p.beyond, narrow: p.narrow})
	return list
}

// tree finds the span of the number in the accumulator by halves. Each end of it
// returns an answer.
func tree(spans []span) []bpf.Instruction {
	if len(spans) == 1 {
		return spans[0].program()
	}
	low, high := tree(spans[:len(spans)/2]), tree(spans[len(spans)/2:])
	at := spans[len(spans)/2].from
	var program []bpf.Instruction
	if len(low) <= 255 {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: at, SkipTrue: uint8(len(low))})
	} else {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: at, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(low))})
	}
	return slices.Concat(program, low, high)
}

// program answers a call by its arguments.
func (s span) program() []bpf.Instruction {
	var program []bpf.Instruction
	for _, r := range s.rules {
		// From the back: where a condition is not met, all that follows is skipped.
		part := []bpf.Instruction{bpf.RetConstant{Val: r.answer}}
		for _, a := range slices.Backward(r.when) {
			part = append(compare(a, s.narrow, uint8(len(part))), part...)
		}
		program = append(program, part...)
	}
	return append(program, bpf.RetConstant{Val: s.fallback})
}

// comparisons are the operators, by the one of two that decides and whether it is
// turned round.
var comparisons = map[specs.LinuxSeccompOperator]struct {
	test bpf.JumpTest
	not  bool
}{
	specs.OpEqualTo:      {bpf.JumpEqual, false},
	specs.OpMaskedEqual:  {bpf.JumpEqual, false},
	specs.OpNotEqual:     {bpf.JumpEqual, true},
	specs.OpGreaterThan:  {bpf.JumpGreaterThan, false},
	specs.OpLessEqual:    {bpf.JumpGreaterThan, true},
	specs.OpGreaterEqual: {bpf.JumpGreaterOrEqual, false},
	specs.OpLessThan:     {bpf.JumpGreaterOrEqual, true},
}

// compare goes on where a condition is met, and else skips what is behind it. The
// filter's words have 32 bits: of an argument of 64 the upper one decides, unless it
// is the same.
func compare(a specs.LinuxSeccompArg, narrow bool, skip uint8) []bpf.Instruction {
	c := comparisons[a.Op]
	yes, no := uint8(0), skip
	if c.not {
		yes, no = skip, 0
	}
	value, mask := a.Value, ^uint64(0)
	if a.Op == specs.OpMaskedEqual {
		value, mask = a.ValueTwo&a.Value, a.Value
	}
	word := func(upper uint32) []bpf.Instruction {
		program := []bpf.Instruction{load(offArgs + 8*uint32(a.Index) + 4*upper)}
		if m := uint32(mask >> (32 * upper)); m != 1<<32-1 {
			program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: m})
		}
		return program
	}
	lower := append(word(0), bpf.JumpIf{Cond: c.test, Val: uint32(value), SkipTrue: yes, SkipFalse: no})
	if narrow {
		return lower
	}
	program, high, end := word(1), uint32(value>>32), uint8(len(lower))
	if c.test != bpf.JumpEqual {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: high, SkipTrue: 1 + end + yes})
	}
	program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: high, SkipFalse: end + no})
	return append(program, lower...)
}
