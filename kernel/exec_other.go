//go:build unix && !linux

package kernel

import "syscall"

func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

func giveWay(int) {}

func hurry(int) bool { return true }
