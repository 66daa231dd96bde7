// Package gdb speaks the GDB Remote Serial Protocol with QEMU's gdbstub: it stops a
// guest at an address, looks at its registers and memory, and has it execute one
// instruction after the other.
//
// The protocol is in the GDB manual, appendix "GDB Remote Serial Protocol"; what
// QEMU has of it is in its docs/system/gdb.rst and gdbstub. A packet is $DATA#SUM,
// SUM being the sum of DATA's bytes modulo 256 in two hexadecimal digits; each is
// acknowledged with +, or asked for again with -.
package gdb

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

const (
	// maxPacket is the longest packet that is taken, in bytes. QEMU's own limit is
	// MAX_PACKET_LENGTH, 4096, without the escapes.
	maxPacket = 16 << 10
	// maxRead is how much memory is asked for at once, in bytes: twice that in digits.
	maxRead = 1024
)

// Registers are those of an x86-64 CPU that lab looks at.
type Registers struct {
	// General has rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 … r15: gdb's order.
	General [16]uint64
	RIP     uint64
	Flags   uint32
	FSBase  uint64
	GSBase  uint64
}

// Where registers are in General.
const (
	RAX = iota
	RBX
	RCX
	RDX
	RSI
	RDI
	RBP
	RSP
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

// A Stub is a connection with a gdbstub, for one goroutine.
type Stub struct {
	conn net.Conn
	in   *bufio.Reader
	buf  []byte // of the packet that was read last
}

// Dial connects with the gdbstub that listens on the unix socket at path, which stops
// the guest.
func Dial(ctx context.Context, path string) (*Stub, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect with QEMU's gdbstub: %w", err)
	}
	return newStub(conn), nil
}

func newStub(conn net.Conn) *Stub {
	return &Stub{conn: conn, in: bufio.NewReaderSize(conn, maxPacket)}
}

// Close lets go of the guest, which QEMU has stay as it is.
func (s *Stub) Close() error { return s.conn.Close() }

// Registers reads the registers of the CPU.
func (s *Stub) Registers(ctx context.Context) (Registers, error) {
	reply, err := s.ask(ctx, "g")
	if err != nil {
		return Registers{}, fmt.Errorf("read registers: %w", err)
	}
	r, err := registers(reply)
	if err != nil {
		return r, fmt.Errorf("read registers: %w", err)
	}
	return r, nil
}

// registers are those of a reply to g, of which QEMU has the order in
// gdb-xml/i386-64bit.xml: 16 general ones and rip of 8 bytes, eflags and six segments
// of 4, and the bases of fs and gs.
func registers(reply []byte) (r Registers, err error) {
	const size = 17*8 + 7*4 + 2*8
	if len(reply) < 2*size {
		return r, fmt.Errorf("the stub sent %d digits, and %d are wanted: is it an x86-64 machine?", len(reply), 2*size)
	}
	var b [size]byte
	if _, err := hex.Decode(b[:], reply[:2*size]); err != nil {
		return r, err
	}
	for i := range r.General {
		r.General[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	r.RIP = binary.LittleEndian.Uint64(b[16*8:])
	r.Flags = binary.LittleEndian.Uint32(b[17*8:])
	r.FSBase = binary.LittleEndian.Uint64(b[17*8+7*4:])
	r.GSBase = binary.LittleEndian.Uint64(b[17*8+7*4+8:])
	return r, nil
}

// Memory reads n bytes at a virtual address, by the page tables that are in use.
func (s *Stub) Memory(ctx context.Context, addr uint64, n int) ([]byte, error) {
	out := make([]byte, 0, n)
	for len(out) < n {
		at, want := addr+uint64(len(out)), min(n-len(out), maxRead)
		reply, err := s.ask(ctx, fmt.Sprintf("m%x,%x", at, want))
		if err == nil && len(reply) != 2*want {
			err = fmt.Errorf("the stub sent %d digits for %d bytes", len(reply), want)
		}
		if err == nil {
			out, err = hex.AppendDecode(out, reply)
		}
		if err != nil {
			return nil, fmt.Errorf("read memory at %#x: %w", at, err)
		}
	}
	return out, nil
}

// Break has the guest stop before it executes the instruction at an address; Clear
// takes that back.
func (s *Stub) Break(ctx context.Context, addr uint64) error {
	return s.breakpoint(ctx, "Z1", addr, 1)
}

// Clear is Break's contrary.
func (s *Stub) Clear(ctx context.Context, addr uint64) error {
	return s.breakpoint(ctx, "z1", addr, 1)
}

// Watch has the guest stop when anything was written to the 8 bytes at an address.
// Unwatch takes that back.
func (s *Stub) Watch(ctx context.Context, addr uint64) error {
	return s.breakpoint(ctx, "Z2", addr, 8)
}

// Unwatch is Watch's contrary.
func (s *Stub) Unwatch(ctx context.Context, addr uint64) error {
	return s.breakpoint(ctx, "z2", addr, 8)
}

// breakpoint requests one of a kind: 1 is of the hardware, which changes nothing in
// memory, 2 waits for writing.
func (s *Stub) breakpoint(ctx context.Context, request string, addr uint64, n int) error {
	reply, err := s.ask(ctx, fmt.Sprintf("%s,%x,%d", request, addr, n))
	if err == nil && string(reply) != "OK" {
		err = fmt.Errorf("the stub says %.20q", reply)
	}
	if err != nil {
		return fmt.Errorf("break at %#x: %w", addr, err)
	}
	return nil
}

// Continue has the guest run until it stops at a breakpoint.
func (s *Stub) Continue(ctx context.Context) error {
	if err := s.resume(ctx, "c"); err != nil {
		return fmt.Errorf("continue: %w", err)
	}
	return nil
}

// Step has the guest execute one instruction. QEMU lets no interrupt in and holds the
// clocks meanwhile.
func (s *Stub) Step(ctx context.Context) error {
	if err := s.resume(ctx, "s"); err != nil {
		return fmt.Errorf("step: %w", err)
	}
	return nil
}

func (s *Stub) resume(ctx context.Context, request string) error {
	reply, err := s.ask(ctx, request)
	switch {
	case err != nil:
		return err
	case reply[0] == 'W' || reply[0] == 'X':
		return errors.New("the guest ended")
	case reply[0] != 'T' && reply[0] != 'S':
		return fmt.Errorf("the stub says %.20q", reply)
	}
	return nil
}

// ask sends a request, and returns what is answered, which is good until the next.
func (s *Stub) ask(ctx context.Context, request string) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	reply, err := s.exchange(request)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return reply, err
}

func (s *Stub) exchange(request string) ([]byte, error) {
	if err := s.send(request); err != nil {
		return nil, err
	}
	reply, err := s.read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("QEMU ended")
	}
	if err != nil {
		return nil, err
	}
	if _, err := s.conn.Write([]byte{'+'}); err != nil {
		return nil, err
	}
	switch {
	case len(reply) == 0:
		return nil, fmt.Errorf("the stub does not know %.20q", request)
	case reply[0] == 'E' && len(reply) == 3:
		return nil, fmt.Errorf("the stub says %s", reply)
	}
	return reply, nil
}

// packet frames what is sent.
func packet(data string) []byte {
	out, sum := []byte{'$'}, byte(0)
	for _, c := range []byte(data) {
		if strings.IndexByte("$#}*", c) >= 0 {
			out, sum = append(out, '}'), sum+'}'
			c ^= 0x20
		}
		out, sum = append(out, c), sum+c
	}
	return fmt.Appendf(out, "#%02x", sum)
}

// read reads the next packet, beyond acknowledgements.
func (s *Stub) read() ([]byte, error) {
	for {
		c, err := s.in.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case c == '-':
			return nil, errors.New("the stub could not read the request")
		case c == '$':
			return s.data()
		case c != '+':
			return nil, fmt.Errorf("%q where a packet begins", c)
		}
	}
}

// data reads a packet from behind its $.
func (s *Stub) data() ([]byte, error) {
	s.buf = s.buf[:0]
	var sum byte
	for {
		c, err := s.in.ReadByte()
		if err != nil {
			return nil, err
		}
		if c == '#' {
			break
		}
		sum += c
		switch {
		case c == '}': // the next byte is escaped
			if c, err = s.in.ReadByte(); err != nil {
				return nil, err
			}
			sum += c
			c ^= 0x20
		case c == '*' && len(s.buf) > 0: // so many times the last one again
			n, err := s.in.ReadByte()
			if err != nil {
				return nil, err
			}
			if sum += n; n < ' ' || n > '~' {
				return nil, fmt.Errorf("a run of %q", n)
			}
			s.buf = append(s.buf, strings.Repeat(string(s.buf[len(s.buf)-1:]), int(n-29)-1)...)
			c = s.buf[len(s.buf)-1]
		}
		if len(s.buf) >= maxPacket {
			return nil, fmt.Errorf("a packet of more than %d bytes", maxPacket)
		}
		s.buf = append(s.buf, c)
	}
	var want [2]byte
	if _, err := io.ReadFull(s.in, want[:]); err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("%02x", sum); !strings.EqualFold(got, string(want[:])) {
		return nil, fmt.Errorf("a packet whose sum is %s, and not %q", got, want)
	}
	return s.buf, nil
}
