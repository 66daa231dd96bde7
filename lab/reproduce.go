package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"lab/kernel"
	"lab/kernel/qemu"
	"lab/lab/bundle"
)

// Outcomes of a reproduction.
const (
	Same      = "same"          // both kernels did what was recorded
	Different = "different"     // at least one did not
	CannotRun = "could not run" // at least one could not be judged here
)

// A Reproduction compares a bundle's recorded runs with new ones.
type Reproduction struct {
	Outcome string   `json:"outcome"`
	Runs    []Rerun  `json:"runs"`
	Notes   []string `json:"notes,omitempty"` // what is not as on the recording machine, and may matter

	Manifest bundle.Manifest `json:"-"`
}

// A Rerun is one recorded run, done again.
type Rerun struct {
	Role     string     `json:"role"`
	Kernel   string     `json:"kernel"` // what the kernel is called: its release and commit
	Recorded bundle.Run `json:"recorded"`
	Verdict
	Outcome     string   `json:"outcome"`
	Differences []string `json:"differences,omitempty"`
	Trial       Trial    `json:"trial"`
}

// ReproduceOptions may change the machine of a reproduction; zero fields are
// as recorded, but for the accelerator: a stranger's kernel gets KVM only when
// Accel asks for it.
type ReproduceOptions struct {
	QEMU  string
	Accel string
}

// Reproduce verifies the bundle in file, boots its good and its bad kernel
// once more and compares. A bundle that is damaged or odd gives a
// *bundle.RefusedError, and nothing of it was used. The machine is built from
// the manifest's fields; no recorded command line is.
func (l *Lab) Reproduce(ctx context.Context, file string, o ReproduceOptions) (Reproduction, error) {
	dir, leave, err := l.quarantine()
	if err != nil {
		return Reproduction{}, err
	}
	defer leave()
	l.Progress.Show("verifying %s", file)
	defer l.Progress.Show("")
	b, err := bundle.Open(ctx, file, filepath.Join(dir, "members"))
	if err != nil {
		return Reproduction{}, err
	}
	defer b.Close()
	disk := filepath.Join(dir, "disk.img")
	if err := b.ExpandDisk(ctx, disk); err != nil {
		return Reproduction{}, err
	}
	m := b.Manifest
	l.Progress.Say("verified: %d members, made by lab %s with QEMU %s", len(m.Members), m.Lab, m.Machine.QEMU)

	r := Reproduction{Outcome: Same, Manifest: m}
	for _, role := range []string{bundle.RoleGood, bundle.RoleBad} {
		run, err := l.rerun(ctx, b, disk, role, o)
		if err != nil {
			return Reproduction{}, err
		}
		r.Runs = append(r.Runs, run)
		l.Progress.Say("  %s: %s (recorded: %s)", run.Mark, run.Reason, run.Recorded.Verdict)
		if run.Outcome == Different || r.Outcome == Same {
			r.Outcome = run.Outcome
		}
	}
	if t := r.Runs[0].Trial; t.QEMU != "" {
		note := func(what, then, now string) {
			if then != now {
				r.Notes = append(r.Notes, fmt.Sprintf("%s was %s and is %s here", what, then, now))
			}
		}
		note("QEMU", m.Machine.QEMU, t.QEMU)
		note("the accelerator", m.Machine.Accel, t.Accel)
	}
	return r, nil
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

// rerun does one recorded run again.
func (l *Lab) rerun(ctx context.Context, b *bundle.Bundle, disk, role string, o ReproduceOptions) (Rerun, error) {
	m := b.Manifest
	k, _ := m.Kernel(role)
	recorded, _ := m.Run(role)
	r := Rerun{Role: role, Recorded: recorded, Kernel: kernelName(k)}
	t := Trial{Kernel: kernel.Kernel{Release: k.Release, Commit: k.Commit, Digest: k.Digest}, End: EndBuilt}
	spec := MachineSpec{QEMU: o.QEMU, Accel: o.Accel, Memory: m.Machine.Memory, CPUs: m.Machine.CPUs}
	if spec.Accel == "" {
		spec.Accel = "tcg"
	}
	e, err := l.emulator(ctx, spec)
	if err != nil {
		return Rerun{}, err
	}
	t.QEMU = e.version
	machine := e.Machine
	machine.CPU = m.Machine.CPU
	machine.Kernel = b.Path(k.Image)
	machine.Initrd = b.Path(k.Initramfs.Member)
	machine.Cmdline = cmdline(m.Machine.Cmdline)
	machine.Disks = []qemu.Disk{{Path: disk}}
	machine.Clock = m.Machine.Clock
	l.Progress.Show("booting the %s kernel, %s", role, r.Kernel)
	if err := boot(ctx, machine, time.Duration(m.Machine.BootTimeout), m.Test.Timeout, &t); err != nil {
		return Rerun{}, err
	}
	r.Trial = t
	r.Verdict = Judge(t, Symptom(m.Symptom))
	return r, compare(b, &r)
}

// compare says what differs between a rerun and its record.
func compare(b *bundle.Bundle, r *Rerun) error {
	before, err := readTrial(b.Path(path.Join(r.Recorded.Dir, trialFile)))
	if err != nil {
		return err
	}
	r.Outcome = Same
	differs := func(what string, then, now any) {
		if then != now {
			r.Differences = append(r.Differences, fmt.Sprintf("%s was %v and is %v", what, then, now))
			r.Outcome = Different
		}
	}
	differs("the verdict", r.Recorded.Verdict, string(r.Mark))
	differs("where it ended", r.Recorded.End, string(r.Trial.End))
	differs("the exit status", r.Recorded.Exit, exitOf(r.Trial))
	differs("the signal", before.Result.Signal, r.Trial.Result.Signal)
	if r.Outcome == Different && r.Mark == Skip {
		r.Outcome = CannotRun
	}
	for _, name := range []string{"stdout", "stderr", "syslog"} {
		then, err := os.ReadFile(b.Path(path.Join(r.Recorded.Dir, name)))
		if err != nil {
			continue // a run that did not get to the test has no output
		}
		now := map[string][]byte{"stdout": r.Trial.Result.Stdout, "stderr": r.Trial.Result.Stderr, "syslog": r.Trial.Result.Syslog}[name]
		if !bytes.Equal(then, now) {
			r.Differences = append(r.Differences, name+" differs: "+firstDifference(then, now))
		}
	}
	return nil
}

// firstDifference shows the first line at which two texts part.
func firstDifference(a, b []byte) string {
	as, bs := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := 0; ; i++ {
		var x, y []byte
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if !bytes.Equal(x, y) || i >= len(as) || i >= len(bs) {
			return fmt.Sprintf("line %d was %q and is %q", i+1, oneLine(string(x)), oneLine(string(y)))
		}
	}
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
