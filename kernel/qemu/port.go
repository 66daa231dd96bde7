package qemu

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
)

// maxUnread is how much of a port is kept for a reader that is behind.
const maxUnread = 32 << 20

// port is the host's end of a channel. A goroutine of its own empties the
// socket: QEMU holds back what a full socket does not take, and drops that
// when the guest powers off.
type port struct {
	f *os.File

	mu     sync.Mutex
	cond   sync.Cond
	queue  [][]byte
	unread int
	err    error // why no more is to come
	closed bool
	dead   bool // QEMU is gone: take all that is left
}

func newPort(f *os.File) *port {
	p := &port{f: f}
	p.cond.L = &p.mu
	return p
}

// pump moves bytes from the socket to the queue until the socket ends.
func (p *port) pump(exited <-chan struct{}) {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-exited:
			p.mu.Lock()
			p.dead = true
			p.cond.Broadcast()
			p.mu.Unlock()
		case <-stop:
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := p.f.Read(buf)
		p.mu.Lock()
		if n > 0 && !p.closed {
			p.queue = append(p.queue, append([]byte(nil), buf[:n]...))
			p.unread += n
		}
		if err != nil {
			p.err = ended(err)
			p.f.Close()
		}
		p.cond.Broadcast()
		for p.unread >= maxUnread && !p.closed && !p.dead && p.err == nil {
			p.cond.Wait()
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read returns what the guest sent; io.EOF after QEMU's end.
func (p *port) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for len(p.queue) == 0 && p.err == nil && !p.closed {
		p.cond.Wait()
	}
	if p.closed {
		return 0, os.ErrClosed
	}
	if len(p.queue) == 0 {
		return 0, p.err
	}
	n := copy(b, p.queue[0])
	if n == len(p.queue[0]) {
		p.queue = p.queue[1:]
	} else {
		p.queue[0] = p.queue[0][n:]
	}
	p.unread -= n
	p.cond.Broadcast()
	return n, nil
}

// Write sends to the guest. It waits while the guest does not read, and ends
// with QEMU.
func (p *port) Write(b []byte) (int, error) { return p.f.Write(b) }

// Close gives up the port: what the guest still sends is thrown away.
func (p *port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	p.closed, p.queue, p.unread = true, nil, 0
	p.cond.Broadcast()
	return nil
}

// drain copies the socket to w until the socket ends. A failing w loses
// output, never the guest.
func drain(w io.Writer, f *os.File) {
	defer f.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if n > 0 && w != nil {
			if _, werr := w.Write(buf[:n]); werr != nil {
				w = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// ended maps the ways a socket ends to io.EOF: QEMU that dies with unread
// input resets the connection.
func ended(err error) error {
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrClosed) {
		return io.EOF
	}
	return err
}
