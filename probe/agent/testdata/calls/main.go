// calls makes system calls that a container's filter may refuse, with arguments that
// the kernel refuses at the latest, and says what came back.
package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func main() {
	for _, c := range []struct {
		name   string
		number uintptr
		args   [2]uintptr
	}{
		{"keyctl", unix.SYS_KEYCTL, [2]uintptr{99}},
		{"clone3", unix.SYS_CLONE3, [2]uintptr{}},
		{"unshare", unix.SYS_UNSHARE, [2]uintptr{1}},
		{"vsock", unix.SYS_SOCKET, [2]uintptr{unix.AF_VSOCK, 99}},
		{"netlink", unix.SYS_SOCKET, [2]uintptr{unix.AF_NETLINK, 99}},
		{"nothing", 800, [2]uintptr{}},
	} {
		_, _, e := unix.RawSyscall(c.number, c.args[0], c.args[1], 0)
		fmt.Println(c.name, unix.ErrnoName(e))
	}
}
