//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lab/probe"
	"lab/probe/wire"
)

// A channel is the guest's end of the line to the host. Its file descriptor
// blocks, and stays out of the Go runtime's poller: the drivers of old kernels
// do not wake every poller.
type channel struct {
	fd   int
	path string
	// acked is closed when the host has said that it has everything, or says no more.
	// It is nil until somebody listens.
	acked chan struct{}
}

// listen reads what the host says until its ack, which is the last.
func (c *channel) listen(take func(wire.Frame)) {
	c.acked = make(chan struct{})
	go func() {
		defer close(c.acked)
		for r := wire.NewReader(c); ; {
			f, err := r.Read()
			if err != nil || f.Type == wire.TypeAck {
				return
			}
			take(f)
		}
	}()
}

func (c *channel) Write(p []byte) (int, error) { return writeAll(c.fd, p) }

func (c *channel) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("read %s: %w", c.path, err)
		case n == 0:
			return 0, fmt.Errorf("read %s: the host has closed it", c.path)
		default:
			return n, nil
		}
	}
}

// awaitAck waits until the host has said that it has everything, limit at most.
// Power-off would throw away what the machine still holds of the last frames.
func (c *channel) awaitAck(limit time.Duration) {
	if c.acked == nil {
		c.listen(func(wire.Frame) {})
	}
	select {
	case <-c.acked:
	case <-time.After(limit):
	}
}

// openChannel opens the virtio-serial port called lab.0, or the second serial
// line when the kernel has no such port.
func openChannel() (*channel, error) {
	c, portErr := openPort()
	if portErr == nil {
		return c, nil
	}
	c, serialErr := openSerial("/dev/ttyS1")
	if serialErr == nil {
		return c, nil
	}
	return nil, errors.Join(portErr, serialErr)
}

func openPort() (*channel, error) {
	// Without the device and its driver there is nothing to wait for; the driver
	// finds the ports and their names a little after it found the device.
	limit := 10 * time.Second
	if !hasVirtioSerial() {
		limit = 200 * time.Millisecond
	}
	path, err := waitFor(limit, findPort)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open port %s: %w", path, err)
	}
	return &channel{fd: fd, path: path}, nil
}

// hasVirtioSerial says whether the virtio bus has a console device, number 3 of
// the virtio specification, and a driver for it.
func hasVirtioSerial() bool {
	if _, err := os.Stat("/sys/bus/virtio/drivers/virtio_console"); err != nil {
		return false
	}
	ids, _ := filepath.Glob("/sys/bus/virtio/devices/*/device") // the pattern is good
	for _, id := range ids {
		if b, err := os.ReadFile(id); err == nil && strings.TrimSpace(string(b)) == "0x0003" {
			return true
		}
	}
	return false
}

func findPort() (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(b)) != probe.Port {
			continue
		}
		path := "/dev/" + filepath.Base(filepath.Dir(name))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find virtio-serial port %s: no such port (does the kernel have CONFIG_VIRTIO_CONSOLE?)", probe.Port)
}

// openSerial opens a serial line and takes every conversion off it.
func openSerial(path string) (*channel, error) {
	// Not to wait for a carrier, the line is opened without blocking.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open serial line %s: %w", path, err)
	}
	if err := setRaw(fd); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set serial line %s raw: %w", path, err)
	}
	return &channel{fd: fd, path: path}, nil
}

// setRaw does what cfmakeraw does (termios(3)), at 115200 baud, ignoring modem
// lines, and lets reads and writes block.
func setRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB | unix.CBAUD | unix.CRTSCTS
	t.Cflag |= unix.CS8 | unix.CLOCAL | unix.CREAD | unix.B115200
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// writeAll writes all of p: a virtio-serial port takes 32 KiB at a time.
func writeAll(fd int, p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(fd, p[done:])
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}
