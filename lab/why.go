package lab

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"lab/kernel/origin"
	"lab/kernel/qemu"
	"lab/lab/bundle"
	"lab/probe/trace"
)

// A Why is where the error came from with which a kernel answered a system call.
type Why struct {
	RunDiff
	// At is where the error was made, the innermost of functions that are inlined first.
	At []origin.Place `json:"at"`
	// Chain are the calls that had led there, the innermost first.
	Chain []origin.Place `json:"chain"`
	// Returned are the functions that returned the error, the first first.
	Returned []string `json:"returned,omitempty"`
	Steps    int      `json:"steps"` // instructions of the kernel that were followed
}

// WhyLive compares two combinations as DiffLive does, boots the second one once more,
// stops at the system call that was answered differently, follows the kernel
// instruction by instruction to its end, and finds out where the error came from.
// Vmlinux is the file with the symbols of its kernel; empty for what lab built with
// it, or else what the kernel itself tells.
func (l *Lab) WhyLive(ctx context.Context, o MatrixOptions, vmlinux string) (w Why, err error) {
	if err := o.Spec.Validate(); err != nil {
		return w, err
	}
	m := &matrix{Lab: l}
	defer m.Close()
	if w.RunDiff, err = m.diff(ctx, o); err != nil {
		return w, err
	}
	mark, err := w.mark()
	if err != nil {
		return w, err
	}
	b := *m.cells[1]
	b.spec.Test.Trace, b.spec.Test.Mark = true, &mark
	b.spec.Machine.Accel, b.spec.Machine.CPUs, b.spec.Machine.Exact = "tcg", 1, false
	t, g, err := m.ready(ctx, &b)
	if err != nil {
		return w, err
	}
	machine, f, err := g.machine(b.spec, t.Kernel)
	if err != nil {
		return w, err
	}
	defer f.Close()
	return w, l.explain(ctx, &w, machine, mark, cmp.Or(vmlinux, t.Kernel.SystemMap), &t)
}

// WhyEnds is WhyLive with the good and the bad kernel of a bundle, which are compared
// as DiffEnds does with Trace. Without symbols with lines of the source, and without a
// vmlinux in the bundle, functions are named by its System.map.
func (l *Lab) WhyEnds(ctx context.Context, from BundleSource, o EndsOptions, s Symbols) (w Why, err error) {
	opened, err := l.openBundle(ctx, from, true)
	if err != nil {
		return w, err
	}
	defer opened.Close()
	r := rerunner{Lab: l, bundle: opened.Bundle, file: from.String(), dir: opened.dir}
	o.Trace = true
	if w.RunDiff, err = r.diff(ctx, o); err != nil {
		return w, err
	}
	mark, err := w.mark()
	if err != nil {
		return w, err
	}
	if r.test == nil { // the recorded runs were traced
		if err := r.open(ctx, ReproduceOptions{QEMU: o.QEMU}); err != nil {
			return w, err
		}
	}
	test := r.bundle.Manifest.Test
	test.Trace, test.Mark = true, &mark
	r.test = &test
	k, err := bootable(r.bundle.Manifest, bundle.RoleBad)
	if err != nil {
		return w, fmt.Errorf("%s %w", from, err)
	}
	r.qemu.CPUs, r.qemu.Exact = 1, false
	machine, err := r.machine(ctx, k)
	if err != nil {
		return w, err
	}
	vmlinux, err := r.vmlinux(ctx, k, s)
	if err == nil && vmlinux == "" {
		vmlinux = r.bundle.Path(path.Join(path.Dir(k.Image), "System.map"))
	}
	if err != nil {
		return w, err
	}
	t := r.begin(k)
	return w, l.explain(ctx, &w, machine, mark, vmlinux, &t)
}

// mark is the call of B that is to be explained.
func (w Why) mark() (m trace.Mark, err error) {
	c := w.Call
	switch {
	case c == nil && w.Traced != "":
		return m, fmt.Errorf("explain: %s", w.Traced)
	case c == nil || !c.Answer:
		return m, fmt.Errorf("explain: no system call was answered differently: %s", w.First)
	case c.B.Errno == "" && c.A.Errno != "":
		return m, fmt.Errorf("explain: it is A that answered %s with an error, %s: exchange the two, to have A explained", printable(c.Name), printable(c.A.Errno))
	case c.B.Errno == "":
		return m, fmt.Errorf("explain: %s was answered differently, but with no error: what a call returned or wrote otherwise is not followed", printable(c.Name))
	}
	return trace.Mark{PID: c.B.PID, Call: c.Name, N: c.B.Nth}, nil
}

// explain boots the machine, has the kernel watched in the call that is marked, and
// finds the error's origin.
func (l *Lab) explain(ctx context.Context, w *Why, m qemu.Machine, mark trace.Mark, file string, t *Trial) error {
	var symbols *origin.Symbols
	if file != "" {
		var err error
		if symbols, err = origin.ReadSymbols(file); err != nil {
			return err
		}
	}
	defer l.Progress.Show("")
	m.Cmdline += " nokaslr" // the symbols are where the kernel was linked to
	var walk *origin.Walk
	err := l.stopped(ctx, m, t, func(ctx context.Context, socket string, _ <-chan struct{}) (err error) {
		l.Progress.Show("booting to the system call")
		walk, symbols, err = origin.Follow(ctx, socket, symbols, origin.Mark{Call: mark.Call, Addr: trace.MarkAddr, Magic: trace.MarkMagic}, func(steps int) {
			l.Progress.Show("following the kernel through %s, %d instructions", mark.Call, steps)
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("explain: %w", err)
	}
	return w.find(walk, symbols)
}

// netlinkAck is the kernel's function that writes acknowledgements
// (net/netlink/af_netlink.c).
const netlinkAck = "netlink_ack"

// find finds the error's origin in what was executed.
func (w *Why) find(walk *origin.Walk, symbols *origin.Symbols) error {
	w.Steps = len(walk.Steps)
	call := w.Call.B
	number := int32(0)
	for n := unix.Errno(1); n < 4096; n++ {
		if unix.ErrnoName(n) == call.Errno {
			number = int32(n)
		}
	}
	var from origin.Origin
	if call.Acknowledged {
		begin, end := symbols.Extent(netlinkAck)
		var ok bool
		if from, ok = walk.OfStore(begin, end, -number); !ok {
			return fmt.Errorf("explain: this time %s wrote no -%s into an acknowledgement", netlinkAck, call.Errno)
		}
	} else {
		if got := walk.Result(); got != -number {
			return fmt.Errorf("explain: this time %s returned %d, and not -%s", w.Call.Name, got, call.Errno)
		}
		from = walk.OfResult()
	}
	if from.Step < 0 {
		return fmt.Errorf("explain: -%s was in memory before the call was made", call.Errno)
	}
	w.At, w.Chain = walk.At(from.Step, symbols)
	w.Returned = walk.Returned(from, symbols)
	return nil
}

// Text is the explanation for people.
func (w Why) Text() string {
	var b strings.Builder
	call := w.Call.B
	how := "answered"
	if call.Acknowledged {
		how = "acknowledged"
	}
	fmt.Fprintf(&b, "A is %s\nB is %s\n\n%s.\n\nIn B\n\n  %s\n\nis %s with -%s, which was made by\n\n", w.A, w.B, w.First, printable(call.Call), how, printable(call.Errno))
	fmt.Fprintf(&b, "  %s\n", printable(w.At[0].String()))
	for _, p := range append(w.At[1:len(w.At):len(w.At)], w.Chain...) {
		fmt.Fprintf(&b, "    called by %s\n", printable(p.String()))
	}
	if len(w.Returned) > 0 {
		fmt.Fprintf(&b, "\nreturned by %s", printable(strings.Join(w.Returned, ", ")))
		if call.Acknowledged {
			fmt.Fprintf(&b, "; written by %s", netlinkAck)
		}
		b.WriteString("\n")
	}
	for _, n := range w.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", n)
	}
	fmt.Fprintf(&b, "\n%d instructions of the kernel were followed.\n", w.Steps)
	return b.String()
}
