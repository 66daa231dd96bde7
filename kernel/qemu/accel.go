package qemu

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Accel is what QEMU should run guests with on this host, and why.
type Accel struct {
	Name       string    `json:"name"`       // "kvm" or "tcg"
	Reason     string    `json:"reason"`     // one sentence without a full stop
	Proof      Proof     `json:"proof"`      // what was booted to know
	Remembered bool      `json:"remembered"` // read from the cache, not tried now
	Tried      time.Time `json:"tried"`
}

// Proof says what was booted to find an Accel.
type Proof string

// The proofs, the weakest first.
const (
	ProofNone  Proof = ""      // nothing: /dev/kvm cannot be opened
	ProofTiny  Proof = "tiny"  // the built-in probe guest
	ProofLinux Proof = "linux" // a Linux that reached, or should have reached, its userspace
)

func (p Proof) rank() int {
	switch p {
	case ProofTiny:
		return 1
	case ProofLinux:
		return 2
	}
	return 0
}

// ProbeOptions say how the accelerator is proven. The zero value works.
type ProbeOptions struct {
	Binary   string        // QEMU; default as in Machine
	Kernel   string        // a Linux to boot; the built-in probe guest when empty
	Initrd   string        // its initramfs
	Cmdline  string        // its command line; default BaseCmdline
	Marker   string        // what it prints on ttyS0 once userspace runs; default "Run /init as init process" (Linux 4.19 and newer)
	Deadline time.Duration // for one boot; default 10 s
	Refresh  bool          // try again, whatever is remembered

	kvm string // the device, /dev/kvm but in tests
}

// The built-in probe guest, see tiny/tiny.S.
//
//go:embed tiny/tiny.bin
var tiny []byte

const (
	tinyMarker    = "lab: probe guest is up"
	linuxMarker   = "Run /init as init process"
	probeDeadline = 10 * time.Second
	probeMemory   = 256      // MiB
	maxProbe      = 16 << 20 // bytes of console that a probe may take

	// The control, with tcg, has so many deadlines: a slow control is a busy
	// host, and kvm then has twice its time.
	controlDeadlines = 6

	// kvm may take twice tcg's CPU time and this before tcg is preferred.
	probeSlack = 500 * time.Millisecond
)

// Accelerator tells which accelerator to use on this host. That /dev/kvm
// exists and opens proves nothing (nested hosts hand out ones that hang or
// crawl), so kvm is the answer only when a guest really boots with it within
// the deadline, and for no more CPU time than with tcg.
//
// The first answer costs one boot with each accelerator, and is remembered in
// cacheDir/host.json for this host (see hostKey) unless /dev/kvm cannot even
// be opened. A remembered tiny proof does not satisfy options that name a
// Kernel, and a "kvm" proven by the built-in probe guest does not overrule a
// "tcg" proven by a Linux. A cache that cannot be read or written
// is no error: the proof is made again. cacheDir "" remembers nothing.
//
// Errors: *ErrMissing, the context's cause, and that the probe's guest boots
// with neither accelerator, which says nothing about kvm.
func Accelerator(ctx context.Context, cacheDir string, o ProbeOptions) (Accel, error) {
	if o.kvm == "" {
		o.kvm = "/dev/kvm"
	}
	version, err := Version(ctx, o.Binary)
	if err != nil {
		return Accel{}, err
	}
	f, err := os.OpenFile(o.kvm, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Accel{Name: "tcg", Reason: o.kvm + ": " + reason(err), Tried: now()}, nil
	}
	f.Close()

	proof := ProofTiny
	if o.Kernel != "" {
		proof = ProofLinux
	}
	key := hostKey(version)
	if !o.Refresh {
		if a, ok := recall(cacheDir, key); ok && a.Proof.rank() >= proof.rank() {
			return a, nil
		}
	}
	a, err := o.prove(ctx, proof)
	if err != nil {
		return Accel{}, err
	}
	// What cannot be remembered is proven again the next time.
	a, _ = remember(ctx, cacheDir, key, a)
	return a, nil
}

// Remember records what a run found out about this host's accelerator, such
// as that a kernel reached userspace with tcg and not with kvm. Later calls
// of Accelerator return it, Remembered, under the rules described there.
func Remember(ctx context.Context, cacheDir, binary string, a Accel) error {
	if a.Name != "kvm" && a.Name != "tcg" {
		return fmt.Errorf("remember accelerator: unknown name %q", a.Name)
	}
	if a.Proof.rank() == 0 {
		return errors.New("remember accelerator: nothing was booted to know")
	}
	version, err := Version(ctx, binary)
	if err != nil {
		return err
	}
	if a.Tried.IsZero() {
		a.Tried = now()
	}
	_, err = remember(ctx, cacheDir, hostKey(version), a)
	return err
}

// prove boots a guest with tcg, as a control and a yardstick, and with kvm.
func (o ProbeOptions) prove(ctx context.Context, proof Proof) (Accel, error) {
	deadline := o.Deadline
	if deadline == 0 {
		deadline = probeDeadline
	}
	a := Accel{Name: "tcg", Proof: proof, Tried: now()}
	tcg, err := o.boot(ctx, "tcg", controlDeadlines*deadline)
	if ctx.Err() != nil {
		return a, fmt.Errorf("prove accelerator: %w", context.Cause(ctx))
	}
	if err != nil {
		return a, fmt.Errorf("prove accelerator: the probe's guest does not boot with tcg either: %w", err)
	}
	deadline = max(deadline, (2 * tcg.wall).Round(time.Second))
	kvm, err := o.boot(ctx, "kvm", deadline)
	switch {
	case ctx.Err() != nil:
		return a, fmt.Errorf("prove accelerator: %w", context.Cause(ctx))
	case errors.Is(err, errSilent):
		a.Reason = fmt.Sprintf("%s opens, but a guest did not boot within %s", o.kvm, seconds(deadline))
	case err != nil:
		a.Reason = fmt.Sprintf("%s opens, but a guest did not boot: %v", o.kvm, err)
	case kvm.cpu > 2*tcg.cpu+probeSlack:
		a.Reason = fmt.Sprintf("%s works, but a guest's boot takes %s of CPU time with it and %s without", o.kvm, seconds(kvm.cpu), seconds(tcg.cpu))
	default:
		a.Name = "kvm"
		a.Reason = fmt.Sprintf("a guest booted in %s, and in %s with tcg", seconds(kvm.wall), seconds(tcg.wall))
	}
	return a, nil
}

// errSilent is the cause of a probe that ran out of time.
var errSilent = errors.New("no sign of life")

// cost is what a probe took: time until the marker, and QEMU's CPU time.
type cost struct{ wall, cpu time.Duration }

// boot runs the probe's guest until its marker appears.
func (o ProbeOptions) boot(ctx context.Context, accel string, deadline time.Duration) (cost, error) {
	m := Machine{Binary: o.Binary, Accel: accel, Memory: probeMemory, Kernel: o.Kernel, Initrd: o.Initrd, Cmdline: o.Cmdline}
	marker := o.Marker
	if m.Kernel != "" {
		m.Cmdline, marker = or(m.Cmdline, BaseCmdline), or(marker, linuxMarker)
	} else {
		// A file without a name leaves nothing behind, however this ends.
		fd, err := unix.MemfdCreate("lab-probe", unix.MFD_CLOEXEC)
		if err != nil {
			return cost{}, fmt.Errorf("make probe guest: %w", err)
		}
		f := os.NewFile(uintptr(fd), "lab-probe")
		defer f.Close()
		if _, err := f.Write(tiny); err != nil {
			return cost{}, fmt.Errorf("make probe guest: %w", err)
		}
		m.Kernel, m.Initrd, m.Cmdline = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "", ""
		marker = tinyMarker
	}
	seen := &watch{marker: []byte(marker), found: make(chan struct{})}
	m.Console = seen

	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errSilent)
	defer cancel()
	begin := time.Now()
	vm, err := m.Start(ctx)
	if err != nil {
		return cost{}, err
	}
	select {
	case <-seen.found:
	case <-vm.Done():
	}
	took := time.Since(begin)
	vm.Kill()
	err = vm.Wait()
	select {
	case <-seen.found:
		return cost{took, vm.cpu}, nil
	default:
	}
	if err == nil {
		err = errors.New("it ended without a sign of life")
	}
	return cost{}, err
}

// watch closes found once marker went by.
type watch struct {
	marker []byte
	found  chan struct{}
	once   sync.Once
	tail   []byte
	total  int
}

func (w *watch) Write(p []byte) (int, error) {
	if w.total += len(p); w.total > maxProbe {
		return len(p), nil
	}
	w.tail = append(w.tail, p...)
	if bytes.Contains(w.tail, w.marker) {
		w.once.Do(func() { close(w.found) })
	}
	if keep := len(w.marker) - 1; len(w.tail) > keep {
		w.tail = append(w.tail[:0], w.tail[len(w.tail)-keep:]...)
	}
	return len(p), nil
}

// reason strips the operation and path of an error.
func reason(err error) string {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return err.Error()
}

// seconds prints a duration as people say it: "10 s", "0.15 s".
func seconds(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%d s", d/time.Second)
	}
	return fmt.Sprintf("%.2g s", d.Seconds())
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
