//go:build !linux

package demo

import (
	"context"
	"os/exec"
	"syscall"
	"time"
)

const errPipe = syscall.EPIPE

// command is a child that is killed when the context ends.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}
