//go:build linux

package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"lab/probe/trace"
	"lab/probe/wire"
)

const (
	// auditQueue is how many bytes of records may wait for us in the kernel.
	auditQueue = 1 << 20
	// auditQuiet is how long nothing comes once the kernel has sent all records: its
	// thread that does is woken by the first (kauditd_thread, kernel/audit.c).
	auditQuiet = 20 * time.Millisecond
	// auditEnd is how long we read on at most, when the container is gone.
	auditEnd = 2 * time.Second
)

// An auditLog receives the kernel's audit records as one of many who may
// (AUDIT_NLGRP_READLOG, Linux 3.16). It is no audit daemon, which there can be but one
// of: with one the kernel would print no record, and answer programs that send some in
// another way. A kernel that audits (audit=1) records that somebody joined, since Linux 5.9
// (audit_log_multicast); any other does not notice.
type auditLog struct {
	fd   int
	wake int // an eventfd that says that the container is gone
}

// newAuditLog gives nil where the kernel has no records or lets nobody read along: the
// capability for that came with it.
func newAuditLog() *auditLog {
	if last, err := capability.LastCap(); err != nil || last < capability.CAP_AUDIT_READ {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, auditQueue) // what there is will do
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.AUDIT_NLGRP_READLOG - 1)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil
	}
	return &auditLog{fd, wake}
}

// receive calls record for each record, until finish is called and nothing more comes,
// and says how often the kernel dropped some because we were too slow.
func (l *auditLog) receive(record func([]byte)) (dropped int) {
	buf := make([]byte, 16<<10) // a record has 8970 bytes at most (MAX_AUDIT_MESSAGE_LENGTH)
	events := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wake), Events: unix.POLLIN}}
	timeout, end := -1, time.Time{}
	for {
		n, err := unix.Poll(events, timeout)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			return dropped
		case len(events) == 2 && events[1].Revents != 0:
			events, timeout, end = events[:1], int(auditQuiet/time.Millisecond), time.Now().Add(auditEnd)
		case !end.IsZero() && time.Now().After(end):
			return dropped
		}
		size, from, err := unix.Recvfrom(l.fd, buf, 0)
		if errors.Is(err, unix.ENOBUFS) {
			dropped++
		}
		if err != nil {
			continue
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel
			if line := auditLine(buf[:size]); line != nil {
				record(line)
			}
		}
	}
}

// finish makes receive return after what has happened so far.
func (l *auditLog) finish() {
	_, _ = unix.Write(l.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// auditLine is a netlink message with a record as the audit daemon has it in its log,
// which ausearch(8) reads: "type=AVC msg=audit(1577836800.123:4): avc:  denied …". The
// length that its header says is wrong in some kernels, and the datagram is one message.
func auditLine(m []byte) []byte {
	if len(m) <= unix.SizeofNlMsghdr {
		return nil
	}
	kind := binary.NativeEndian.Uint16(m[4:])
	name := strings.TrimPrefix(trace.AuditType(kind), "AUDIT_")
	if name == "" {
		name = fmt.Sprintf("UNKNOWN[%d]", kind)
	}
	text := bytes.ReplaceAll(trimMessage(m[unix.SizeofNlMsghdr:]), []byte("\n"), []byte(" "))
	return fmt.Appendf(nil, "type=%s msg=%s", name, text)
}

// audit sends the records until log is finished.
func (c *container) audit(log *auditLog) {
	c.output.Go(func() {
		defer c.agent.guard()
		urgent()
		room, more := c.spec.MaxOutput, 0
		dropped := log.receive(func(line []byte) {
			if room <= 0 {
				more++
			}
			room = c.send(wire.TypeAudit, line, room-1) // the host adds a newline
		})
		if more > 0 {
			c.agent.note("%d audit records more than are kept", more)
		}
		if dropped > 0 {
			c.agent.note("audit records are missing: %d times they came faster than they were read", dropped)
		}
	})
}
