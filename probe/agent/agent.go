//go:build linux

// Package agent is the first process of the guest.
package agent

import "os"

// Dispatch makes the guest's processes of this binary what they are, and never
// returns in them: the agent as the guest's PID 1 (argv[0] "/init"), and the
// stage that becomes the container's command. In any other process it returns
// at once. main calls it before everything else.
func Dispatch() {
	if os.Getpid() == 1 && os.Args[0] == "/init" {
		select {}
	}
}
