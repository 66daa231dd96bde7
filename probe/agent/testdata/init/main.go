// The smallest binary that is a guest's /init.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lab/probe/agent"
)

func main() {
	// What a kernel does not know of its command line is init's environment.
	if n, err := strconv.ParseUint(os.Getenv("calls"), 10, 32); err == nil {
		if err := forget(uint32(n)); err != nil {
			fmt.Println("forget system calls:", err)
		}
	}
	agent.Dispatch()
	os.Exit(1)
}

// forget starts the program anew on a kernel that answers as one from before the
// system calls above last, and from before ambient capabilities (Linux 4.3): they are
// unknown to the agent, to Go's runtime, and to the container.
func forget(last uint32) error {
	runtime.LockOSThread()         // the filter is the thread's, and execve keeps this one
	const number, argument = 0, 16 // of struct seccomp_data (seccomp(2))
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	program := []unix.SockFilter{
		load(number),
		{Code: unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, K: last, Jt: 4},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PRCTL, Jf: 2},
		load(argument),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PR_CAP_AMBIENT, Jt: 2},
		answer(unix.SECCOMP_RET_ALLOW),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)),
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec("/init", []string{"/init"}, []string{"HOME=/"})
}
