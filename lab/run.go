package lab

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/probe"
)

// Run does one trial and judges it.
func (l *Lab) Run(ctx context.Context, s Spec) (Trial, Verdict, error) {
	if err := s.Validate(); err != nil {
		return Trial{}, Verdict{}, err
	}
	t, err := l.run(ctx, s)
	if err != nil {
		return Trial{}, Verdict{}, err
	}
	l.sayNotes(t)
	return t, Judge(t, s.Symptom), nil
}

// run finds the kernel and makes the guest before it builds anything: what is
// missing is said at once, not after minutes of compiling.
func (l *Lab) run(ctx context.Context, s Spec) (Trial, error) {
	k, g, err := l.readied(ctx, s)
	if err != nil {
		return Trial{}, err
	}
	defer k.Close()
	t, err := k.trial(ctx)
	if err != nil || t.End != EndBuilt || g == nil {
		return t, err
	}
	return t, l.try(ctx, s, g, &t)
}

// readied finds the kernel, and makes the guest where one is needed.
func (l *Lab) readied(ctx context.Context, s Spec) (k source, g *guest, err error) {
	if k, err = l.source(ctx, s); err != nil || !s.needsGuest() {
		return k, nil, err
	}
	if g, err = l.prepare(ctx, s, nil); err != nil {
		k.Close()
	}
	return k, g, err
}

// A source is where the one kernel of a run comes from: ready made, or a
// commit that is still to be built.
type source struct {
	*Lab
	ready   kernel.Kernel
	tree    *kernel.Tree
	commit  kernel.Commit
	options kernel.BuildOptions
}

func (l *Lab) source(ctx context.Context, s Spec) (source, error) {
	var err error
	k := source{Lab: l}
	if s.Kernel.File != "" {
		k.ready, err = l.readyMade(ctx, s, "")
		return k, err
	}
	if k.tree, k.options, err = l.openTree(ctx, s); err != nil {
		return k, err
	}
	if k.commit, err = k.tree.Resolve(ctx, s.Kernel.Commit); err != nil {
		k.Close()
	}
	return k, err
}

func (k source) trial(ctx context.Context) (Trial, error) {
	if k.tree == nil {
		return Trial{Kernel: k.ready, End: EndBuilt}, nil
	}
	return k.tryBuild(ctx, k.tree, k.commit, k.options)
}

func (k source) Close() {
	if k.tree != nil {
		k.tree.Close()
	}
}

// openTree opens the repository of a spec and says how its kernels are built.
// Files that cannot be used are refused before anything begins.
func (l *Lab) openTree(ctx context.Context, s Spec) (*kernel.Tree, kernel.BuildOptions, error) {
	o, err := l.buildOptions(ctx, s)
	if err != nil {
		return nil, o, err
	}
	l.Progress.Show("opening %s", s.Kernel.Repo)
	defer l.Progress.Show("")
	dir, err := l.repository(ctx, s.Kernel.Repo)
	if err != nil {
		return nil, o, err
	}
	tree, err := kernel.OpenTree(ctx, l.Cache, dir)
	if err != nil {
		return nil, o, err
	}
	for _, text := range s.Kernel.Picks {
		p, err := tree.Pick(ctx, text)
		if err != nil {
			tree.Close()
			return nil, o, err
		}
		o.Picks = append(o.Picks, p)
	}
	return tree, o, nil
}

// repository gives the folder of a repository: for a URL that of a clone, which
// is kept.
func (l *Lab) repository(ctx context.Context, repo string) (dir string, err error) {
	if !kernel.IsURL(repo) {
		return repo, nil
	}
	return kernel.Clone(ctx, l.Cache, repo, kernel.CloneOptions{
		Progress: func(line string) { l.Progress.Show("getting the repository: %s", line) },
		Notice:   func(text string) { l.Progress.Say("%s", text) },
	})
}

// buildOptions is how the kernels of a spec are built, but for the picks.
func (l *Lab) buildOptions(ctx context.Context, s Spec) (kernel.BuildOptions, error) {
	o := kernel.BuildOptions{Jobs: s.Kernel.Jobs, Notice: l.notice}
	var err error
	if o.Fragments, err = l.fragments(ctx, s.Kernel); err != nil {
		return o, err
	}
	if s.Machine.Exact {
		f, err := l.fragment(ctx, "exact")
		if err != nil {
			return o, err
		}
		o.Fragments = append(o.Fragments, f)
	}
	for _, file := range s.Kernel.Patches {
		p, err := kernel.ReadPatch(ctx, file)
		if err != nil {
			return o, err
		}
		o.Patches = append(o.Patches, p)
	}
	if len(s.Images) > 0 && s.needsGuest() {
		o.Refuse = l.refuse(s)
	}
	o.Toolchain, err = l.toolchain(ctx, s)
	return o, err
}

// notice says what is to be said once, however many builds there are.
func (l *Lab) notice(text string) {
	if _, said := l.noticed.LoadOrStore(text, true); !said {
		l.Progress.Say("%s", text)
	}
}

// build makes a commit's kernel. The trial it gives ended in EndBuild where
// the kernel does not build, where its configuration shows that it is not worth it
// as [Spec.refuse] says, and else stands at EndBuilt.
func (l *Lab) build(ctx context.Context, tree *kernel.Tree, c kernel.Commit, o kernel.BuildOptions) (Trial, error) {
	start := time.Now()
	defer l.show(c.Hash, "")
	l.show(c.Hash, "building %s", short(c.Hash))
	o.Progress = l.buildProgress(c.Hash)
	k, failure, cached, err := tree.Build(ctx, c.Hash, o)
	if err != nil {
		return Trial{}, err
	}
	t := Trial{Kernel: k, End: EndBuilt, Cached: cached, Build: time.Since(start)}
	if failure != nil {
		t.End, t.Failure, t.Detail = EndBuild, failure, oneLine(failure.Line)
		t.Kernel.Commit = c.Hash
		if end := End(failure.Step); end == EndBoot || end == EndSetup {
			t.End, t.Failure, t.Detail = end, nil, failure.Line
		}
		return t, nil
	}
	if lost := strings.Join(k.Missing, "\n  "); lost != l.lost {
		if l.lost = lost; lost != "" {
			l.Progress.Say("config: %s of what was asked for did not survive in %s:\n  %s", plural(len(k.Missing), "symbol"), short(c.Hash), lost)
		}
	}
	return t, nil
}

// tryBuild is build, and says what there is to say of picks, patches and known
// breakages.
func (l *Lab) tryBuild(ctx context.Context, tree *kernel.Tree, c kernel.Commit, o kernel.BuildOptions) (Trial, error) {
	t, err := l.build(ctx, tree, c, o)
	if err != nil {
		return t, err
	}
	l.sayOnTop(c, t.Kernel.OnTop)
	known := t.Kernel.Known
	if t.Failure != nil && t.Failure.Hint != nil {
		known = append(slices.Clone(known), *t.Failure.Hint)
	}
	l.sayKnown(c.Hash, known)
	return t, nil
}

// sayKnown tells known breakages, each kind once.
func (l *Lab) sayKnown(hash string, known []kernel.Breakage) {
	l.saying.Lock()
	defer l.saying.Unlock()
	for _, b := range known {
		if l.known[b.Kind] {
			continue // once is enough
		}
		if l.known == nil {
			l.known = map[string]bool{}
		}
		l.known[b.Kind] = true
		l.Progress.Say("known, seen first at %s: %s", short(hash), b)
	}
}

// sayOnTop says what became of the picks and patches, unless it is what it was
// for the last commit.
func (l *Lab) sayOnTop(c kernel.Commit, on []kernel.Addition) {
	var all strings.Builder
	for _, a := range on {
		all.WriteString("\n  " + oneLine(a.String()) + ": " + a.State)
		if a.Why != "" {
			all.WriteString(", " + a.Why)
		}
	}
	if s := all.String(); s != l.onTop {
		if l.onTop = s; s != "" {
			l.Progress.Say("on top of %s:%s", short(c.Hash), s)
		}
	}
}

// buildProgress tells how far a build is.
func (l *Lab) buildProgress(hash string) func(line string, objects, total int) {
	start := time.Now()
	return func(line string, objects, total int) {
		switch {
		case objects == 0 && strings.HasPrefix(line, "waiting"):
			l.show(hash, "%s", line)
		case total > 0:
			l.show(hash, "building %s: %d of about %d objects, %s", short(hash), objects, total, seconds(time.Since(start)))
		default:
			l.show(hash, "building %s: %d objects, %s", short(hash), objects, seconds(time.Since(start)))
		}
	}
}

// some names the first few of a list.
func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// try boots the trial's kernel with the guest and runs the test.
func (l *Lab) try(ctx context.Context, s Spec, g *guest, t *Trial) error {
	if ok, err := checkConfig(s, t); !ok {
		return err
	}
	t.QEMU = g.emulator.version
	of := fmt.Sprintf("%p", t) // several of one kernel may be under way
	what := t.Kernel.Release
	if t.Kernel.Commit != "" {
		what = short(t.Kernel.Commit) + ": " + what
	}
	l.show(of, "booting %s", what)
	defer l.show(of, "")
	before := *t
	defer checkModules(s.Kernel.Modules, t)
	defer l.checkCrash(t)
	if g.snapshots != nil {
		if done, err := g.snapshots.run(ctx, l, s, g, t); done || err != nil {
			return err
		}
	}
	m, f, err := g.machine(s, t.Kernel)
	if err != nil {
		return err
	}
	defer f.Close()
	accel := g.emulator.accel
	if err := boot(ctx, m, s.Machine.BootTimeout, s.Test.Timeout, t); err != nil || accel.Name != "kvm" || accel.Proof == qemu.ProofLinux {
		return err
	}
	return l.proveKVM(ctx, m, s, before, t)
}

// checkCrash says of a kernel that lab built, and that did not come up or died,
// what is known of it.
func (l *Lab) checkCrash(t *Trial) {
	if t.Kernel.Commit == "" || t.End != EndBoot && t.End != EndCrash {
		return
	}
	if b := kernel.KnownCrash(t.Console); b != nil {
		t.Kernel.Known = append(slices.Clone(t.Kernel.Known), *b)
		l.sayKnown(t.Kernel.Commit, []kernel.Breakage{*b})
	}
}

// sayNotes tells what the guest had to say of the kernel, as what it lacks.
func (l *Lab) sayNotes(t Trial) {
	if len(t.Result.Notes) == 0 {
		return
	}
	var all strings.Builder
	for _, n := range t.Result.Notes {
		all.WriteString("\n  " + oneLine(n))
	}
	l.Progress.Say("notes of the guest:%s", all.String())
}

// proveKVM learns from the first boot of a Linux with a KVM that is proven by
// no more than a small guest. One that did not get the kernel to userspace is
// not trusted: the trial is done again with TCG, and if that boots it, TCG is
// used on this host from now on.
func (l *Lab) proveKVM(ctx context.Context, m qemu.Machine, s Spec, before Trial, t *Trial) error {
	dir, err := l.dir("host")
	if err != nil {
		return err
	}
	learned := qemu.Accel{Name: "kvm", Reason: "a Linux booted with it", Proof: qemu.ProofLinux, Tried: time.Now().UTC()}
	if t.End == EndBoot {
		l.Progress.Say("%s does not boot with KVM (%s): trying without", t.Kernel.Release, t.Detail)
		m.Accel = "tcg"
		if err := boot(ctx, m, s.Machine.BootTimeout, s.Test.Timeout, &before); err != nil {
			return err
		}
		if *t = before; t.End == EndBoot {
			return nil // the kernel's own fault
		}
		learned.Name, learned.Reason = "tcg", "a Linux that boots with tcg did not boot with kvm"
	}
	return qemu.Remember(ctx, dir, m.Binary, learned)
}

// An emulator is the part of a virtual machine that does not depend on what is
// booted, and what is known of the QEMU behind it.
type emulator struct {
	qemu.Machine
	version string
	accel   qemu.Accel // zero where the user chose
}

// emulator finds QEMU and chooses the accelerator.
func (l *Lab) emulator(ctx context.Context, s MachineSpec) (emulator, error) {
	e := emulator{Machine: qemu.Machine{Binary: s.QEMU, Accel: s.Accel, Memory: s.Memory, CPUs: s.CPUs, Ports: []string{probe.Port}}}
	var err error
	if e.Binary == "" {
		if e.Binary, err = qemu.Find(runtime.GOARCH); err != nil {
			return e, err
		}
	}
	if e.version, err = qemu.Version(ctx, e.Binary); err != nil {
		return e, err
	}
	if s.Exact {
		e.Exact, e.Accel = true, "tcg"
	}
	if e.Accel == "" {
		e.accel, err = l.Accelerator(ctx, e.Binary, false)
		e.Accel = e.accel.Name
	}
	return e, err
}

// Accelerator says which accelerator works on this host: KVM only where a
// real boot proved it. The answer is remembered for the host; refresh asks
// the machine again.
func (l *Lab) Accelerator(ctx context.Context, binary string, refresh bool) (qemu.Accel, error) {
	dir, err := l.dir("host")
	if err != nil {
		return qemu.Accel{}, err
	}
	l.Progress.Show("checking whether KVM works here")
	defer l.Progress.Show("")
	return qemu.Accelerator(ctx, dir, qemu.ProbeOptions{Binary: binary, Refresh: refresh})
}

func short(hash string) string {
	hash = strings.TrimPrefix(hash, "sha256:")
	if len(hash) > 12 {
		return hash[:12]
	}
	return hash
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
