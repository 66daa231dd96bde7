package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"lab/kernel"
	"lab/kernel/gdb"
	"lab/kernel/qemu"
	"lab/lab/bundle"
)

// DebugOptions say how a kernel of a bundle is looked at with gdb.
type DebugOptions struct {
	Role string // of the kernel
	Symbols
	// Breaks are places as gdb's hbreak takes them, "kernel/audit.c:752 if err != 0", at
	// which the kernel stops from its first instruction on. There may be four.
	Breaks   []string
	Commands []string // of gdb, behind the breakpoints
	// Replay plays the recorded run back, the same in every session, in which gdb goes
	// backwards as well.
	Replay bool
	QEMU   string // empty finds it
	// GDB runs gdb with arguments, or tells of them; the guest lives until it returns.
	// over is closed where it ends before.
	GDB     func(ctx context.Context, args []string, over <-chan struct{}) error
	Console io.Writer // what the kernel says goes there, where it is not nil
}

// Symbols say where the symbols of a bundle's kernel come from. Without both they are
// the bundle's, or those that were made for the same kernel before.
type Symbols struct {
	Vmlinux string // a file
	Repo    string // a repository, to build the kernel's commit with debug information from
}

// Debug boots a kernel of a bundle as recorded, but for the placement of the kernel
// (nokaslr), with QEMU's gdbstub on a socket, and has gdb run. The bundle is verified and
// confined as by Reproduce. The trial says how the test ended, if it did before gdb.
func (l *Lab) Debug(ctx context.Context, from BundleSource, o DebugOptions) (Trial, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return Trial{}, err
	}
	defer b.Close()
	k, err := bootable(b.Manifest, o.Role)
	if err != nil {
		return Trial{}, fmt.Errorf("%s %w", from, err)
	}
	r := rerunner{Lab: l, bundle: b.Bundle, file: from.String(), dir: b.dir}
	vmlinux, err := r.vmlinux(ctx, k, o.Symbols)
	if err == nil && vmlinux == "" {
		err = fmt.Errorf("debug %s: its %s kernel has no vmlinux: name the repository with --repo, to have commit %.12s built with debug information, or a file with --vmlinux", from, o.Role, k.Commit)
	}
	if err != nil {
		return Trial{}, err
	}
	if err := r.open(ctx, ReproduceOptions{QEMU: o.QEMU}); err != nil {
		return Trial{}, err
	}
	for _, n := range r.notes() {
		l.Progress.Say("note: %s", n)
	}
	var m qemu.Machine
	if o.Replay {
		at := slices.IndexFunc(b.Manifest.Runs, func(run bundle.Run) bool { return run.Role == o.Role && run.Recording != nil })
		if at < 0 {
			return Trial{}, fmt.Errorf("play back %s: it has no recording of its %s kernel; lab bisect --record puts them into bundles", from, o.Role)
		}
		m, _, err = r.player(ctx, b.Manifest.Runs[at])
	} else {
		r.qemu.CPUs, r.qemu.Exact = 1, false
		m, err = r.machine(ctx, k)
		m.Cmdline += " nokaslr"
	}
	if err != nil {
		return Trial{}, err
	}
	t := r.begin(k)
	m.Console = o.Console
	args := []string{vmlinux}
	if filepath.Dir(vmlinux) == r.dir {
		// A stranger's can have a program in it for gdb to run, .debug_gdb_scripts.
		args = []string{"-iex", "set auto-load off", vmlinux}
	}
	run := func(ctx context.Context, socket string, over <-chan struct{}) error {
		commands := []string{"set architecture i386:x86-64", "target remote " + socket}
		for _, place := range o.Breaks {
			commands = append(commands, "hbreak "+place)
		}
		for _, c := range append(commands, o.Commands...) {
			args = append(args, "-ex", c)
		}
		return o.GDB(ctx, args, over)
	}
	l.Progress.Show("")
	if o.Replay {
		return t, l.rewindable(ctx, m, &t, run)
	}
	err = l.stopped(ctx, m, &t, func(ctx context.Context, socket string, over <-chan struct{}) (err error) {
		guarded := filepath.Join(filepath.Dir(socket), "gdb")
		guard, err := gdb.NewGuard(ctx, guarded, socket)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, guard.Close()) }()
		return run(ctx, guarded, over)
	})
	return t, err
}

// vmlinux is the file with a kernel's symbols; empty where there is none.
func (r *rerunner) vmlinux(ctx context.Context, k bundle.Kernel, s Symbols) (string, error) {
	file, image := s.Vmlinux, r.bundle.Path(k.Image)
	kept := filepath.Join(r.Cache, "symbols", strings.TrimPrefix(k.Digest, "sha256:"), "vmlinux")
	switch _, err := os.Stat(kept); {
	case file != "":
	case err == nil:
		return kept, nil
	case s.Repo != "":
		if err := r.debugInfo(ctx, k, s.Repo, image, kept); err != nil {
			return "", err
		}
		return kept, nil
	case k.Vmlinux == nil:
		return "", nil
	default:
		file = filepath.Join(r.dir, k.Role+"-vmlinux")
		if err := r.bundle.Expand(ctx, k.Vmlinux.Member, file); err != nil {
			return "", err
		}
	}
	if err := kernel.SameCode(image, file); err != nil {
		return "", fmt.Errorf("take the symbols of the %s kernel of %s: %w", k.Role, r.file, err)
	}
	return file, nil
}

// debugInfo builds a kernel of the bundle once more, with debug information, and keeps
// its vmlinux.
func (r *rerunner) debugInfo(ctx context.Context, k bundle.Kernel, repo, image, kept string) error {
	switch {
	case k.Commit == "":
		return fmt.Errorf("the %s kernel of %s was not built of a commit: name its vmlinux with --vmlinux; distributions have it in a package of debug symbols", k.Role, r.file)
	case k.OnTop != "":
		return fmt.Errorf("the %s kernel of %s was built with changes on top (%s), which are a stranger's: build it yourself, and name its vmlinux with --vmlinux", k.Role, r.file, path.Base(k.OnTop))
	}
	config := filepath.Join(r.dir, "config")
	if err := r.safeConfig(k, config); err != nil {
		return err
	}
	spec := Spec{Kernel: KernelSpec{Config: []string{config}}}
	o, err := r.buildOptions(ctx, spec)
	if err != nil {
		return err
	}
	repo, err = r.repository(ctx, repo)
	if err != nil {
		return err
	}
	tree, err := kernel.OpenDebugTree(ctx, r.Cache, repo)
	if err != nil {
		return err
	}
	defer tree.Close()
	symbols, err := r.Lab.dir("symbols")
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp(symbols, ".making-")
	if err != nil {
		return fmt.Errorf("make a folder for symbols: %w", err)
	}
	defer os.RemoveAll(made)
	o.Progress = r.buildProgress(k.Commit)
	defer r.Progress.Show("")
	r.Progress.Say("building %s once more, with debug information; it is kept for the next time", kernelName(k))
	if err := tree.DebugInfo(ctx, k.Commit, o, image, filepath.Join(made, "vmlinux")); err != nil {
		return err
	}
	if err := os.Rename(made, filepath.Dir(kept)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("keep symbols: %w", err)
	}
	return nil
}

// rewindable has a recorded run led by gdb, forwards and back. The trial is that of the
// machine that gdb looked at last.
func (l *Lab) rewindable(ctx context.Context, m qemu.Machine, t *Trial, run func(ctx context.Context, socket string, over <-chan struct{}) error) (err error) {
	dir, err := os.MkdirTemp("", "lab-gdb-")
	if err != nil {
		return fmt.Errorf("make a folder for gdb's socket: %w", err)
	}
	defer os.RemoveAll(dir)
	begun, socket := *t, filepath.Join(dir, "gdb")
	var played error // how the last machine ended
	start := func(starting context.Context) (gdb.Player, error) {
		own := begun
		running, cancel := context.WithCancel(ctx)
		ready, done := make(chan string, 1), make(chan error, 1)
		go func(m qemu.Machine) {
			done <- l.stopped(running, m, &own, func(ctx context.Context, socket string, over <-chan struct{}) error {
				ready <- socket
				select {
				case <-over:
				case <-ctx.Done():
				}
				return nil
			})
		}(m)
		m.Console = nil // it says the same again
		end := func() {
			cancel()
			played = <-done
			*t = own
		}
		select {
		case socket := <-ready:
			return gdb.Player{Socket: socket, End: end}, nil
		case <-starting.Done():
			end()
			return gdb.Player{}, context.Cause(starting)
		case err := <-done:
			cancel()
			return gdb.Player{}, err
		}
	}
	over := make(chan struct{})
	guard, err := gdb.NewRewinder(ctx, socket, start, sync.OnceFunc(func() { close(over) }))
	if err != nil {
		return err
	}
	err = errors.Join(run(ctx, socket, over), guard.Close())
	if played != nil && !errors.Is(played, context.Canceled) {
		err = errors.Join(err, played)
	}
	return err
}

// stopped boots a machine that waits for gdb before its first instruction, has it led
// over the socket, and ends it; over is closed where it ended by itself. The trial has
// then what is known of the test's end. An error of lead's is the machine's in that case.
func (l *Lab) stopped(ctx context.Context, m qemu.Machine, t *Trial, lead func(ctx context.Context, socket string, over <-chan struct{}) error) error {
	dir, err := os.MkdirTemp("", "lab-gdb-")
	if err != nil {
		return fmt.Errorf("make a folder for gdb's socket: %w", err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "socket")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("make a socket for gdb: %w", err)
	}
	defer listener.Close()
	if m.GDB, err = listener.File(); err != nil {
		return fmt.Errorf("make a socket for gdb: %w", err)
	}
	defer m.GDB.Close()
	m.Paused = true

	running, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	var bootErr error
	go func() {
		defer close(over)
		bootErr = boot(running, m, forever, forever, t)
	}()
	if err = lead(running, socket, over); err != nil {
		select {
		case <-over:
			if bootErr == nil {
				bootErr = fmt.Errorf("the guest ended: %s %s", t.End, t.Detail)
			}
			return bootErr
		case <-time.After(lastWords):
		}
	}
	cancel()
	if <-over; err == nil && bootErr != nil && !errors.Is(bootErr, context.Canceled) {
		err = bootErr
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}
