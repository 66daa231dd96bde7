package kernel

import "syscall"

// procAttr puts a child into a process group of its own, so that it can be
// killed with all of its children, and has it told to end when lab dies
// without a chance to do so. make, told so, ends its children too.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
