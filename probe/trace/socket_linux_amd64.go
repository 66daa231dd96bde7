package trace

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// What is read of addresses and messages.
const (
	maxSockaddr = 128 // sizeof(struct sockaddr_storage)
	maxNetlink  = 4 << 10
	maxMessages = 16 // netlink messages shown of one datagram
)

// sockaddr is a struct sockaddr of some family (unix(7), ip(7), ipv6(7), netlink(7));
// at is where it was.
func sockaddr(b []byte, at uint64) string {
	if len(b) < 2 {
		return pointer(at)
	}
	family := uint64(b[0]) | uint64(b[1])<<8
	name := "{sa_family=" + sets["family"].text(family)
	port := func() int { return int(b[2])<<8 | int(b[3]) }
	switch {
	case family == unix.AF_UNIX && len(b) > 2 && b[2] == 0: // abstract
		return name + ", sun_path=@" + quote(b[3:], false) + "}"
	case family == unix.AF_UNIX && len(b) > 2:
		path, _, _ := bytes.Cut(b[2:], []byte{0})
		return name + ", sun_path=" + quote(path, false) + "}"
	case family == unix.AF_INET && len(b) >= 8:
		return fmt.Sprintf("%s, sin_port=htons(%d), sin_addr=inet_addr(\"%s\")}", name, port(), netip.AddrFrom4([4]byte(b[4:8])))
	case family == unix.AF_INET6 && len(b) >= 24:
		return fmt.Sprintf("%s, sin6_port=htons(%d), sin6_addr=\"%s\"}", name, port(), netip.AddrFrom16([16]byte(b[8:24])))
	case family == unix.AF_NETLINK && len(b) >= 12:
		return fmt.Sprintf("%s, nl_pid=%d, nl_groups=%08x}", name, half(b[4:]), half(b[8:]))
	}
	return name + ", sa_data=" + quote(b[2:], false) + "}"
}

// message is a struct msghdr (recvmsg(2)): the address and the data of the first
// piece. Result is how much was received, -1 of a message that is sent.
func (f *follower) message(tid int, fd, at uint64, result int64) string {
	b := read(tid, at, 56)
	if len(b) < 56 {
		return pointer(at)
	}
	name, base, size := "NULL", uint64(0), uint64(0)
	if a := word(b); a != 0 {
		name = sockaddr(read(tid, a, int(min(half(b[8:]), maxSockaddr))), a)
	}
	pieces := word(b[24:])
	if v := read(tid, word(b[16:]), 16); len(v) == 16 && pieces > 0 {
		base, size = word(v), word(v[8:])
	}
	if result >= 0 {
		size = min(size, uint64(result))
	}
	var what string
	if p, ok := f.protocol(tid, fd); ok {
		what = netlink(read(tid, base, int(min(size, maxNetlink))), p)
	} else {
		what = data(tid, base, size)
	}
	return fmt.Sprintf("{msg_name=%s, msg_iov=[{iov_base=%s, iov_len=%d}], msg_iovlen=%d, msg_controllen=%d}", name, what, size, pieces, word(b[40:]))
}

// The types of netlink messages that are of every protocol (netlink(7)).
var netlinkTypes = map[uint16]string{unix.NLMSG_NOOP: "NLMSG_NOOP", unix.NLMSG_ERROR: "NLMSG_ERROR", unix.NLMSG_DONE: "NLMSG_DONE", unix.NLMSG_OVERRUN: "NLMSG_OVERRUN"}

// netlink are the messages of a datagram of a netlink protocol. Of an error there is
// what it says, 0 being an acknowledgement, and what it answers.
func netlink(b []byte, protocol int) string {
	var list []string
	for len(b) >= unix.SizeofNlMsghdr {
		if len(list) == maxMessages {
			list = append(list, "...")
			break
		}
		size := int(min(uint64(half(b)), uint64(len(b))))
		kind := uint16(half(b[4:]))
		head := netlinkHeader(b, protocol)
		if size < unix.SizeofNlMsghdr {
			list = append(list, "{"+head+"}")
			break
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch {
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			head += ", error=" + netlinkError(int32(half(body)))
			if len(body) >= 4+unix.SizeofNlMsghdr {
				head += ", msg={" + netlinkHeader(body[4:], protocol) + "}"
			}
		case len(body) > 0:
			head += ", data=" + quote(body[:min(len(body), maxString)], len(body) > maxString)
		}
		list = append(list, "{"+head+"}")
		b = b[min(len(b), (size+3)&^3):] // NLMSG_ALIGN
	}
	switch len(list) {
	case 0:
		return quote(b, false)
	case 1:
		return list[0]
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// netlinkHeader is a struct nlmsghdr, whose bytes b begins with.
func netlinkHeader(b []byte, protocol int) string {
	kind, flags := uint16(half(b[4:])), half(b[4:])>>16
	name := netlinkTypes[kind]
	if name == "" && protocol == unix.NETLINK_AUDIT {
		name = auditTypes[kind]
	}
	if name == "" {
		name = fmt.Sprintf("%#x", kind)
	}
	return fmt.Sprintf("len=%d, type=%s, flags=%s, seq=%d, pid=%d", half(b), name, netlinkFlags.text(uint64(flags)), half(b[8:]), half(b[12:]))
}

var netlinkFlags = set{"NLM_F_", 0, nil, []value{{unix.NLM_F_REQUEST, "REQUEST"}, {unix.NLM_F_MULTI, "MULTI"}, {unix.NLM_F_ACK, "ACK"}, {unix.NLM_F_ECHO, "ECHO"}}}

func netlinkError(e int32) string {
	if e >= 0 || e < -4095 {
		return fmt.Sprint(e)
	}
	name, text := errnoText(unix.Errno(-e))
	return fmt.Sprintf("-%s (%s)", name, text)
}
