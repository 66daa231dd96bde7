package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// VM is a running guest.
type VM struct {
	pid   int
	ports []io.ReadWriteCloser
	// What Save needs to know: the control socket, nil without one; the arguments;
	// and the guest's memory, in bytes.
	control *os.File
	args    []string
	memory  int64
	cancel  context.CancelCauseFunc
	done    chan struct{}
	err     error         // valid once done is closed
	cpu     time.Duration // what QEMU took; valid once done is closed
}

// errKilled is the cause of a Kill.
var errKilled = errors.New("killed")

const (
	// killGrace is the time between SIGTERM and SIGKILL. QEMU answers SIGTERM
	// within milliseconds, unless a vCPU hangs in the host kernel.
	killGrace = 2 * time.Second

	// maxStderr is how much of QEMU's own output is kept for an error.
	maxStderr = 64 << 10
)

// Start runs the machine. When ctx ends, QEMU gets SIGTERM and, should it not
// obey, SIGKILL; should this process die, even by SIGKILL, the kernel kills
// QEMU (PR_SET_PDEATHSIG). The caller must call Wait or watch Done, and may
// stop reading the ports at any time.
//
// It returns an *ErrMissing when there is no such binary. An error of QEMU
// itself (an option it does not know, a file it cannot open) is Wait's.
func (m Machine) Start(ctx context.Context) (*VM, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("start qemu: %w", context.Cause(ctx))
	}
	binary, err := lookPath(m.Binary)
	if err != nil {
		return nil, err
	}

	n := fdPorts - fdConsole + len(m.Ports)
	if m.Snapshots {
		n++
	}
	ours, theirs := make([]*os.File, 0, n), make([]*os.File, 0, n)
	closeAll := func(files []*os.File) {
		for _, f := range files {
			f.Close()
		}
	}
	for range n {
		a, b, err := socketpair()
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, fmt.Errorf("start qemu: %w", err)
		}
		if m.Exact {
			roomy(b)
		}
		ours, theirs = append(ours, a), append(theirs, b)
	}
	if m.GDB != nil {
		fd, err := unix.FcntlInt(m.GDB.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, fmt.Errorf("start qemu: take gdb's socket: %w", err)
		}
		theirs = append(theirs, os.NewFile(uintptr(fd), "gdb"))
	}
	if m.Exact {
		exact, disks, err := m.dimms(fdConsole + len(theirs))
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, err
		}
		m, theirs = exact, append(theirs, disks...)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	stderr := &firstBytes{next: m.Stderr}
	cmd := exec.CommandContext(ctx, binary, m.Args()...)
	cmd.ExtraFiles = theirs
	cmd.Stderr = stderr
	cmd.Env = environ(m.TempDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killGrace
	if m.Confined {
		opened, err := m.confine(cmd)
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			cancel(nil)
			return nil, err
		}
		theirs = append(theirs, opened...)
	}

	vm := &VM{cancel: cancel, done: make(chan struct{}), args: m.saved(), memory: int64(orInt(m.Memory, defaultMemory)) << 20}
	exited := make(chan struct{})
	started := make(chan error)
	var waitErr error
	go func() {
		// The parent-death signal is sent when the *thread* that forked ends,
		// not the process (prctl(2)): keep this one until QEMU is reaped.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		waitErr = cmd.Wait()
		close(exited)
	}()
	err = <-started
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		cancel(nil)
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}

	vm.pid = cmd.Process.Pid
	if m.Snapshots {
		vm.control, ours = ours[len(ours)-1], ours[:len(ours)-1]
	}
	var drained sync.WaitGroup
	console := m.Console
	if console == nil {
		console = io.Discard
	}
	drained.Go(func() { drain(console, ours[0]) })
	for _, f := range append(ours[2:len(ours):len(ours)], ours[1]) {
		p := newPort(f)
		vm.ports = append(vm.ports, p)
		drained.Go(func() { p.pump(exited) })
	}
	go func() {
		<-exited
		drained.Wait() // the sockets end with QEMU: all it sent is ours now
		vm.err = exitError(ctx, waitErr, stderr.String())
		if s := cmd.ProcessState; s != nil {
			vm.cpu = s.UserTime() + s.SystemTime()
		}
		if vm.control != nil {
			vm.control.Close()
		}
		cancel(nil)
		close(vm.done)
	}()
	return vm, nil
}

// Ports returns the channels to the guest: the virtio-serial ports in the
// order of Machine.Ports, then the second serial port (ttyS1). What the guest
// sends is taken off QEMU's hands at once and kept for Read, up to 32 MiB a
// port, after which the guest waits; everything that arrived before QEMU's
// end can still be read after it. Close throws away what is to come.
func (vm *VM) Ports() []io.ReadWriteCloser { return vm.ports }

// Done is closed when QEMU has ended and everything it sent has been received.
func (vm *VM) Done() <-chan struct{} { return vm.done }

// Wait waits for Done. The error is nil when the guest powered off, rebooted
// or was killed by Kill; the context's cause when the context ended; and else
// "qemu exited: …" with the first line that QEMU said.
func (vm *VM) Wait() error {
	<-vm.done
	return vm.err
}

// Kill ends the guest. It does not wait: see Done.
func (vm *VM) Kill() { vm.cancel(errKilled) }

func exitError(ctx context.Context, err error, stderr string) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errKilled):
		return nil
	case cause != nil:
		return fmt.Errorf("run qemu: %w", cause)
	case err == nil:
		return nil
	}
	state := err.Error()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			state = "signal " + ws.Signal().String()
		} else {
			state = fmt.Sprintf("status %d", exit.ExitCode())
		}
	}
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, ": warning: ") {
			return fmt.Errorf("qemu exited: %s: %s", state, line)
		}
	}
	return fmt.Errorf("qemu exited: %s", state)
}

// environ is what QEMU gets to see of the environment: nothing but where
// temporary files go.
func environ(tempDir string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	if tempDir == "" {
		tempDir = os.Getenv("TMPDIR")
	}
	if tempDir != "" {
		env = append(env, "TMPDIR="+tempDir)
	}
	return env
}

// socketpair makes a connected pair of stream sockets, ours non-blocking (so
// that closing it ends a Read), with buffers as large as the host allows.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	for _, fd := range fds {
		// More than wmem_max is cut to it; failing costs speed alone.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20)
	}
	return os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}

// firstBytes keeps the first maxStderr bytes and passes all on.
type firstBytes struct {
	mu   sync.Mutex
	buf  []byte
	next io.Writer
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.buf = append(f.buf, p[:min(len(p), maxStderr-len(f.buf))]...)
	f.mu.Unlock()
	if f.next != nil {
		_, _ = f.next.Write(p) // a reader's trouble must not stop QEMU
	}
	return len(p), nil
}

func (f *firstBytes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return string(f.buf)
}
