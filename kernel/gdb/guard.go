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
	cancel context.CancelFunc
	done   sync.WaitGroup
	err    error  // of the last connection that had to be ended
	closed func() // what is to be done at the end, or nil
}

var (
	// errRefused is what ended a connection.
	errRefused = errors.New("the connection was ended")
	errFile    = fmt.Errorf("QEMU's gdbstub asked gdb for a file of yours: %w", errRefused)
)

// NewGuard listens on a unix socket at path for gdb, and connects each that comes with the
// stub that listens at another path.
func NewGuard(ctx context.Context, path, stub string) (*Guard, error) {
	return listen(ctx, path, func(ctx context.Context, user net.Conn) error {
		err := relay(ctx, user, stub)
		if !errors.Is(err, errRefused) {
			return nil // one of the two has left
		}
		return err
	})
}

// listen serves each connection that comes, one after the other, as a stub does.
func listen(ctx context.Context, path string, serve func(context.Context, net.Conn) error) (*Guard, error) {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("make a socket for gdb: %w", err)
	}
	g := new(Guard)
	ctx, g.cancel = context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { listener.Close() })
	g.done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			if err := serve(ctx, conn); err != nil && ctx.Err() == nil {
				g.err = err
			}
			conn.Close()
			stop()
		}
	})
	return g, nil
}

// Close ends what there is of connections. The error says why one had to be ended.
func (g *Guard) Close() error {
	g.cancel()
	g.done.Wait()
	if g.closed != nil {
		g.closed()
	}
	return g.err
}

// relay goes between gdb and the stub until one of them ends.
func relay(ctx context.Context, user net.Conn, path string) error {
	stub, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	defer stub.Close()
	stop := context.AfterFunc(ctx, func() { stub.Close() })
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
				return errFile
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
