package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lab/kernel/qemu"
	"lab/lab/bundle"
)

// A recording is QEMU's log of a run (see kernel/qemu/record.go), in a folder with all
// that the run saw, as Trial.Save has it. Played back it is the same execution once more:
// what the guest writes must be the same, byte for byte.

// recordingFile is the log in the folder.
const recordingFile = "recording"

const (
	// recordParameter has the guest do without the timer of its APIC, as
	// Documentation/admin-guide/kernel-parameters.txt has it. To measure that, the kernel
	// waits in a loop of pause instructions (calibrate_APIC_clock), each of which makes
	// QEMU log an event: 99 of 100 of a log, and of the time to play it back.
	recordParameter = "nolapic_timer"
	// recordPace is how many times as long a recorded run may take on the host. About
	// twice as long was seen.
	recordPace = 5
	// playPace is how many times as long as the recorded run, and playMore how much
	// longer, playing it back may take. Twice to four times as long was seen.
	playPace, playMore = 10, time.Minute
)

// Recordable says what keeps a test's machine from being recorded, and makes it one that
// can be.
func (s *Spec) Recordable() error {
	switch {
	case !s.needsGuest():
		return errors.New("only what runs in a guest can be recorded")
	case s.Machine.Exact:
		return errors.New("an exact machine does the same again without a recording")
	case s.Machine.Accel == "kvm":
		return errors.New("QEMU records with --accel tcg alone")
	case s.Machine.CPUs > 1:
		return errors.New("QEMU records machines of one processor alone")
	}
	s.Machine.Accel = "tcg"
	return nil
}

// Record is Run that leaves a recording and all that the trial saw in a folder.
func (l *Lab) Record(ctx context.Context, s Spec, dir string) (t Trial, v Verdict, err error) {
	if err := s.Validate(); err != nil {
		return t, v, err
	}
	if err := s.Recordable(); err != nil {
		return t, v, err
	}
	k, g, err := l.readied(ctx, s)
	if err != nil {
		return t, v, err
	}
	defer k.Close()
	if t, err = k.trial(ctx); err != nil {
		return t, v, err
	}
	err = l.record(ctx, s, g, &t, dir)
	return t, Judge(t, s.Symptom), err
}

// record tries a kernel and leaves the recording in a folder. One that was there is void
// from the beginning.
func (l *Lab) record(ctx context.Context, s Spec, g *guest, t *Trial, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, trialFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record: %w", err)
	}
	if t.End == EndBuilt {
		recorded := *g
		recorded.record, recorded.snapshots = filepath.Join(dir, recordingFile), nil
		if err := l.try(ctx, s, &recorded, t); err != nil {
			return err
		}
		if t.End == EndBoot && len(t.Args) == 0 {
			return t.Save(dir) // its configuration kept it from being booted at all
		}
		var err error
		if t.Recording, err = digestOf(recorded.record); err != nil {
			return err
		}
	}
	return t.Save(dir)
}

// A Playback is a recording that was played back.
type Playback struct {
	Outcome     string   `json:"outcome"` // Same, Different or CannotRun
	Differences []string `json:"differences,omitempty"`
	Trial       Trial    `json:"trial"`
}

// PlayBack plays back the recording in a folder, with the Spec that it was made with.
func (l *Lab) PlayBack(ctx context.Context, s Spec, dir string) (Playback, error) {
	if err := s.Validate(); err != nil {
		return Playback{}, err
	}
	if err := s.Recordable(); err != nil {
		return Playback{}, err
	}
	recorded, err := readTrial(filepath.Join(dir, trialFile))
	if err != nil {
		return Playback{}, err
	}
	log := filepath.Join(dir, recordingFile)
	if digest, err := digestOf(log); err != nil {
		return Playback{}, err
	} else if digest != recorded.Recording { // QEMU may play it back all the same, or hang
		return Playback{}, fmt.Errorf("play back %s: it is damaged: its digest is %s, and %.80q on record", log, digest, recorded.Recording)
	}
	k, g, err := l.readied(ctx, s)
	if err != nil {
		return Playback{}, err
	}
	defer k.Close()
	t, err := k.trial(ctx)
	if err != nil {
		return Playback{}, err
	}
	if t.Kernel.Digest != recorded.Kernel.Digest {
		return Playback{}, fmt.Errorf("play back %s: it is of another kernel, %s", dir, oneLine(recorded.Kernel.Release))
	}
	m, f, err := g.machine(s, t.Kernel)
	if err != nil {
		return Playback{}, err
	}
	defer f.Close()
	m.Replay, m.Cmdline = log, recorded.Cmdline
	t.QEMU = g.emulator.version
	l.Progress.Show("playing back %s", dir)
	defer l.Progress.Show("")
	return playBack(ctx, m, recorded, t, func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) })
}

// playBack plays back the recording that the machine has, and compares what it writes
// with what is on file.
func playBack(ctx context.Context, m qemu.Machine, recorded, t Trial, file func(name string) ([]byte, error)) (Playback, error) {
	var said bytes.Buffer
	m.Stderr = &said
	took := max(0, min(recorded.Boot, longest)) + max(0, min(recorded.Test, longest))
	p := Playback{Outcome: Same}
	if err := boot(ctx, m, took*playPace+playMore, took*playPace+playMore, &t); ctx.Err() != nil {
		return p, context.Cause(ctx)
	} else if missing := (*qemu.ErrMissing)(nil); errors.As(err, &missing) {
		return p, err
	} else if err != nil { // of QEMU, which does not take the recording
		p.Outcome, p.Differences, p.Trial = CannotRun, []string{oneLine(err.Error())}, t
		return p, nil
	}
	p.Trial = t
	differs := func(format string, args ...any) {
		p.Outcome = Different
		p.Differences = append(p.Differences, fmt.Sprintf(format, args...))
	}
	for _, now := range wrote(t) {
		then, err := file(now.name)
		if err != nil {
			return p, fmt.Errorf("read recorded run: %w", err)
		}
		if n := firstDifference(then, now.data); n > 0 {
			differs("%s differs, first in line %d: %s; then: %s", now.name, n, lineOf(now.data, n), lineOf(then, n))
		}
	}
	if recorded.Result.Exit != t.Result.Exit || recorded.Result.Signal != t.Result.Signal {
		differs("the exit status was %d, signal %q, and is %d, signal %q", recorded.Result.Exit, recorded.Result.Signal, t.Result.Exit, t.Result.Signal)
	}
	if line, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n"); line != "" {
		differs("QEMU says: %s", oneLine(line))
	}
	return p, nil
}

// wrote is all that a guest writes.
func wrote(t Trial) []said {
	return append([]said{{"console.log", t.Console}}, outputs(t)...)
}

// String tells in a line what was the same.
func (p Playback) String() string {
	if p.Outcome != Same {
		return p.Outcome
	}
	var parts []string
	for _, w := range wrote(p.Trial) {
		if len(w.data) > 0 {
			parts = append(parts, fmt.Sprintf("%s of %d bytes", w.name, len(w.data)))
		}
	}
	return "identical: " + strings.Join(parts, ", ")
}

// record adds the recording of a kernel's run, of a bad one that fails.
func (p *pack) record(ctx context.Context, g *guest, role string, t Trial) error {
	s := p.from.spec
	if err := s.Recordable(); err != nil {
		return err
	}
	recorded := *g
	recorded.emulator.Accel = "tcg"
	want := map[string]Mark{bundle.RoleGood: Good, bundle.RoleBad: Bad}[role]
	dir := filepath.Join(p.found.Dir, "recorded-"+role)
	// One that was finished before lab was killed is as good as a new one.
	if of, err := readTrial(filepath.Join(dir, trialFile)); err != nil || of.Kernel.Digest != t.Kernel.Digest {
		if v, err := p.makeRecording(ctx, &recorded, s, role, want, t, dir); err != nil {
			return err
		} else if v.Mark != want {
			p.Progress.Say("no recording of the %s kernel: on the machine that is recorded it is %s: %s", role, v.Mark, v.Reason)
			return nil
		}
	}
	to := "runs/" + role + "-recorded"
	of, err := p.saved(role, dir, to)
	if err != nil {
		return err
	}
	run := &p.manifest.Runs[len(p.manifest.Runs)-1]
	v := Judge(of, s.Symptom)
	run.Verdict, run.Reason = string(v.Mark), v.Reason
	log := filepath.Join(dir, recordingFile)
	info, err := os.Stat(log)
	if err != nil {
		return fmt.Errorf("add recording: %w", err)
	}
	run.Recording = &bundle.Compressed{Member: to + "/" + recordingFile + ".gz", Size: info.Size()}
	if run.Recording.Digest, err = digestOf(log); err != nil {
		return err
	}
	p.files = append(p.files, bundle.File{Name: run.Recording.Member, Source: log, Gzip: true})
	return nil
}

// makeRecording records runs of a kernel until one ends as it has to, at most as many as
// its rate asks for. It is in the folder then.
func (p *pack) makeRecording(ctx context.Context, g *guest, s Spec, role string, want Mark, t Trial, dir string) (v Verdict, err error) {
	part := dir + ".part"
	defer os.RemoveAll(part)
	for n := range enoughRuns(p.manifest.Rate) {
		p.Progress.Show("recording the %s kernel, run %d", role, n+1)
		try := t
		try.End = EndBuilt
		if err := p.Lab.record(ctx, s, g, &try, part); err != nil {
			return v, err
		}
		if v = Judge(try, s.Symptom); try.Recording == "" {
			return Verdict{Skip, try.Detail}, nil
		}
		if v.Mark == want {
			if err := os.RemoveAll(dir); err != nil {
				return v, fmt.Errorf("record: %w", err)
			}
			return v, os.Rename(part, dir)
		}
	}
	return v, nil
}

// playBack plays back the recordings of a bundle.
func (r *rerunner) playBack(ctx context.Context) (Reproduction, error) {
	m := r.bundle.Manifest
	found := Reproduction{Outcome: Same, Manifest: m, Notes: r.notes()}
	for _, recorded := range m.Runs {
		if recorded.Recording == nil {
			continue
		}
		k, _ := m.Kernel(recorded.Role)
		machine, before, err := r.player(ctx, recorded)
		if err != nil {
			return found, err
		}
		r.Progress.Show("playing back the recording of the %s kernel, %s", k.Role, kernelName(k))
		p, err := playBack(ctx, machine, before, r.begin(k), func(name string) ([]byte, error) {
			return os.ReadFile(r.bundle.Path(recorded.Dir + "/" + name))
		})
		r.Progress.Show("")
		if err != nil {
			return found, err
		}
		run := Rerun{Role: k.Role, Kernel: kernelName(k), Recorded: recorded, Verdict: Judge(p.Trial, Symptom(m.Symptom)), Runs: 1,
			Outcome: p.Outcome, Differences: p.Differences, Trial: p.Trial}
		found.Runs = append(found.Runs, run)
		r.Progress.Say("  %s: %s", run.Role, p)
		if run.Outcome == Different || found.Outcome == Same {
			found.Outcome = run.Outcome
		}
	}
	if len(found.Runs) == 0 {
		return found, fmt.Errorf("play back %s: it has no recording; lab bisect --record puts them into bundles", r.file)
	}
	return found, nil
}

// player is the machine that plays a run of the bundle back, which is given, too.
func (r *rerunner) player(ctx context.Context, run bundle.Run) (m qemu.Machine, recorded Trial, err error) {
	k, _ := r.bundle.Manifest.Kernel(run.Role)
	if recorded, err = readTrial(r.bundle.Path(run.Dir + "/" + trialFile)); err != nil {
		return m, recorded, err
	}
	if m, err = r.machine(ctx, k); err != nil {
		return m, recorded, err
	}
	m.Replay, m.Cmdline = filepath.Join(r.dir, run.Role+"-"+recordingFile), recorded.Cmdline
	return m, recorded, r.bundle.Expand(ctx, run.Recording.Member, m.Replay)
}
