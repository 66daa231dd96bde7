package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lab/kernel/console"
	"lab/kernel/qemu"
	"lab/probe"
)

const (
	// consoleLimit bounds what is kept of a console, in bytes.
	consoleLimit = 4 << 20
	// lastWords is how long a kernel that reported its death may go on
	// writing about it, and a guest that is done may take to power off.
	lastWords = 5 * time.Second
)

// baseCmdline is what every guest's kernel is told. An oops is a panic, and a
// panic is a reboot, which QEMU's -no-reboot turns into an exit: a dead kernel
// ends the trial. The second between the two lets out what the ports still
// hold. See Documentation/admin-guide/kernel-parameters.txt.
const baseCmdline = qemu.BaseCmdline + " oops=panic panic=1"

func cmdline(extra string) string {
	if extra = strings.TrimSpace(extra); extra != "" {
		return baseCmdline + " " + extra
	}
	return baseCmdline
}

// cmdlineOf is what the kernel of a machine is told.
func cmdlineOf(m qemu.Machine, extra string) string {
	switch {
	case m.Exact:
		extra += " " + exactParameter
	case m.Record != "":
		extra += " " + recordParameter
	}
	return cmdline(extra)
}

var (
	errNoHello  = errors.New("no sign of userspace in time")
	errNoResult = errors.New("no result in time")
)

// boot runs the machine once, until the guest has reported, died or run out of
// time, and fills in how the trial ended. An error means that QEMU could not
// do its work, or that ctx was cancelled.
func boot(ctx context.Context, m qemu.Machine, bootTimeout, testTimeout time.Duration, t *Trial) error {
	log := console.NewLog(consoleLimit)
	if m.Console != nil {
		m.Console = io.MultiWriter(log, m.Console)
	} else {
		m.Console = log
	}
	if m.Exact {
		bootTimeout, testTimeout = exactPace*bootTimeout, exactPace*testTimeout
	}
	if m.Record != "" {
		bootTimeout, testTimeout = recordPace*bootTimeout, recordPace*testTimeout
	}
	start := time.Now()
	vm, err := m.Start(ctx)
	if err != nil {
		return err
	}
	return watch(ctx, m, vm, log, start, bootTimeout, testTimeout, nil, t)
}

// watch is boot from where the machine, begun at start, runs and log has its console;
// talk is the other end of an interactive command.
func watch(ctx context.Context, m qemu.Machine, vm *qemu.VM, log *console.Log, start time.Time, bootTimeout, testTimeout time.Duration, talk *probe.Talk, t *Trial) error {
	t.Args = argv(m)
	t.Cmdline = m.Cmdline
	t.Accel = m.Accel
	defer vm.Kill()
	patience := lastWords
	switch {
	case m.GDB != nil:
		patience = forever // it may stand at a breakpoint
	case m.Exact:
		patience = exactWords
	case m.Replay != "":
		patience = bootTimeout // it ends as it did, and when that is is on record
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-stop:
		case <-log.Dead():
			await(vm, patience)
			vm.Kill()
		}
	}()

	helloCtx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errNoHello)
	session, helloErr := probe.Accept(helloCtx, vm.Ports())
	cancel()
	t.Boot = time.Since(start)
	var resultErr error
	if helloErr == nil {
		session.Silent, session.Talk = m.Exact, talk
		runCtx, cancel := context.WithTimeoutCause(ctx, testTimeout+probe.Grace, errNoResult)
		t.Result, resultErr = session.Run(runCtx)
		cancel()
		t.Test = time.Since(start) - t.Boot
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if (helloErr == nil && resultErr == nil) || !errors.Is(helloErr, errNoHello) && !errors.Is(resultErr, errNoResult) {
		await(vm, patience)
	}
	vm.Kill()
	waitErr := vm.Wait()
	log.Close()
	t.Console = log.Bytes()
	t.Reports = log.Reports()

	switch {
	case helloErr != nil:
		if len(t.Console) == 0 && waitErr != nil && !errors.Is(helloErr, errNoHello) {
			return fmt.Errorf("run QEMU: %w", waitErr) // it ended before the guest said anything
		}
		t.End, t.Detail = EndBoot, lastSeen(t, helloErr, bootTimeout)
	case resultErr != nil && errors.Is(resultErr, errNoResult):
		t.End, t.Detail = EndTimeout, "the guest stopped answering"
	case resultErr != nil:
		t.End, t.Detail = EndCrash, lastSeen(t, resultErr, 0)
	case t.Result.TimedOut:
		t.End, t.Detail = EndTimeout, fmt.Sprintf("the test was still running after %s", testTimeout)
	case t.Result.Error != "":
		t.End, t.Detail = EndSetup, oneLine(t.Result.Error)
	default:
		t.End = EndTest
	}
	if m.Exact {
		t.Exact = exactDigest(*t)
	}
	return nil
}

// argv is the machine's command line with its files by their plain names: what
// matters of it is the same wherever the files lie.
func argv(m qemu.Machine) []string {
	binary := filepath.Base(m.Binary)
	m.Kernel, m.Initrd = filepath.Base(m.Kernel), "initramfs"
	m.Snapshots, m.GDB, m.Paused = false, nil, false // which a guest does not notice
	if m.Record != "" || m.Replay != "" {
		m.Record, m.Replay = recordingFile, ""
	}
	m.Disks = slices.Clone(m.Disks)
	for i := range m.Disks {
		m.Disks[i].Path = filepath.Base(m.Disks[i].Path)
	}
	return append([]string{binary}, m.Args()...)
}

// await gives the machine some time to end by itself.
func await(vm *qemu.VM, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-vm.Done():
	case <-timer.C:
	}
}

// lastSeen is the one line that explains best why a guest was not heard: what
// the kernel reported, or else the last that it wrote.
func lastSeen(t *Trial, err error, timeout time.Duration) string {
	if r, ok := console.Cause(t.Reports); ok {
		return oneLine(r.Title)
	}
	what := "the machine ended without a word from the guest"
	if errors.Is(err, errNoHello) {
		what = fmt.Sprintf("no sign of userspace within %s", timeout)
	}
	lines := strings.Split(strings.TrimRight(string(t.Console), "\r\n"), "\n")
	if last := oneLine(lines[len(lines)-1]); last != "" {
		return what + "; the console's last line: " + last
	}
	return what + "; the console is empty"
}
