// Package trace is what a container's processes asked of the kernel: the tracer
// that writes it down (Follow, Linux on x86-64), and the format it is written in.
//
// The format is the one of strace -f, with processes numbered in the order in
// which they appeared, threads too:
//
//	1 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3
//	1 stat("/nothing", 0x7ffc1b2f3a40) = -1 ENOENT (no such file or directory)
//	2 --- SIGSEGV ---
//	2 +++ killed by SIGSEGV +++
//	1 +++ exited with 0 +++
//
// A line is a system call that has returned, in the order of the returns, or what
// became of a process. Everything in it is printable ASCII: other bytes of a
// string are escaped as in C, and a string that goes on ends with "...".
package trace

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxBytes is how much of a trace is kept, in bytes; MaxLine is the longest line.
const (
	MaxBytes = 8 << 20
	MaxLine  = 16 << 10
)

// A Mark is a system call of which the tracer tells who debugs the guest before it is
// made: by writing to memory at MarkAddr, for which a debugger can wait. There are words
// of 8 bytes, the last one to be written first:
//
//	0  MarkMagic
//	1  where the kernel's functions are, lines of /proc/kallsyms, and
//	2  how many bytes that is; 0 where the kernel does not tell
//	3  27 registers that the call is made with, the kernel's struct user_regs_struct
type Mark struct {
	PID  int    `json:"pid"`  // number of the process or thread in the trace
	Call string `json:"call"` // name of the call
	N    int    `json:"n"`    // which of those, from 1
}

// What a debugger waits for. The address is one that programs do not have by themselves,
// the magic is "lab mark".
const (
	MarkAddr  = 0x6c6162000000
	MarkMagic = 0x6b72616d2062616c
)

// An Event is one line of a trace: a system call, or a Said.
type Event struct {
	PID  int    // number of the process or thread, from 1
	Name string // of the call
	Args []string
	// Result is what the call returned: a number, or "?" where it did not return,
	// or was interrupted.
	Result string
	Errno  string // "ENOENT", "ERESTARTSYS"; empty when it went well
	Text   string // what the errno means

	Said string // "+++ exited with 0 +++", "--- SIGSEGV ---"; then there is no Name
}

// String is the event's line, without a newline.
func (e Event) String() string {
	if e.Name == "" {
		return fmt.Sprintf("%d %s", e.PID, e.Said)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s(%s) = %s", e.PID, e.Name, strings.Join(e.Args, ", "), e.Result)
	if e.Errno != "" {
		b.WriteString(" " + e.Errno)
	}
	if e.Text != "" {
		b.WriteString(" (" + e.Text + ")")
	}
	return b.String()
}

// Parse reads a line, with or without its newline. What it returns, String writes
// as it was, but for the spaces with which strace fills columns.
func Parse(line string) (Event, error) {
	line = strings.TrimSuffix(line, "\n")
	bad := func(what string) (Event, error) { return Event{}, fmt.Errorf("read trace: %s: %.80q", what, line) }
	if len(line) > MaxLine {
		return bad("line is too long")
	}
	number, rest, ok := strings.Cut(line, " ")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid < 1 || strconv.Itoa(pid) != number {
		return bad("line begins with no process number")
	}
	e := Event{PID: pid}
	rest = strings.TrimLeft(rest, " ")
	for _, mark := range []string{"+++", "---"} {
		if strings.HasPrefix(rest, mark+" ") && strings.HasSuffix(rest, " "+mark) && len(rest) > 8 {
			e.Said = rest
			return e, nil
		}
	}
	e.Name, rest, ok = strings.Cut(rest, "(")
	if !ok || !isWord(e.Name) {
		return bad("neither a call nor a signal nor an end")
	}
	if e.Args, rest, err = splitArgs(rest); err != nil {
		return bad(err.Error())
	}
	if rest, ok = strings.CutPrefix(" "+strings.TrimLeft(rest, " "), " = "); !ok {
		return bad("the call has no result")
	}
	rest, e.Text, ok = strings.Cut(rest, " (")
	if ok {
		if e.Text, ok = strings.CutSuffix(e.Text, ")"); !ok || e.Text == "" {
			return bad("the result's text does not end")
		}
	}
	e.Result, e.Errno, ok = strings.Cut(rest, " ")
	if e.Result == "" || ok && !isWord(e.Errno) {
		return bad("the result is none")
	}
	return e, nil
}

// splitArgs splits what is between the parentheses at commas, but not within
// strings, brackets and comments, and returns what follows them.
func splitArgs(s string) (args []string, rest string, err error) {
	depth, start := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			for i++; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
			}
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth > 0 {
				depth--
				continue
			}
			if s[i] != ')' {
				return nil, "", errors.New("a bracket is closed that was not opened")
			}
			if i > 0 {
				args = append(args, s[start:i])
			}
			return args, s[i+1:], nil
		case ',':
			if depth == 0 && strings.HasPrefix(s[i:], ", ") {
				args = append(args, s[start:i])
				start = i + 2
			}
		}
	}
	return nil, "", errors.New("the arguments do not end")
}

func isWord(s string) bool {
	for _, c := range []byte(s) {
		if c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// quote is a string of the traced program as a line shows it; more says that it
// goes on.
func quote(b []byte, more bool) string {
	var s strings.Builder
	s.WriteByte('"')
	for i, c := range b {
		switch {
		case c == '"' || c == '\\':
			s.Write([]byte{'\\', c})
		case c == '\n':
			s.WriteString(`\n`)
		case c == '\t':
			s.WriteString(`\t`)
		case c == '\r':
			s.WriteString(`\r`)
		case c >= ' ' && c < 0x7f:
			s.WriteByte(c)
		case i+1 < len(b) && b[i+1] >= '0' && b[i+1] <= '7':
			fmt.Fprintf(&s, `\%03o`, c)
		default:
			fmt.Fprintf(&s, `\%o`, c)
		}
	}
	s.WriteByte('"')
	if more {
		s.WriteString("...")
	}
	return s.String()
}
