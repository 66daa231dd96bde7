package trace

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// What a line shows of what is longer.
const (
	maxString = 256 // bytes of a string or a path
	maxData   = 64  // bytes of data that are read or written
	maxVector = 32  // elements of an array
)

// A call is a system call that has begun.
type call struct {
	name    string
	kinds   []string // of its arguments, see signatures
	raw     [6]uint64
	args    []string // "" for those that are known at the end only
	foreign bool     // of another ABI: its arguments are numbers
}

// enter reads a call's registers and what goes into it.
func (f *follower) enter(tid int, regs *unix.PtraceRegs) call {
	c := call{raw: [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}}
	number := regs.Orig_rax
	const x32, compatCode = 0x40000000, 0x23 // the code segment of 32-bit programs (arch/x86/include/asm/segment.h)
	switch {
	case regs.Cs == compatCode || string(read(tid, regs.Rip-2, 2)) == "\xcd\x80": // int $0x80, of any program
		c.foreign = true
		c.raw = [6]uint64{regs.Rbx, regs.Rcx, regs.Rdx, regs.Rsi, regs.Rdi, regs.Rbp}
		for i := range c.raw {
			c.raw[i] = uint64(uint32(c.raw[i]))
		}
		c.name = "i386_" + callName(arch.I386.SyscallNumbers, number)
	case number != math.MaxUint64 && number&x32 != 0:
		c.foreign = true
		c.name = "x32_" + callName(arch.X86_64.SyscallNumbers, number&^x32)
	default:
		c.name = callName(arch.X86_64.SyscallNumbers, number)
	}
	kinds, known := signatures[c.name]
	if !known {
		kinds = "x x x x x x"
	}
	c.kinds = strings.Fields(kinds)
	c.args = make([]string, len(c.kinds))
	for i := range c.kinds {
		c.args[i] = f.in(tid, &c, i)
	}
	return c
}

// callName is the name of a call: the table is Linux's, as go-seccomp-bpf has it.
func callName(table map[int]string, number uint64) string {
	if number <= math.MaxInt32 {
		if name, ok := table[int(number)]; ok {
			return name
		}
	}
	return fmt.Sprintf("syscall_%#x", number)
}

// event is the call's line. What it gives back is an address where its end is not
// known.
func (c *call) event(number int, result string) Event {
	for i, a := range c.args {
		if a == "" {
			c.args[i] = pointer(c.raw[i])
		}
	}
	return Event{PID: number, Name: c.name, Args: c.args, Result: result}
}

// The results between the kernel and itself, which a program never sees
// (include/linux/errno.h).
var restarts = map[int64]string{-512: "ERESTARTSYS", -513: "ERESTARTNOINTR", -514: "ERESTARTNOHAND", -516: "ERESTART_RESTARTBLOCK"}

// leave is the line of a call that has ended.
func (f *follower) leave(t *thread, regs *unix.PtraceRegs) Event {
	c, result := &t.call, int64(regs.Rax)
	if c.foreign {
		result = int64(int32(result))
	}
	failed := result < 0 && result >= -4095
	for i, a := range c.args {
		if a == "" && !failed {
			c.args[i] = f.out1(t.tid, c, i, result)
		}
	}
	switch name := restarts[result]; {
	case name != "":
		e := c.event(t.number, "?")
		e.Errno = name
		return e
	case failed:
		errno := unix.Errno(-result)
		if c.name == "ptrace" && errno == unix.EPERM {
			f.note("a traced process asked for ptrace, which the trace has taken: it was told EPERM")
		}
		e := c.event(t.number, "-1")
		e.Errno, e.Text = errnoText(errno)
		return e
	case c.addressed():
		return c.event(t.number, fmt.Sprintf("%#x", uint64(result)))
	}
	if c.name == "socket" && c.raw[0] == unix.AF_NETLINK && len(f.netlink) < 1<<12 {
		if name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", t.tid, result)); err == nil {
			f.netlink[name] = int(c.raw[2])
		}
	}
	return c.event(t.number, fmt.Sprint(result))
}

// addressed says whether the call returns an address.
func (c *call) addressed() bool {
	return c.name == "mmap" || c.name == "brk" || c.name == "mremap" || c.name == "shmat"
}

// protocol says which netlink protocol the descriptor speaks, if any.
func (f *follower) protocol(tid int, fd uint64) (int, bool) {
	if len(f.netlink) == 0 {
		return 0, false
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, int32(fd)))
	p, ok := f.netlink[name]
	return p, ok && err == nil
}

func errnoText(e unix.Errno) (name, text string) {
	if name = unix.ErrnoName(e); name == "" {
		return fmt.Sprintf("E%d", int(e)), ""
	}
	text = e.Error()
	return name, strings.ToUpper(text[:1]) + text[1:]
}

func pointer(p uint64) string {
	if p == 0 {
		return "NULL"
	}
	return fmt.Sprintf("%#x", p)
}

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func half(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// stringAt is the string that ends with a NUL at addr.
func stringAt(tid int, addr uint64) string {
	b := read(tid, addr, maxString)
	if b == nil {
		return pointer(addr)
	}
	for i, c := range b {
		if c == 0 {
			return quote(b[:i], false)
		}
	}
	return quote(b, true)
}

// data is n bytes at addr.
func data(tid int, addr, n uint64) string {
	b := read(tid, addr, int(min(n, maxData)))
	if b == nil && n > 0 {
		return pointer(addr)
	}
	return quote(b, n > uint64(len(b)))
}

// vector are the strings that an array of pointers points to.
func vector(tid int, addr uint64) string {
	if addr == 0 {
		return "NULL"
	}
	var list []string
	for ; ; addr += 8 {
		b := read(tid, addr, 8)
		switch {
		case len(b) < 8:
			return "[" + strings.Join(append(list, pointer(addr)), ", ") + "]"
		case word(b) == 0:
			return "[" + strings.Join(list, ", ") + "]"
		case len(list) == maxVector:
			return "[" + strings.Join(append(list, "..."), ", ") + "]"
		}
		list = append(list, stringAt(tid, word(b)))
	}
}

// variables counts the pointers of an array: of an environment no more is shown.
func variables(tid int, addr uint64) string {
	n := 0
	for ; n < 1<<12; n++ {
		if b := read(tid, addr+uint64(n)*8, 8); len(b) < 8 || word(b) == 0 {
			break
		}
	}
	return fmt.Sprintf("[/* %d vars */]", n)
}

// in is argument i as it is known when the call begins; "" is for later.
func (f *follower) in(tid int, c *call, i int) string {
	v := c.raw[i]
	switch kind := c.kinds[i]; kind {
	case "i":
		return fmt.Sprint(int32(v))
	case "l":
		return fmt.Sprint(int64(v))
	case "u":
		return fmt.Sprint(v)
	case "x":
		return fmt.Sprintf("%#x", v)
	case "p":
		return pointer(v)
	case "m":
		return fmt.Sprintf("%#o", uint32(v))
	case "D":
		if int32(v) == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
		return fmt.Sprint(int32(v))
	case "k":
		if v == 0 {
			return "0"
		}
		return signalName(unix.Signal(v))
	case "s":
		return stringAt(tid, v)
	case "v":
		return vector(tid, v)
	case "e":
		return variables(tid, v)
	case "w":
		if p, ok := f.protocol(tid, c.raw[0]); ok {
			return netlink(read(tid, v, int(min(c.raw[i+1], maxNetlink))), p)
		}
		return data(tid, v, c.raw[i+1])
	case "A":
		return sockaddr(read(tid, v, int(min(c.raw[i+1], maxSockaddr))), v)
	case "h":
		return f.message(tid, c.raw[0], v, -1)
	case "r", "a", "L", "H", "t", "P", "W":
		if v == 0 {
			return "NULL"
		}
		return ""
	default:
		return sets[kind].text(v)
	}
}

// out1 is argument i, which the call has filled in.
func (f *follower) out1(tid int, c *call, i int, result int64) string {
	v := c.raw[i]
	switch c.kinds[i] {
	case "r":
		if p, ok := f.protocol(tid, c.raw[0]); ok {
			return netlink(read(tid, v, int(min(result, maxNetlink))), p)
		}
		return data(tid, v, uint64(result))
	case "a":
		b := read(tid, c.raw[i+1], 4)
		if len(b) < 4 {
			break
		}
		return sockaddr(read(tid, v, int(min(half(b), maxSockaddr))), v)
	case "L":
		if b := read(tid, v, 4); len(b) == 4 {
			return fmt.Sprintf("[%d]", half(b))
		}
	case "H":
		return f.message(tid, c.raw[0], v, result)
	case "t":
		// struct stat of x86-64 (arch/x86/include/uapi/asm/stat.h).
		if b := read(tid, v, 56); len(b) == 56 {
			return fmt.Sprintf("{st_mode=%s, st_size=%d, ...}", fileMode(half(b[24:])), word(b[48:]))
		}
	case "P":
		if b := read(tid, v, 8); len(b) == 8 {
			return fmt.Sprintf("[%d, %d]", int32(half(b)), int32(half(b[4:])))
		}
	case "W":
		if b := read(tid, v, 4); len(b) == 4 && result > 0 {
			return waitStatus(unix.WaitStatus(half(b)))
		}
	}
	return pointer(v)
}

func fileMode(m uint32) string {
	kind := map[uint32]string{unix.S_IFREG: "S_IFREG", unix.S_IFDIR: "S_IFDIR", unix.S_IFLNK: "S_IFLNK", unix.S_IFCHR: "S_IFCHR",
		unix.S_IFBLK: "S_IFBLK", unix.S_IFIFO: "S_IFIFO", unix.S_IFSOCK: "S_IFSOCK"}[m&unix.S_IFMT]
	if kind == "" {
		return fmt.Sprintf("%#o", m)
	}
	return fmt.Sprintf("%s|%#o", kind, m&^unix.S_IFMT)
}

func waitStatus(s unix.WaitStatus) string {
	switch {
	case s.Exited():
		return fmt.Sprintf("[{WIFEXITED(s) && WEXITSTATUS(s) == %d}]", s.ExitStatus())
	case s.Signaled():
		return fmt.Sprintf("[{WIFSIGNALED(s) && WTERMSIG(s) == %s}]", signalName(s.Signal()))
	}
	return fmt.Sprintf("[%#x]", uint32(s))
}
