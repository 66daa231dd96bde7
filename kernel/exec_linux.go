package kernel

import (
	"fmt"
	"os"
	"syscall"
)

// procAttr puts a child into a process group of its own, so that it can be
// killed with all of its children, and has it told to end when lab dies
// without a chance to do so. make, told so, ends its children too.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// giveWay has a process group, and what it starts from now on, run when nothing
// else wants to, and be the first to go when memory runs out. It is a wish.
func giveWay(group int) {
	_ = syscall.Setpriority(syscall.PRIO_PGRP, group, 19)
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", group), []byte("1000"), 0)
}

// hurry takes that back, if it may.
func hurry(group int) bool {
	return syscall.Setpriority(syscall.PRIO_PGRP, group, 0) == nil
}
