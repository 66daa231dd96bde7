package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lab/kernel/console"
	"lab/kernel/qemu"
	"lab/lab/search"
	"lab/probe"
)

// snapshots are guests of a bisect that were saved at the end of their boot,
// before they touched their disk, for further runs of the same kernel.
//
// A snapshot is made of a boot that is good for nothing else, so that a run is
// either cold, which is the same as without snapshots, or restored.
type snapshots struct {
	mu   sync.Mutex
	list []*snapshot // the last used one last
	off  bool        // one could not be made or restored, or misled: there are no more
}

// A snapshot is one of them.
type snapshot struct {
	*qemu.Snapshot
	of      string // what of: see guest.saved
	console []byte // what it had written
	port    int    // on which it waits to be woken
}

const (
	// maxSnapshots bounds what a bisect keeps, each no larger than the guest's
	// memory: it seldom goes back and forth between more kernels than these.
	maxSnapshots = 3
	// coldEvery: of a kernel's runs the first boots, and each fourth behind it.
	// Restored ones have so much in common that they must not be the only witnesses.
	coldEvery = 4
)

// run is boot from a snapshot, which is made where there is none. It is false,
// with t as it was, where there is to be a cold boot instead.
func (s *snapshots) run(ctx context.Context, l *Lab, spec Spec, g *guest, t *Trial) (bool, error) {
	if g.emulator.Accel != "tcg" || s.isOff() {
		return false, nil // it was never tried with KVM, where a boot is short
	}
	held := *g
	held.hold = true
	m, f, err := held.machine(spec, t.Kernel)
	if err != nil {
		return false, err
	}
	defer f.Close()
	m.Snapshots = true

	restored, log := *t, console.NewLog(consoleLimit)
	restored.Restored = true
	m.Console = log
	vm, start, err := s.start(ctx, l, g.saved, m, log, spec.Machine.BootTimeout)
	if err == nil {
		err = watch(ctx, m, vm, log, start, spec.Machine.BootTimeout, spec.Test.Timeout, nil, &restored)
	}
	if err == nil && restored.End == EndBoot {
		err = errors.New("a restored guest does not wake up: " + restored.Detail)
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		l.notice(noSnapshots + oneLine(err.Error()))
		s.close()
		return false, nil
	}
	*t = restored
	return true, nil
}

// noSnapshots begins to say why.
const noSnapshots = "no snapshots, each run boots from here on: "

// start restores a guest and wakes it, and says when it began to.
func (s *snapshots) start(ctx context.Context, l *Lab, of string, m qemu.Machine, log *console.Log, bootTimeout time.Duration) (vm *qemu.VM, start time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock() // until it is restored, its snapshot must stay
	i := slices.IndexFunc(s.list, func(x *snapshot) bool { return x.of == of })
	if i < 0 {
		x, err := l.takeSnapshot(ctx, m, bootTimeout)
		if err != nil {
			return nil, start, err
		}
		if x.of, i = of, len(s.list); i == maxSnapshots {
			s.list[0].Close()
			s.list, i = s.list[1:], i-1
		}
		s.list = append(s.list, x)
	}
	x := s.list[i]
	s.list = append(slices.Delete(s.list, i, i+1), x)
	_, _ = log.Write(x.console)
	start = time.Now()
	if vm, err = m.Restore(ctx, x.Snapshot); err != nil {
		return nil, start, err
	}
	at := m.Clock
	if at.IsZero() {
		at = time.Now()
	}
	if err := probe.Wake(vm.Ports()[x.port], at); err != nil {
		vm.Kill()
		return nil, start, err
	}
	return vm, start, nil
}

// takeSnapshot boots the machine until its agent waits, and saves it.
func (l *Lab) takeSnapshot(ctx context.Context, m qemu.Machine, bootTimeout time.Duration) (*snapshot, error) {
	dir, err := l.dir("snapshots")
	if err != nil {
		return nil, err
	}
	log := console.NewLog(consoleLimit)
	m.Console = log
	vm, err := m.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer vm.Kill()
	helloCtx, cancel := context.WithTimeoutCause(ctx, bootTimeout, errNoHello)
	defer cancel()
	session, err := probe.Accept(helloCtx, vm.Ports())
	if err != nil {
		return nil, err
	}
	if !session.Hello.Held {
		return nil, errors.New("the agent does not wait to be saved")
	}
	x := &snapshot{port: session.Port}
	if x.Snapshot, err = vm.Save(ctx, dir); err != nil {
		return nil, err
	}
	<-vm.Done() // the console is whole
	x.console = log.Bytes()
	return x, nil
}

func (s *snapshots) isOff() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.off
}

// close frees the snapshots, and has no others made.
func (s *snapshots) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.list {
		x.Close()
	}
	s.list, s.off = nil, true
}

// repeated gives the guest for a test of a kernel: for a repeated run, one that may
// be restored.
func (b *bisection) repeated(g *guest, r Tested, known []record) *guest {
	if b.snapshots == nil || r.Role != RoleAgain || b.snapshots.isOff() {
		return g
	}
	all := bothWays(known)
	for _, x := range all {
		if x.differ(len(all)) {
			b.notice(noSnapshots + x.String())
			b.snapshots.close()
			return g
		}
	}
	if n := runsOf(known, r.Commit); (n.Bad+n.Good)%coldEvery == 0 {
		return g
	}
	again := *g
	again.saved, again.snapshots = r.bytes()+" "+g.disk.Path, b.snapshots
	return &again
}

// BothWays are a kernel's runs that booted, and those that went on from a snapshot
// of a boot.
type BothWays struct {
	Cold     Runs    `json:"cold"`
	Restored Runs    `json:"restored"`
	PValue   float64 `json:"p_value"` // how likely chance alone makes the two differ so much
}

// bothWays are the kernels that were run both ways.
func bothWays(records []record) []BothWays {
	at := map[string]int{}
	var all []BothWays
	for _, r := range records {
		t := r.Tested
		if t == nil || t.Kernel == "" || t.Inferred != "" || t.ByHand || t.Mark == Skip {
			continue
		}
		i, seen := at[t.bytes()]
		if !seen {
			i = len(all)
			at[t.bytes()] = i
			all = append(all, BothWays{Cold: Runs{Commit: t.Commit}, Restored: Runs{Commit: t.Commit}})
		}
		runs := &all[i].Cold
		if t.Restored {
			runs = &all[i].Restored
		}
		if t.Mark == Bad {
			runs.Bad++
		} else {
			runs.Good++
		}
	}
	all = slices.DeleteFunc(all, func(x BothWays) bool { return x.Restored.Bad+x.Restored.Good == 0 })
	for i := range all {
		cold, restored := all[i].Cold.evidence(), all[i].Restored.evidence()
		all[i].PValue = min(1, 2*min(search.Fisher(cold, restored), search.Fisher(restored, cold)))
	}
	return all
}

// differ tells, of one of so many kernels, whether its runs are not the same both
// ways: chance alone says so of one bisect in a hundred.
func (x BothWays) differ(of int) bool { return x.PValue*float64(of) < .01 }

// FromSnapshots says in a line how many runs went on from a snapshot, and whether
// they came out like those that booted; empty where none did.
func (b *Bisection) FromSnapshots() string {
	var cold, restored int
	p := 1.0
	for _, x := range b.Restored {
		if x.differ(len(b.Restored)) {
			return "not sure: " + x.String()
		}
		cold, restored = cold+x.Cold.Bad+x.Cold.Good, restored+x.Restored.Bad+x.Restored.Good
		p = min(p, x.PValue*float64(len(b.Restored)))
	}
	if restored == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d runs of %s went on from a snapshot, and differ from those that booted no more than by chance (p = %.2g)",
		restored, cold+restored, plural(len(b.Restored), "kernel"), p)
}

func (x BothWays) String() string {
	return fmt.Sprintf("%s fails %d of %d runs from a snapshot, and %d of %d that boot (p = %.2g)", name(x.Cold.Commit),
		x.Restored.Bad, x.Restored.Bad+x.Restored.Good, x.Cold.Bad, x.Cold.Bad+x.Cold.Good, x.PValue)
}
