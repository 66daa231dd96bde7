//go:build linux

package agent

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A logSocket receives what the container's processes send to /dev/log
// (syslog(3)). The agent makes it, the container's stage binds it to its name
// in the container, both hold the same socket.
type logSocket struct {
	fd      int
	closing atomic.Bool
}

func newLogSocket() (*logSocket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &logSocket{fd: fd}, nil
}

// bindLog gives the socket its name, where every user can send to it.
func bindLog(fd int, path string) error {
	_ = unix.Unlink(path) // of an image without a /dev of its own mounted
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	return unix.Chmod(path, 0o666)
}

// receive calls message for each datagram, without the NULs and newlines that
// senders end them with, until finish is called and nothing is left. A datagram
// longer than buf is cut.
func (l *logSocket) receive(buf []byte, message func([]byte)) {
	for {
		n, _, err := unix.Recvfrom(l.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		case n == 0 && l.closing.Load():
			return
		case n > 0:
			message(trimMessage(buf[:n]))
		}
	}
}

// finish makes receive return after what has been sent so far.
func (l *logSocket) finish() {
	l.closing.Store(true)
	// Receivers get what is queued first, then 0 bytes (shutdown(2)).
	_ = unix.Shutdown(l.fd, unix.SHUT_RD)
}

func trimMessage(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == 0 || b[len(b)-1] == '\n') {
		b = b[:len(b)-1]
	}
	return b
}
