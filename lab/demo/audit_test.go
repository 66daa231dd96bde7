//go:build linux

package demo

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		answer answer
		err    error
		status int
		text   string
	}{
		{answer{sent: unix.ECONNREFUSED}, nil, 0, "audit: connection refused: "},
		{answer{ack: unix.ECONNREFUSED}, nil, 0, "audit: connection refused: "},
		{answer{ack: unix.EPERM}, nil, 1, "su: System error\n"},
		{answer{sent: unix.EPERM}, nil, 125, "audit: the message could not be sent: operation not permitted"},
		{answer{}, nil, 125, "audit: message accepted: "},
		{answer{ack: unix.EINVAL}, nil, 125, "audit: unexpected answer: invalid argument"},
		{answer{}, errors.New("protocol not supported"), 125, "audit: no answer to judge: protocol not supported"},
		{answer{sent: unix.ECONNREFUSED}, errors.New("timeout"), 125, "audit: no answer to judge: timeout"},
	} {
		status, text := judge(test.answer, test.err)
		if status != test.status || !strings.HasPrefix(text, test.text) {
			t.Errorf("%+v, %v: %d, %q, want %d, %q…", test.answer, test.err, status, text, test.status, test.text)
		}
	}
}

// The bytes are what auditctl-like C code sends on a little-endian machine.
func TestAuditMessage(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return // the header is in the machine's own byte order
	}
	got := hex.EncodeToString(auditMessage("op=x"))
	want := "15000000" + "ed03" + "0500" + "01000000" + "00000000" + "6f703d78" + "00" + "000000"
	if got != want {
		t.Errorf("message is %s, want %s", got, want)
	}
}

func ackBytes(kind uint16, code int32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, 36)
	binary.NativeEndian.PutUint32(b, 36)
	binary.NativeEndian.PutUint16(b[4:], kind)
	b = binary.NativeEndian.AppendUint32(b, uint32(code))
	return append(b, make([]byte, 16)...)
}

func TestParseAck(t *testing.T) {
	for _, test := range []struct {
		bytes []byte
		errno unix.Errno
		err   string
	}{
		{ackBytes(unix.NLMSG_ERROR, 0), 0, ""},
		{ackBytes(unix.NLMSG_ERROR, -int32(unix.EPERM)), unix.EPERM, ""},
		{ackBytes(unix.NLMSG_ERROR, 1), 0, "error number -1"},
		{ackBytes(unix.NLMSG_ERROR, -1<<31), 0, "error number 2147483648"},
		{ackBytes(unix.NLMSG_DONE, 0), 0, "a message of type 3"},
		{ackBytes(unix.NLMSG_ERROR, 0)[:19], 0, "only 19 bytes"},
		{nil, 0, "only 0 bytes"},
	} {
		errno, err := parseAck(test.bytes)
		if errno != test.errno || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%x: %v, %v, want %v, %q", test.bytes, errno, err, test.errno, test.err)
		}
	}
}

func FuzzParseAck(f *testing.F) {
	f.Add(ackBytes(unix.NLMSG_ERROR, 0))
	f.Add(ackBytes(unix.NLMSG_ERROR, -int32(unix.ECONNREFUSED)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		errno, err := parseAck(b)
		if err == nil && (errno > 4095 || len(b) < unix.SizeofNlMsghdr+4) {
			t.Errorf("%x is taken for %d", b, errno)
		}
	})
}
