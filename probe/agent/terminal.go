//go:build linux

package agent

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"lab/probe/wire"
)

// inputPair makes the two ends of an interactive command's input, the command's
// first: a pipe, or a socket through which the stage hands out its terminal.
func inputPair(tty bool) (ends [2]int, err error) {
	if tty {
		return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	err = unix.Pipe2(ends[:], unix.O_CLOEXEC)
	return ends, err
}

// takeTerminal makes a pseudo terminal of the container's own (pts(4)), as in it
// ttyname(3) finds it, passes its master to the agent through standard input, and
// makes it the controlling terminal of the session and all three standard files.
func takeTerminal(size wire.Window) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a terminal: open the container's /dev/ptmx: %w", err)
	}
	defer unix.Close(master)
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return fmt.Errorf("make a terminal: %w", err)
	}
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a terminal: %w", err)
	}
	defer unix.Close(slave)
	if err := setSize(master, size); err != nil {
		return fmt.Errorf("set the terminal's size: %w", err)
	}
	if err := unix.Sendmsg(0, []byte{0}, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("hand out the terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("set the terminal: %w", err)
		}
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make the terminal the session's: %w", err)
	}
	return nil
}

func setSize(fd int, w wire.Window) error {
	return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: w.Rows, Col: w.Cols})
}

// receiveTerminal gets what takeTerminal sends.
func receiveTerminal(socket int) (master int, err error) {
	defer unix.Close(socket)
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("the container sent none")
}

// attach connects the command's input, or its terminal, with the host.
func (c *container) attach(input int) error {
	tty := c.spec.Terminal.TTY
	if tty {
		master, err := receiveTerminal(input)
		if err != nil {
			return fmt.Errorf("get the container's terminal: %w", err)
		}
		input = master
		c.pump(master, wire.TypeStdout)
	}
	if c.agent.channel == nil {
		return errors.New("an interactive command needs a host that listens")
	}
	open := true
	c.agent.channel.listen(func(f wire.Frame) {
		var size wire.Window
		switch {
		case f.Type == wire.TypeResize && tty && f.Decode(&size) == nil:
			_ = setSize(input, size) // the terminal is gone with its command
		case f.Type == wire.TypeStdin && open && len(f.Payload) > 0:
			_, err := writeAll(input, f.Payload)
			open = err == nil // what the command does not want is thrown away
		case f.Type == wire.TypeStdin && open && tty:
			_, _ = writeAll(input, []byte{endOfFile})
		case f.Type == wire.TypeStdin && open:
			open = false
			_ = unix.Close(input)
		}
	})
	return nil
}

// endOfFile is the character that ends the input of a terminal that nobody has set
// otherwise, Control-D (termios(3), VEOF).
const endOfFile = 4
