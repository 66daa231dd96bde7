package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// child is a program to run to its end.
type child struct {
	dir    string
	env    []string // all of its environment
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer // nil: quoted in the error
	extra  []*os.File
	room   *room    // the root file system to run in; nil: the host's
	write  []string // folders that it can write to there
	guess  *guess   // that it is part of: everything else on the host comes first
}

// run runs it. A cancelled ctx ends the whole process group, with SIGTERM
// first; the error is then the context's cause, and ErrInterrupted as well when
// SIGTERM was not enough. A program that is not installed
// is a MissingError, one that was killed from outside is ErrInterrupted, and
// one that says that the disk is full is ENOSPC. Any other failure is an
// *exec.ExitError.
func (c child) run(ctx context.Context, name string, args ...string) error {
	cmd, err := c.command(ctx, name, args)
	if err != nil {
		return err
	}
	cmd.ExtraFiles = c.extra
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	complaint := cappedBuffer{limit: 4096}
	if c.stderr == nil {
		cmd.Stderr = &complaint
	}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
			return os.ErrProcessDone
		}
		return nil
	}
	cmd.WaitDelay = 10 * time.Second

	// The death signal comes when the *thread* that started the child dies.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	if errors.Is(err, exec.ErrNotFound) {
		return &MissingError{Tool: name, For: "run " + strings.Join(append([]string{name}, args[:min(1, len(args))]...), " ")}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	if c.guess != nil {
		c.guess.started(cmd.Process.Pid)
		defer c.guess.ended()
	}
	err = cmd.Wait()
	if err == nil {
		return nil
	}
	// Whoever did not heed SIGTERM, and orphans that a killed parent left.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ctx.Err() != nil {
		// bubblewrap, told to end, kills the program at once.
		killed := status.Signal() == syscall.SIGKILL || c.room != nil && c.room.way == byBubblewrap
		if killed || errors.Is(err, exec.ErrWaitDelay) {
			return fmt.Errorf("%w: %w", context.Cause(ctx), ErrInterrupted)
		}
		return context.Cause(ctx)
	}
	said := strings.TrimSpace(complaint.kept.String())
	if status.Signaled() {
		return fmt.Errorf("%s: %w (%s)", name, ErrInterrupted, status.Signal())
	}
	if signal, killed := killedInside(status.ExitStatus()); killed && c.room != nil {
		return fmt.Errorf("%s: %w (%s)", name, ErrInterrupted, signal)
	}
	if strings.Contains(said, "No space left on device") {
		return fmt.Errorf("%s: %w", name, syscall.ENOSPC)
	}
	if said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// command is what is started: the program, or what takes it into its room.
func (c child) command(ctx context.Context, name string, args []string) (*exec.Cmd, error) {
	if c.room != nil {
		return c.room.command(ctx, c, name, args)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.dir, c.env, procAttr()
	return cmd, nil
}

// cappedBuffer takes everything and keeps the first limit bytes. The buffer is
// not embedded: its ReadFrom would go around Write.
type cappedBuffer struct {
	limit int
	kept  bytes.Buffer
	over  bool // there was more
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	room := b.limit - b.kept.Len()
	b.over = b.over || len(p) > room
	b.kept.Write(p[:min(room, len(p))])
	return len(p), nil
}

// baseEnv is the environment of every child: nothing of the user's that could
// change what a build makes or what git does, and messages in English.
func baseEnv(home string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "TZ=UTC"}
	if tmp := os.Getenv("TMPDIR"); tmp != "" {
		env = append(env, "TMPDIR="+tmp)
	}
	return env
}

// holder describes this process to those who wait for a lock it has.
func holder() string {
	return fmt.Sprintf("process %d (%s)", os.Getpid(), strings.Join(append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...), " "))
}
