package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"lab/disk"
	"lab/kernel"
	"lab/kernel/kconfig"
	"lab/kernel/qemu"
	"lab/lab/bundle"
	"lab/probe"
)

// Outcomes of a reproduction.
const (
	Same      = "same"          // both kernels did what was recorded
	Different = "different"     // at least one did not
	CannotRun = "could not run" // at least one could not be judged here
	Fixed     = "fixed"         // another kernel does not show what the bad one still does
	NotFixed  = "not fixed"     // it does
)

// A Reproduction compares a bundle's recorded runs with new ones.
type Reproduction struct {
	Outcome string   `json:"outcome"`
	Runs    []Rerun  `json:"runs"`
	Notes   []string `json:"notes,omitempty"` // what is not as on the recording machine, and may matter
	// Tried is the test on a kernel that the bundle does not have, where one was
	// given. Outcome is then what it says: Fixed, NotFixed or CannotRun.
	Tried *Rerun `json:"tried,omitempty"`

	Manifest bundle.Manifest `json:"-"`
}

// A Rerun is one recorded run, done again.
type Rerun struct {
	Role     string     `json:"role"`
	Kernel   string     `json:"kernel"`   // what the kernel is called: its release and commit
	Recorded bundle.Run `json:"recorded"` // of one that the bundle does not have that of the bad kernel
	Verdict
	Identical   bool     `json:"identical,omitempty"` // of exact runs: the guest said the same, byte by byte
	Runs        int      `json:"runs"`                // a failure that comes at times is looked for more than once
	Outcome     string   `json:"outcome"`
	Differences []string `json:"differences,omitempty"`
	// Diffs are, of what the test said, the unified diffs from then to now, without
	// what changes from run to run: times, addresses and process numbers.
	Diffs []string `json:"diffs,omitempty"`
	Trial Trial    `json:"trial"`
}

// RoleTried is the role of a kernel that the bundle does not have.
const RoleTried = "tried"

// ReproduceOptions may change the machine of a reproduction; zero fields are
// as recorded.
type ReproduceOptions struct {
	QEMU string
	// AllowKVM lets a stranger's kernels have KVM, where it works.
	AllowKVM bool
	// Exact demands that the runs are the recorded ones byte by byte. A bundle of exact
	// runs is rerun exactly without it too, and what differs is said.
	Exact bool
	// Replay plays back the bundle's recordings, and boots nothing else.
	Replay bool
	// Kernel is another kernel to try the bundle's test on; a commit is built with
	// the bad kernel's configuration, unless it names another.
	Kernel *KernelSpec
}

// Reproduce verifies the bundle of a source, boots its good and its bad kernel
// once more and compares. A bundle that is damaged or odd gives a
// *bundle.RefusedError, and nothing of it was used. The machine is built from
// the manifest's fields; no recorded command line is.
func (l *Lab) Reproduce(ctx context.Context, from BundleSource, o ReproduceOptions) (Reproduction, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return Reproduction{}, err
	}
	defer b.Close()
	r := rerunner{Lab: l, bundle: b.Bundle, file: from.String(), dir: b.dir}
	if err := r.open(ctx, o); err != nil {
		return Reproduction{}, err
	}
	m := b.Manifest
	l.Progress.Say("verified: %d members, made by lab %s with QEMU %s", len(m.Members), m.Lab, m.Machine.QEMU)
	if o.Replay {
		return r.playBack(ctx)
	}
	var tried Trial
	if o.Kernel != nil { // what does not build is known before anything is booted
		if tried, err = r.build(ctx, *o.Kernel); err != nil {
			return Reproduction{}, err
		}
	}
	found := Reproduction{Outcome: Same, Manifest: m, Notes: r.notes()}
	for _, role := range []string{bundle.RoleGood, bundle.RoleBad} {
		run, err := r.rerun(ctx, role)
		if err != nil {
			return Reproduction{}, err
		}
		found.Runs = append(found.Runs, run)
		l.Progress.Say("  %s: %s (recorded: %s)", run.Mark, run.Reason, run.Recorded.Verdict)
		if run.Outcome == Different || found.Outcome == Same {
			found.Outcome = run.Outcome
		}
	}
	if o.Kernel == nil {
		return found, nil
	}
	run, err := r.try(ctx, tried, found.Runs[1])
	if err != nil {
		return Reproduction{}, err
	}
	l.Progress.Say("  %s on %s: %s", run.Mark, run.Kernel, run.Reason)
	found.Tried, found.Outcome = &run, run.Outcome
	return found, nil
}

// rerunner runs the test of an open bundle.
type rerunner struct {
	*Lab
	bundle *bundle.Bundle
	file   string // what the user calls it
	dir    string // of the quarantine
	disk   string
	qemu   emulator
	exact  bool        // runs that are not the recorded ones byte by byte are different
	runs   int         // of a kernel that does not fail before
	test   *probe.Spec // in the place of the bundle's, by an agent of our own; nil for the bundle's
}

// open expands the disk and makes the machine, all of a stranger's.
func (r *rerunner) open(ctx context.Context, o ReproduceOptions) (err error) {
	m := r.bundle.Manifest
	spec := MachineSpec{QEMU: o.QEMU, Accel: "tcg", Memory: m.Machine.Memory, CPUs: m.Machine.CPUs, Exact: m.Machine.Exact}
	if o.Exact && !m.Machine.Exact {
		return fmt.Errorf("%s has no exact runs: it was not made by lab bisect --exact", r.file)
	}
	r.exact = o.Exact
	if o.AllowKVM {
		spec.Accel = ""
	}
	if r.qemu, err = r.emulator(ctx, spec); err != nil {
		return err
	}
	r.qemu.Confined, r.qemu.CPU, r.qemu.Clock = true, m.Machine.CPU, m.Machine.Clock
	r.disk = filepath.Join(r.dir, "disk.img")
	r.runs = enoughRuns(m.Rate)
	if m.Disk.Member == "" {
		return r.rebuildDisk(ctx)
	}
	return r.bundle.Expand(ctx, m.Disk.Member, r.disk)
}

// enoughRuns is how often a bad kernel is run to see it fail with a probability
// of 99 %, when it fails at this rate.
func enoughRuns(rate float64) int {
	if rate <= 0 || rate >= .99 {
		return 1
	}
	return min(int(math.Ceil(math.Log(1-.99)/math.Log(1-rate))), defaultMaxRuns)
}

// notes are what of the machine is not as it was.
func (r *rerunner) notes() []string {
	var notes []string
	m := r.bundle.Manifest
	note := func(what, then, now string) {
		if then != now {
			notes = append(notes, fmt.Sprintf("%s was %s and is %s here", what, then, now))
		}
	}
	note("QEMU", m.Machine.QEMU, r.qemu.version)
	note("the accelerator", m.Machine.Accel, r.qemu.Accel)
	if m.Machine.Accel == "kvm" || r.qemu.Accel == "kvm" { // then it shines through
		note("the host's processor", m.Host.CPU, host().CPU)
	}
	return notes
}

// quarantine makes a folder for a bundle's members, and removes those that labs
// left behind which were killed: a folder is locked while it is in use.
func (l *Lab) quarantine() (dir string, leave func(), err error) {
	root, err := l.dir("quarantine")
	if err != nil {
		return "", nil, err
	}
	gate := flock.New(filepath.Join(root, ".lock"))
	if err := gate.Lock(); err != nil {
		return "", nil, fmt.Errorf("lock quarantine: %w", err)
	}
	defer gate.Unlock()
	old, _ := filepath.Glob(filepath.Join(root, "bundle-*"))
	for _, dir := range old {
		if f, err := lockDir(dir); err == nil {
			os.RemoveAll(dir)
			f.Close()
		}
	}
	if dir, err = os.MkdirTemp(root, "bundle-"); err != nil {
		return "", nil, fmt.Errorf("make quarantine: %w", err)
	}
	f, err := lockDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("lock quarantine %s: %w", dir, err)
	}
	return dir, func() { os.RemoveAll(dir); f.Close() }, nil
}

// lockDir locks a folder until the file it gives is closed; one that is locked
// already is an error.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// rerun does one recorded run again: until it ends as the record did, where the
// failure comes at times.
func (r *rerunner) rerun(ctx context.Context, role string) (Rerun, error) {
	m := r.bundle.Manifest
	k, _ := m.Kernel(role)
	recorded, _ := m.Run(role)
	run := Rerun{Role: role, Recorded: recorded, Kernel: kernelName(k)}
	machine, err := r.machine(ctx, k)
	if err != nil {
		return Rerun{}, err
	}
	defer r.Progress.Show("")
	for run.Runs < r.runs && (run.Runs == 0 || string(run.Mark) != recorded.Verdict) {
		run.Runs++
		r.showBoot("the "+role+" kernel, "+run.Kernel, run.Runs)
		t := r.begin(k)
		if err := boot(ctx, machine, time.Duration(m.Machine.BootTimeout), m.Test.Timeout, &t); err != nil {
			return Rerun{}, err
		}
		run.Trial, run.Verdict = t, Judge(t, Symptom(m.Symptom))
	}
	return run, r.compare(&run)
}

// machine makes the machine of a kernel of the bundle.
func (r *rerunner) machine(ctx context.Context, k bundle.Kernel) (qemu.Machine, error) {
	m := r.qemu.Machine
	m.Kernel, m.Initrd = r.bundle.Path(k.Image), filepath.Join(r.dir, k.Role+"-initramfs")
	of := r.bundle.Manifest
	m.Cmdline, m.Disks = cmdlineOf(m, of.Machine.Cmdline), []qemu.Disk{{Path: r.disk, Size: of.Disk.Size}}
	if err := os.RemoveAll(m.Initrd); err != nil { // of the run before
		return m, fmt.Errorf("remove initramfs: %w", err)
	}
	if err := r.bundle.Expand(ctx, k.Initramfs.Member, m.Initrd); err != nil || r.test == nil {
		return m, err
	}
	agent, err := r.Agent()
	if err != nil {
		return m, err
	}
	return m, addInitramfs(m.Initrd, &guest{test: *r.test, agent: agent})
}

// begin is the trial of a kernel of the bundle, before it is booted.
func (r *rerunner) begin(k bundle.Kernel) Trial {
	return Trial{Kernel: kernel.Kernel{Release: k.Release, Commit: k.Commit, Digest: k.Digest}, End: EndBuilt, QEMU: r.qemu.version}
}

func (r *rerunner) showBoot(what string, n int) {
	if r.runs > 1 {
		what += fmt.Sprintf(" (run %d of at most %d)", n, r.runs)
	}
	r.Progress.Show("booting %s", what)
}

// build makes a kernel that the bundle does not have, or finds it.
func (r *rerunner) build(ctx context.Context, k KernelSpec) (Trial, error) {
	if k.Repo != "" && len(k.Config) == 0 {
		file := filepath.Join(r.dir, "config")
		bad, _ := r.bundle.Manifest.Kernel(bundle.RoleBad)
		if err := r.safeConfig(bad, file); err != nil {
			return Trial{}, err
		}
		k.Config = []string{file}
	}
	spec := Spec{Kernel: k, Machine: MachineSpec{Exact: r.bundle.Manifest.Machine.Exact}}
	if k.File != "" {
		spec.Kernel.Modules = r.bundle.Manifest.Machine.Modules
	}
	source, err := r.source(ctx, spec)
	if err != nil {
		return Trial{}, err
	}
	defer source.Close()
	return source.trial(ctx)
}

// safeConfig writes those lines of a kernel's configuration that a build may
// have from a stranger. A text can be more than that: it gets into make, which runs
// what is in $(…), and into the names of files that are built in.
func (r *rerunner) safeConfig(k bundle.Kernel, file string) error {
	if k.Config == "" {
		return fmt.Errorf("the bundle has no configuration to build with: name one with --config")
	}
	f, err := os.Open(r.bundle.Path(k.Config))
	if err != nil {
		return fmt.Errorf("read the bundle's configuration: %w", err)
	}
	defer f.Close()
	config, err := kconfig.Parse(f)
	if err != nil {
		return fmt.Errorf("read the bundle's configuration: %w", err)
	}
	maps.DeleteFunc(config, func(_, value string) bool { return !isSafeValue.MatchString(value) })
	return os.WriteFile(file, config.Bytes(), 0o600)
}

// isSafeValue has the values of a configuration without the texts in which make,
// the shell or the file system could see more.
var isSafeValue = regexp.MustCompile(`^([ymn]|-?[0-9]+|0[xX][0-9a-fA-F]+|"[A-Za-z0-9_,:= -]*")$`)

// try runs the test on a kernel that the bundle does not have, with an agent of
// our own. The bad kernel's rerun says whether a good verdict means something.
func (r *rerunner) try(ctx context.Context, t Trial, bad Rerun) (run Rerun, err error) {
	m := r.bundle.Manifest
	run = Rerun{Role: RoleTried, Recorded: bad.Recorded, Kernel: t.Kernel.Release, Outcome: CannotRun}
	if t.Kernel.Commit != "" {
		run.Kernel = strings.TrimSpace(t.Kernel.Release + " of " + short(t.Kernel.Commit))
	}
	defer func() {
		switch {
		case run.Mark == Bad:
			run.Outcome = NotFixed
		case run.Mark == Good && bad.Mark == Bad:
			run.Outcome = Fixed
		case run.Mark == Good:
			run.Differences = append(run.Differences, "it is good, but so is the bundle's bad kernel here: that says nothing")
		}
	}()
	if run.Trial, run.Verdict = t, Judge(t, Symptom(m.Symptom)); t.End != EndBuilt {
		return run, nil
	}
	agent, err := r.Agent()
	if err != nil {
		return run, err
	}
	g := &guest{emulator: r.qemu, disk: disk.Image{Path: r.disk, Size: m.Disk.Size}, test: m.Test, agent: agent}
	spec := Spec{Test: m.Test, Machine: MachineSpec{Cmdline: m.Machine.Cmdline, BootTimeout: time.Duration(m.Machine.BootTimeout), Exact: m.Machine.Exact}}
	if t.Kernel.Commit == "" {
		spec.Kernel.Modules = m.Machine.Modules
	}
	defer r.Progress.Show("")
	for run.Runs < r.runs && (run.Runs == 0 || run.Mark == Good) {
		run.Runs++
		run.Trial = t
		if err := r.Lab.try(ctx, spec, g, &run.Trial); err != nil {
			return run, err
		}
		run.Verdict = Judge(run.Trial, Symptom(m.Symptom))
	}
	return run, nil
}

// exitOf is what a bundle records of a test's exit: 0 where it has none.
func exitOf(t Trial) int {
	if t.End != EndTest {
		return 0
	}
	return t.Result.Exit
}

func kernelName(k bundle.Kernel) string {
	if k.Package != nil {
		return fmt.Sprintf("%s of %s", k.Release, k.Title)
	}
	if k.Commit == "" {
		return k.Release
	}
	name := fmt.Sprintf("%s of %s", k.Release, short(k.Commit))
	if n := len(k.Applied); n == 1 {
		name += " with 1 patch"
	} else if n > 1 {
		name += fmt.Sprintf(" with %d patches", n)
	}
	return name
}

// trialFile is the file of a saved trial that holds all but its texts.
const trialFile = "trial.json"

func readTrial(name string) (Trial, error) {
	var t Trial
	data, err := os.ReadFile(name)
	if err != nil {
		return t, fmt.Errorf("read trial: %w", err)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("read trial %s: %w", name, err)
	}
	return t, nil
}
