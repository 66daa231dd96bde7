//go:build linux

package agent

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lab/probe/wire"
)

// awaitWake waits until the host has the guest go on. Meanwhile it may have been
// saved, and be a copy by now: the host says what must not be as it was.
func awaitWake(c *channel) error {
	f, err := wire.NewReader(c).Read()
	if err != nil {
		return fmt.Errorf("wait to be woken: %w", err)
	}
	if f.Type != wire.TypeWake {
		return fmt.Errorf("wait to be woken: the host sent %s", f.Type)
	}
	var w wire.Wake
	if err := f.Decode(&w); err != nil {
		return err
	}
	if err := addEntropy(w.Entropy); err != nil {
		return fmt.Errorf("wake up: %w", err)
	}
	ts := unix.NsecToTimespec(w.Time.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("wake up: set the clock to %s: %w", w.Time.Format(time.RFC3339), err)
	}
	return nil
}

// addEntropy has the kernel's random numbers depend on b from now on. Written
// bytes go into all pools at once, in every version of Linux, and RNDADDENTROPY
// has them count; RNDRESEEDCRNG, of Linux 4.14 and newer, has the generator take
// them now, not minutes later (random(4)).
func addEntropy(b []byte) error {
	fd, err := unix.Open("/dev/urandom", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/urandom: %w", err)
	}
	defer unix.Close(fd)
	if _, err := writeAll(fd, b); err != nil {
		return fmt.Errorf("write /dev/urandom: %w", err)
	}
	// struct rand_pool_info: entropy in bits, size in bytes, the bytes.
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(b)))
	info = append(binary.NativeEndian.AppendUint32(info, uint32(len(b))), b...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("add entropy: %w", errno)
	}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDRESEEDCRNG, 0)
	return nil
}
