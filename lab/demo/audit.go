//go:build linux

package demo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ProbeName is the program name (the last element of argv[0]) under which lab's
// binary is AuditProbe.
const ProbeName = "auditprobe"

// AuditProbe asks the kernel what su's PAM asks it, and judges the answer like
// the libpam of the time (before 1.3.0) did. It sends one AUDIT_USER message
// with NLM_F_ACK on NETLINK_AUDIT (netlink(7), linux/audit.h) from where it
// runs, says on stdout what came back and returns the program's exit status:
//
//	0    connection refused: nobody listens here, PAM goes on without audit
//	1    operation not permitted: PAM gives up with "System error"
//	125  anything else: this kernel or this sender cannot show the difference
//
// In case 1 it also writes PAM's line to /dev/log, where su's would be found.
func AuditProbe() int {
	answer, err := sendAudit("op=PAM:accounting acct=\"root\" exe=\"/bin/su\" res=success")
	status, text := judge(answer, err)
	fmt.Println(text)
	if status == 1 {
		logLine("su: PAM audit_log_acct_message() failed: Operation not permitted")
	}
	return status
}

// An answer is how far a message came: refused when it was sent, or acknowledged.
type answer struct {
	sent unix.Errno // what sendto said
	ack  unix.Errno // what the kernel's acknowledgement said, when sent is 0
}

// judge turns the kernel's answer into an exit status and a sentence. err is
// for what went wrong besides the answer.
func judge(a answer, err error) (int, string) {
	switch {
	case err != nil:
		return 125, fmt.Sprintf("audit: no answer to judge: %v", err)
	case a.sent == unix.ECONNREFUSED:
		return 0, "audit: connection refused: no audit socket in this network namespace, su goes on without it"
	case a.sent != 0:
		return 125, fmt.Sprintf("audit: the message could not be sent: %v", a.sent)
	case a.ack == unix.ECONNREFUSED:
		return 0, "audit: connection refused: audit does not hear this user namespace, su goes on without it"
	case a.ack == unix.EPERM:
		return 1, "su: System error\naudit: operation not permitted: the kernel listens in this network namespace and refuses a sender without CAP_AUDIT_WRITE"
	case a.ack == 0:
		return 125, "audit: message accepted: the sender has CAP_AUDIT_WRITE, start the container without it"
	}
	return 125, fmt.Sprintf("audit: unexpected answer: %v", a.ack)
}

// sendAudit sends one user message and waits up to five seconds for its acknowledgement.
func sendAudit(text string) (answer, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return answer{}, fmt.Errorf("open audit socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return answer{}, fmt.Errorf("set timeout of audit socket: %w", err)
	}
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(fd, auditMessage(text), 0, kernel); err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return answer{sent: errno}, nil
		}
		return answer{}, fmt.Errorf("send audit message: %w", err)
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return answer{}, fmt.Errorf("receive acknowledgement: %w", err)
		}
		ack, err := parseAck(buf[:n])
		return answer{ack: ack}, err
	}
}

// auditUser is AUDIT_USER of linux/audit.h: a message from user space.
const auditUser = 1005

// auditMessage is a struct nlmsghdr and the text, padded as NLMSG_ALIGN asks.
func auditMessage(text string) []byte {
	length := unix.SizeofNlMsghdr + len(text) + 1
	b := binary.NativeEndian.AppendUint32(nil, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, auditUser)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, 1) // sequence
	b = binary.NativeEndian.AppendUint32(b, 0) // port: the kernel fills it in
	b = append(append(b, text...), 0)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// parseAck reads a struct nlmsghdr of type NLMSG_ERROR and the negative error
// number behind it; 0 is an acknowledgement.
func parseAck(b []byte) (unix.Errno, error) {
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, fmt.Errorf("read acknowledgement: only %d bytes", len(b))
	}
	if kind := binary.NativeEndian.Uint16(b[4:]); kind != unix.NLMSG_ERROR {
		return 0, fmt.Errorf("read acknowledgement: a message of type %d", kind)
	}
	code := -int64(int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])))
	if code < 0 || code > 4095 {
		return 0, fmt.Errorf("read acknowledgement: error number %d", code)
	}
	return unix.Errno(code), nil
}

// logLine writes to /dev/log as syslog(3) does: no listener, no message.
func logLine(text string) {
	conn, err := net.Dial("unixgram", "/dev/log")
	if err != nil {
		return
	}
	defer conn.Close()
	const authprivCrit = 10<<3 | 2
	var line bytes.Buffer
	fmt.Fprintf(&line, "<%d>%s %s", authprivCrit, time.Now().Format(time.Stamp), text)
	if _, err := conn.Write(line.Bytes()); err != nil {
		fmt.Fprintf(os.Stderr, "write to /dev/log: %v\n", err)
	}
}
