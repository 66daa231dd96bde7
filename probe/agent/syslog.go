//go:build linux

package agent

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A logSocket receives what the container's processes send to /dev/log
// (syslog(3)). The agent makes it, the container's stage binds it to its name
// in the container, both hold the same socket.
type logSocket struct {
	fd int
}

func newLogSocket() (*logSocket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// A datagram then has its sender's credentials with it, an empty one too.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		_ = unix.Close(fd)
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
	credentials := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, control, _, _, err := unix.Recvmsg(l.fd, buf, credentials, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		case n == 0 && control == 0: // no datagram: it has been shut down
			return
		case n > 0:
			message(trimMessage(buf[:n]))
		}
	}
}

// finish makes receive return after what has been sent so far.
func (l *logSocket) finish() {
	// Receivers get what is queued first, then 0 bytes (shutdown(2)).
	_ = unix.Shutdown(l.fd, unix.SHUT_RD)
}

func trimMessage(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == 0 || b[len(b)-1] == '\n') {
		b = b[:len(b)-1]
	}
	return b
}
