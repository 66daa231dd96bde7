package demo

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

const errPipe = syscall.EPIPE

// command is a child in its own process group that dies with lab, is asked to
// end when the context does and killed if it will not.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
