package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lab/probe"
)

// matrixOptions are of two kernels, two images and two command lines.
func matrixOptions(t *testing.T) MatrixOptions {
	t.Helper()
	kernels, images := bzImages(t, "6.1.0", "6.2.0"), t.TempDir()
	for _, name := range []string{"old", "new"} {
		if err := os.Mkdir(filepath.Join(images, name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(images, name, "which"), name)
	}
	old := "rootfs:" + filepath.Join(images, "old")
	return MatrixOptions{
		Spec:    Spec{Images: []Load{{Name: "test", Reference: old}}, Test: probe.Spec{Command: []string{"/test"}}},
		Kernels: []string{filepath.Join(kernels, "vmlinuz-*")},
		Images:  []string{old, "rootfs:" + filepath.Join(images, "new")},
		Around:  map[string][]string{"cmdline": {"", "quiet"}},
	}
}

// opened is a matrix up to where it tests.
func opened(t *testing.T, l *Lab, o MatrixOptions) *matrix {
	t.Helper()
	m := &matrix{Lab: l}
	t.Cleanup(m.Close)
	if err := o.Spec.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := m.lay(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := m.open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return m
}

// exited is a trial whose test exited with a status.
func exited(status int, said string) Trial {
	return Trial{End: EndTest, Result: probe.Result{Exit: status, Stderr: []byte(said)}}
}

// TestMatrixGoesOn stops a matrix in the middle, has lab fail at one cell, and adds
// to it: nothing is tested twice, and nothing is forgotten.
func TestMatrixGoesOn(t *testing.T) {
	l, o := testLab(t), matrixOptions(t)
	var tried []string
	stop, cancel := context.WithCancelCause(t.Context())
	try := func(ctx context.Context, c *cell) (Trial, error) {
		if len(tried) == 3 {
			cancel(errors.New("stopped"))
			return Trial{}, ctx.Err()
		}
		tried = append(tried, c.known.Title)
		if c.spec.Machine.Cmdline == "quiet" && strings.HasSuffix(c.spec.Images[0].Reference, "old") {
			return exited(12, "first\nsu: System error\n"), nil
		}
		return exited(0, ""), nil
	}
	first := opened(t, l, o)
	if err := first.test(stop, 1, 1, try); err == nil || err.Error() != "stopped" {
		t.Fatalf("%v", err)
	}
	if _, err := l.Matrix(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another lab is at work on the matrix") {
		t.Errorf("%v", err)
	}
	first.Close()
	first.journal, first.kernels = nil, nil
	next := func(o MatrixOptions, runs int, try func(context.Context, *cell) (Trial, error)) *matrix {
		m := opened(t, l, o)
		if err := m.test(t.Context(), runs, 1, try); err != nil {
			t.Fatal(err)
		}
		if err := m.tell(); err != nil {
			t.Fatal(err)
		}
		m.Close()
		m.journal, m.kernels = nil, nil
		return m
	}
	broken := true
	try = func(_ context.Context, c *cell) (Trial, error) {
		tried = append(tried, c.known.Title)
		switch {
		case broken && len(tried) == 4:
			return Trial{}, errors.New("no space left")
		case c.spec.Machine.Cmdline == "quiet" && strings.HasSuffix(c.spec.Images[0].Reference, "old"):
			return exited(12, "first\nsu: System error\n"), nil
		}
		return exited(0, ""), nil
	}
	m := next(o, 1, try)
	c := m.Cells[3]
	if m.Verdict != "bad" || c.Verdict != "skip" || c.Reason != "no space left" || len(tried) != 8 {
		t.Errorf("%s, %+v, %q", m.Verdict, c, tried)
	}
	broken = false
	m = next(o, 1, try)
	if len(tried) != 9 || tried[8] != tried[3] {
		t.Errorf("%q", tried)
	}
	slices.Sort(tried)
	if n := len(slices.Compact(tried)); n != 8 {
		t.Errorf("%d cells were tested, not 8", n)
	}
	if diff := cmp.Diff([]string{"bad only in image old with quiet, on every kernel"}, m.Says); diff != "" {
		t.Error(diff)
	}
	if bad := m.Cells[1]; bad.Said != "su: System error" || bad.Reason != "exit status 12" || bad.Bad != 1 || bad.At[0] != 0 {
		t.Errorf("%+v", bad)
	}

	// Two names of the same are tested once.
	twice := o
	twice.Images = append(slices.Clone(o.Images), o.Images[1]+"/../new")
	tried = nil
	if m = next(twice, 1, try); len(tried) != 0 || len(m.Cells) != 12 || m.Cells[4].Good != 1 {
		t.Errorf("%q, %d cells, %+v", tried, len(m.Cells), m.Cells[4])
	}

	// More values and more runs need no more than what is new.
	o.Around["cmdline"] = append(o.Around["cmdline"], "debug")
	tried = nil
	if next(o, 1, try); len(tried) != 4 || !strings.HasSuffix(tried[0], "debug") {
		t.Errorf("%q", tried)
	}
	tried = nil
	m = next(o, 2, func(_ context.Context, c *cell) (Trial, error) {
		tried = append(tried, c.known.Title)
		return exited(1, ""), nil
	})
	if c := m.Cells[0]; len(tried) != 12 || c.Good != 1 || c.Bad != 1 || c.Verdict != "bad" {
		t.Errorf("%q %+v", tried, c)
	}
}

// TestMatrixCells looks at what each value makes of a trial.
func TestMatrixCells(t *testing.T) {
	o := matrixOptions(t)
	o.Spec.Machine.Cmdline = "panic=1"
	o.Around = map[string][]string{"cmdline": {"quiet"}, "caps": {"", "none,KILL"}, "container": {"", "userns,cgroup=1"}}
	m := opened(t, testLab(t), o)
	if len(m.cells) != 16 {
		t.Fatalf("%d cells", len(m.cells))
	}
	hashes := map[string]bool{}
	for _, c := range m.cells {
		hashes[c.known.Hash] = true
	}
	last := m.cells[15]
	if len(hashes) != 16 || last.spec.Machine.Cmdline != "panic=1 quiet" || !cmp.Equal(last.spec.Test.CapAdd, []string{"KILL"}) || !last.spec.Test.UserNS || last.spec.Test.Cgroup != "1" {
		t.Errorf("%d digests, %+v", len(hashes), last.spec)
	}
	if m.cells[0].spec.Test.UserNS || last.kernel.ready.Release != "6.2.0" && last.kernel.ready.Release != "6.1.0" {
		t.Errorf("%+v", m.cells[0].spec.Test)
	}

	// The same kernel with a module to load is another.
	with := *m.cells[0]
	k := *with.kernel
	k.ready.Modules = []string{filepath.Join(t.TempDir(), "dummy.ko")}
	write(t, k.ready.Modules[0], "module")
	with.kernel = &k
	if key, err := with.key(); err != nil || hashes[key] || key == m.cells[0].known.Hash {
		t.Errorf("with a module: %s, %v", key, err)
	}

	for what, spoil := range map[string]func(o *MatrixOptions){
		"is there twice":             func(o *MatrixOptions) { o.Around["cmdline"] = []string{"quiet", "quiet"} },
		`"wings" is unknown`:         func(o *MatrixOptions) { o.Around["container"] = []string{"wings"} },
		`"WINGS" is unknown`:         func(o *MatrixOptions) { o.Around["caps"] = []string{"WINGS"} },
		"has all capabilities":       func(o *MatrixOptions) { o.Around["container"] = []string{"privileged"} },
		"with --base REF":            func(o *MatrixOptions) { o.Around["runtime"] = []string{"lab", "crun"} },
		`runtime "wings"`:            func(o *MatrixOptions) { o.Around["runtime"] = []string{"wings"} },
		"it takes":                   func(o *MatrixOptions) { o.Around["cmdline"] = []string{strings.Repeat("x", 3000)} },
		"two values of something":    func(o *MatrixOptions) { o.Kernels, o.Images, o.Around = o.Kernels[:0], nil, nil },
		"nothing matches":            func(o *MatrixOptions) { o.Kernels = []string{"/nowhere*"} },
		"a matrix of more than 2048": func(o *MatrixOptions) { o.Around["cmdline"] = strings.Fields(strings.Repeat("a ", 500)) },
	} {
		o := o
		o.Around = map[string][]string{"caps": {"", "none"}}
		spoil(&o)
		if what == "a matrix of more than 2048" {
			for i := range o.Around["cmdline"] {
				o.Around["cmdline"][i] += strings.Repeat("b", i)
			}
		}
		_, err := testLab(t).Matrix(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestLastParts(t *testing.T) {
	for _, test := range [][2][]string{
		{{"docker://h/app:1", "docker://h/app:2"}, {"1", "2"}},
		{{"rootfs:a/old.tar", "rootfs:a/older.tar"}, {"old.tar", "older.tar"}},
		{{"oci:x:1", "rootfs:y"}, {"oci:x:1", "rootfs:y"}},
		{{"docker://h/app:1"}, {"docker://h/app:1"}},
		{{"rootfs:a/", "rootfs:a/b"}, {"rootfs:a/", "b"}},
	} {
		if diff := cmp.Diff(test[1], lastParts(test[0])); diff != "" {
			t.Error(diff)
		}
	}
}
