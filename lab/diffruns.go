package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"lab/lab/bundle"
)

// maxRuns is how many runs of each side a comparison reads.
const maxRuns = 20

// DiffLive boots the two combinations that the options name, as Matrix does, and
// compares what the runs saw. What is on record is not run again.
func (l *Lab) DiffLive(ctx context.Context, o MatrixOptions) (RunDiff, error) {
	if err := o.Spec.Validate(); err != nil {
		return RunDiff{}, err
	}
	m := &matrix{Lab: l}
	defer m.Close()
	return m.diff(ctx, o)
}

// diff is DiffLive of a matrix that is not laid yet.
func (m *matrix) diff(ctx context.Context, o MatrixOptions) (RunDiff, error) {
	if err := m.lay(ctx, o); err != nil {
		return RunDiff{}, err
	}
	switch {
	case len(m.cells) != 2:
		return RunDiff{}, fmt.Errorf("two are compared, and these are %d combinations: for more there is lab matrix", len(m.cells))
	case m.cells[0] == m.cells[1]:
		return RunDiff{}, fmt.Errorf("%s and %s are the same", m.name(0), m.name(1))
	}
	m.what = fmt.Sprintf("A is %s, B is %s", m.name(0), m.name(1))
	if err := m.open(ctx, o); err != nil {
		return RunDiff{}, err
	}
	if err := m.test(ctx, max(1, o.Runs), max(1, o.Jobs), m.try); err != nil {
		return RunDiff{}, err
	}
	var sides [2]runs
	for i, c := range m.cells {
		if c.err != nil {
			return RunDiff{}, fmt.Errorf("%s: %w", m.name(i), c.err)
		}
		sides[i].name = m.name(i)
		for _, t := range m.runs(c) {
			if len(sides[i].list) == min(max(1, o.Runs), maxRuns) {
				break
			}
			if err := sides[i].add(filepath.Join(m.Dir, t.Dir)); err != nil {
				return RunDiff{}, err
			}
		}
	}
	return diffRuns(sides[0], sides[1]), nil
}

// name is what a cell is called by the axis that has two values.
func (m *matrix) name(cell int) string {
	for a, axis := range m.Axes {
		if len(axis.Values) > 1 {
			return axis.Noun + " " + axis.Values[m.Cells[cell].At[a]].Title
		}
	}
	return ""
}

// DiffRuns compares runs that were saved, a with b: each a folder of lab run --out, a
// file of lab run --json, or a folder of such folders, which are runs of the same.
func (l *Lab) DiffRuns(a, b string) (RunDiff, error) {
	was, err := openRuns(a)
	if err != nil {
		return RunDiff{}, err
	}
	is, err := openRuns(b)
	if err != nil {
		return RunDiff{}, err
	}
	return diffRuns(was, is), nil
}

// EndsOptions say how the runs of a bundle are compared.
type EndsOptions struct {
	// Trace has both kernels booted again, and traced, where the recorded runs are not.
	Trace bool
	Runs  int    // of each; 0 is one
	Dir   string // where the runs are kept, in folders a/1, b/1 …; empty for nowhere
	// QEMU and AllowKVM are those of ReproduceOptions.
	QEMU     string
	AllowKVM bool
}

// DiffEnds verifies a bundle, and compares its good run (A) with its bad one (B).
func (l *Lab) DiffEnds(ctx context.Context, from BundleSource, o EndsOptions) (RunDiff, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return RunDiff{}, err
	}
	defer b.Close()
	r := rerunner{Lab: l, bundle: b.Bundle, file: from.String(), dir: b.dir}
	return r.diff(ctx, o)
}

// diff is DiffEnds of a bundle that is open.
func (r *rerunner) diff(ctx context.Context, o EndsOptions) (RunDiff, error) {
	var sides [2]runs
	traced := true
	roles := []string{bundle.RoleGood, bundle.RoleBad}
	for i, role := range roles {
		run, ok := r.bundle.Manifest.Run(role)
		if !ok {
			return RunDiff{}, fmt.Errorf("compare runs of %s: it has no %s run", r.file, role)
		}
		t, err := recorded(r.bundle, run)
		if err != nil {
			return RunDiff{}, err
		}
		k, _ := r.bundle.Manifest.Kernel(role)
		sides[i] = runs{name: "the " + role + " run, on " + kernelName(k), list: []savedRun{{Trial: t}}}
		traced = traced && len(t.Result.Trace) > 0
	}
	if traced || !o.Trace {
		return diffRuns(sides[0], sides[1]), nil
	}
	test := r.bundle.Manifest.Test
	test.Trace = true
	r.test = &test
	if err := r.open(ctx, ReproduceOptions{QEMU: o.QEMU, AllowKVM: o.AllowKVM}); err != nil {
		return RunDiff{}, err
	}
	notes := r.notes()
	for i := range sides {
		sides[i].list = nil
	}
	for n := range max(1, o.Runs) {
		for i, dir := range []string{"a", "b"} {
			run, err := r.rerun(ctx, roles[i])
			if err != nil {
				return RunDiff{}, err
			}
			r.Progress.Say("  %s kernel, %s: %s: %s (recorded: %s)", run.Role, run.Kernel, run.Mark, run.Reason, run.Recorded.Verdict)
			if string(run.Mark) != run.Recorded.Verdict {
				notes = append(notes, fmt.Sprintf("the %s kernel was %s on record, and is %s here", run.Role, run.Recorded.Verdict, run.Mark))
			}
			kept := savedRun{Trial: run.Trial}
			if o.Dir != "" {
				kept.dir = filepath.Join(o.Dir, dir, strconv.Itoa(n+1))
				if err := run.Trial.Save(kept.dir); err != nil {
					return RunDiff{}, err
				}
			}
			sides[i].list = append(sides[i].list, kept)
		}
	}
	d := diffRuns(sides[0], sides[1])
	d.Notes = append(d.Notes, notes...)
	return d, nil
}

// openRuns reads the runs of a folder, or of a file.
func openRuns(name string) (runs, error) {
	r := runs{name: name}
	inner, err := filepath.Glob(filepath.Join(name, "*", trialFile))
	if err != nil {
		return r, fmt.Errorf("open run %s: %w", name, err)
	}
	if _, err := os.Stat(filepath.Join(name, trialFile)); err == nil || len(inner) == 0 {
		return r, r.add(name)
	}
	slices.Sort(inner)
	for _, file := range inner[:min(len(inner), maxRuns)] {
		if err := r.add(filepath.Dir(file)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// add reads a run.
func (r *runs) add(name string) error {
	t, err := openRun(name)
	if err == nil {
		r.list = append(r.list, savedRun{name, t})
	}
	return err
}

// openRun reads a folder that Trial.Save has written, or the JSON of lab run.
func openRun(name string) (Trial, error) {
	var t Trial
	info, err := os.Stat(name)
	if err != nil {
		return t, fmt.Errorf("open run: %w", err)
	}
	if !info.IsDir() {
		data, err := readSome(name, maxResult)
		if err != nil {
			return t, err
		}
		var result struct{ Trial *Trial }
		if err := json.Unmarshal(data, &result); err != nil || result.Trial == nil {
			return t, fmt.Errorf("open run %s: it is neither a folder of lab run --out nor what lab run --json prints", name)
		}
		return *result.Trial, nil
	}
	data, err := readSome(filepath.Join(name, trialFile), maxResult)
	if err != nil {
		return t, err
	}
	if data == nil {
		return t, fmt.Errorf("open run %s: it has no %s: lab run --out writes one", name, trialFile)
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("open run %s: %s: %w", name, trialFile, err)
	}
	for file, text := range t.streams() {
		if *text, err = readSome(filepath.Join(name, file), maxResult); err != nil {
			return t, err
		}
	}
	return t, nil
}

// readSome reads a file, or as much as may be of one that is longer; one that there
// is not is empty.
func readSome(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read run: %w", err)
	}
	return data, nil
}
