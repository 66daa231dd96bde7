package gdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A Guard stands between gdb and a gdbstub that is not trusted.
//
// gdb opens, writes, renames and removes files of its user's when the stub asks it to,
// without a question: a packet that begins with F is such a request (GDB manual, "File-I/O
// Remote Protocol Extension"). QEMU makes them of semihosting calls, of which an x86 guest
// has none; a guest that got hold of QEMU could. A connection with such a packet is ended.
type Guard struct {
	listener net.Listener
	stub     string
	cancel   context.CancelFunc
	done     sync.WaitGroup
	refused  error
}

// errRefused is what ended a connection.
var errRefused = errors.New("the connection was ended")

// NewGuard listens on a unix socket at path for gdb, and connects each that comes with the
// stub that listens at another path.
func NewGuard(ctx context.Context, path, stub string) (*Guard, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("make a socket for gdb: %w", err)
	}
	g := &Guard{listener: listener, stub: stub}
	ctx, g.cancel = context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { listener.Close() })
	g.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// One after the other, as the stub takes them.
			if err := g.connect(ctx, conn); errors.Is(err, errRefused) {
				g.refused = err
			}
		}
	})
	return g, nil
}

// Close ends what there is of connections. The error says what had to be refused.
func (g *Guard) Close() error {
	g.cancel()
	g.done.Wait()
	return g.refused
}

// connect relays between gdb and the stub until one of them ends.
func (g *Guard) connect(ctx context.Context, user net.Conn) error {
	defer user.Close()
	stub, err := (&net.Dialer{}).DialContext(ctx, "unix", g.stub)
	if err != nil {
		return err
	}
	defer stub.Close()
	stop := context.AfterFunc(ctx, func() { user.Close(); stub.Close() })
	defer stop()
	var there sync.WaitGroup
	there.Go(func() {
		_, _ = io.Copy(stub, user) // what ends it ends the other way, too
		stub.Close()
	})
	err = answers(user, stub)
	user.Close()
	there.Wait()
	return err
}

// answers passes on what a stub sends, packet by packet. It lets nothing pass of which
// gdb could make another packet than it does.
func answers(user io.Writer, stub io.Reader) error {
	in := bufio.NewReaderSize(stub, maxPacket)
	for {
		c, err := in.ReadByte()
		if err != nil {
			return err
		}
		out := []byte{c}
		switch c {
		case '+', '-':
		case '$':
			if out, err = frame(in); err != nil {
				return err
			}
			if out[1] == 'F' {
				return fmt.Errorf("QEMU's gdbstub asked gdb for a file of yours: %w", errRefused)
			}
		default:
			return fmt.Errorf("QEMU's gdbstub sent %q where a packet begins: %w", c, errRefused)
		}
		if _, err := user.Write(out); err != nil {
			return err
		}
	}
}

// frame reads a packet from behind its $, and returns it whole, as it came. Two bytes
// that could end one are none of its data: a $, and a # as the length of a run.
func frame(in *bufio.Reader) ([]byte, error) {
	packet := []byte{'$'}
	var sum byte
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		run := len(packet) > 1 && packet[len(packet)-1] == '*'
		packet = append(packet, c)
		switch {
		case c == '$', run && c == '#', len(packet) > maxPacket:
			return nil, fmt.Errorf("QEMU's gdbstub sent %.20q, which is no packet: %w", packet, errRefused)
		case c == '#':
			var want [2]byte
			if _, err := io.ReadFull(in, want[:]); err != nil {
				return nil, err
			}
			if got := fmt.Sprintf("%02x", sum); !strings.EqualFold(got, string(want[:])) {
				return nil, fmt.Errorf("QEMU's gdbstub sent a packet whose sum is %s, and not %q: %w", got, want, errRefused)
			}
			return append(packet, want[:]...), nil
		}
		sum += c
	}
}
