package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lab/kernel"
	"lab/lab/debiantest"
	"lab/probe"
)

// aSnapshotGuest is a guest whose test says a random number and the time, and before
// them the name of a file that it makes, should it be there already.
func aSnapshotGuest(t testing.TB) (*Lab, Spec, kernel.Kernel, *guest) {
	t.Helper()
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	agent := filepath.Join(t.TempDir(), "lab")
	build := exec.Command("go", "build", "-o", agent, "lab")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := &Lab{Cache: t.TempDir(), Agent: func() (string, error) { return agent, nil }}
	fs := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("%v: run lab doctor --install", err)
	}
	if err := os.WriteFile(filepath.Join(fs, "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	clock := time.Date(2031, 5, 6, 7, 8, 0, 0, time.UTC)
	script := `b=/busybox; $b ls /written; echo > /written; $b cat /proc/sys/kernel/random/uuid; $b date -u +%Y-%m-%dT%H:%M`
	s := Spec{Images: []Load{{Name: "test", Reference: "rootfs:" + fs}}, Machine: MachineSpec{Accel: "tcg"},
		Test: probe.Spec{Command: []string{"/busybox", "sh", "-c", script}, Epoch: clock}}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	k, err := l.readyMade(t.Context(), Spec{Kernel: KernelSpec{File: debiantest.Kernel(t)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	g, err := l.prepare(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, s, k, g
}

// TestSnapshot runs one kernel cold and from a snapshot: copies of a guest have
// random numbers of their own, the right time and the disk as it was; where no
// snapshot can be made, the guest boots.
func TestSnapshot(t *testing.T) {
	l, s, k, g := aSnapshotGuest(t)
	var said []string
	l.Progress.Line = func(line string) { said = append(said, line) }
	kept := new(snapshots)
	defer func() { kept.close() }()
	seen := map[string]bool{}
	run := func(what string, from *guest, restored bool) {
		t.Helper()
		trial := Trial{Kernel: k, End: EndBuilt}
		if err := l.try(t.Context(), s, from, &trial); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: booted in %s, tested in %s", what, trial.Boot, trial.Test)
		if trial.End != EndTest || trial.Result.Exit != 0 || trial.Restored != restored {
			t.Fatalf("%s: %s %s, restored: %t\n%s", what, trial.End, trial.Detail, trial.Restored, trial.Console)
		}
		lines := strings.Fields(string(trial.Result.Stdout))
		if len(lines) != 2 || seen[lines[0]] || lines[1] != "2031-05-06T07:08" {
			t.Errorf("%s: a file of another run, the same random number, or the wrong time: %q", what, lines)
		}
		seen[lines[0]] = true
		if n := bytes.Count(trial.Console, []byte("] Linux version ")); n != 1 || !bytes.Contains(trial.Console, []byte("lab: test exited with status 0")) {
			t.Errorf("%s: the console is not that of one run:\n%s", what, trial.Console)
		}
		if strings.Contains(strings.Join(trial.Args, " "), "mode=control") {
			t.Errorf("%s: %q", what, trial.Args)
		}
	}
	warm := *g
	warm.snapshots, warm.saved = kept, "this kernel"
	run("cold", g, false)
	run("first from the snapshot", &warm, true)
	run("from the snapshot", &warm, true)
	run("once more", &warm, true)
	if left, err := os.ReadDir(filepath.Join(l.Cache, "snapshots")); err != nil || len(left) > 0 {
		t.Errorf("left in the cache: %v, %v", left, err)
	}
	// Its file is gone, as it is when something has gone wrong with it.
	kept.list[0].Close()
	said = nil
	run("without the snapshot's content", &warm, false)
	if len(said) != 1 || !strings.HasPrefix(said[0], noSnapshots) || !kept.off || len(kept.list) > 0 {
		t.Errorf("said %q, and kept %d", said, len(kept.list))
	}
}

// BenchmarkSnapshot runs one kernel cold and restored, in turns, and says how many
// times longer the cold runs took; the snapshot is made before.
func BenchmarkSnapshot(b *testing.B) {
	l, s, k, g := aSnapshotGuest(b)
	warm := *g
	warm.snapshots, warm.saved = new(snapshots), "this kernel"
	defer warm.snapshots.close()
	run := func(from *guest) time.Duration {
		t, start := Trial{Kernel: k, End: EndBuilt}, time.Now()
		if err := l.try(b.Context(), s, from, &t); err != nil || t.End != EndTest || t.Restored != (from == &warm) {
			b.Fatalf("%s %s, %v", t.End, t.Detail, err)
		}
		return time.Since(start)
	}
	run(&warm)
	var cold, restored time.Duration
	for b.Loop() {
		cold += run(g)
		restored += run(&warm)
	}
	b.ReportMetric(cold.Seconds()/float64(b.N), "cold-s/op")
	b.ReportMetric(restored.Seconds()/float64(b.N), "restored-s/op")
	b.ReportMetric(cold.Seconds()/restored.Seconds(), "cold/restored")
}

// TestRepeated: which runs are restored, and that a kernel whose runs differ by
// that has the others boot.
func TestRepeated(t *testing.T) {
	c := kernel.Commit{Hash: strings.Repeat("a", 40), Title: "change"}
	var said []string
	l := &Lab{}
	l.Progress.Line = func(line string) { said = append(said, line) }
	b := &bisection{Lab: l, journal: &journal{}, snapshots: new(snapshots)}
	g := &guest{}
	test := func(role string, restored bool, mark Mark) bool {
		r := Tested{Commit: c, Role: role, Kernel: "sha256:1", Restored: restored}
		r.Mark = mark
		may := b.repeated(g, r, b.journal.records) != g
		b.journal.records = append(b.journal.records, record{Tested: &r})
		return may
	}
	for i, want := range []bool{false, true, true, true, false, true} {
		role := RoleAgain
		if i == 0 {
			role = RoleStep
		}
		if may := test(role, want, Good); may != want {
			t.Errorf("run %d from a snapshot: %t", i, may)
		}
	}
	if test(RoleConfirm, false, Good) || test(RoleEnd, false, Good) {
		t.Error("an end, or the answer, is not booted")
	}
	if x := bothWays(b.journal.records); len(x) != 1 || x[0].PValue != 1 || x[0].Cold.Good != 4 || x[0].Restored.Good != 4 {
		t.Errorf("%+v", x)
	}
	for range 8 {
		test(RoleAgain, true, Bad)
	}
	b.result.Restored = bothWays(b.journal.records)
	if x := b.result.FromSnapshots(); x != "12 of 16 runs of 1 kernel went on from a snapshot, and differ from those that booted no more than by chance (p = 0.077)" {
		t.Error(x)
	}
	for range 4 {
		test(RoleAgain, false, Good)
	}
	if test(RoleAgain, true, Bad) || !b.snapshots.off || len(said) != 1 {
		t.Errorf("the runs differ, and it goes on; said %q", said)
	}
	b.result.Restored = bothWays(b.journal.records)
	if x := b.result.FromSnapshots(); !strings.HasPrefix(x, "not sure: aaaaaaaaaaaa (\"change\") fails 9 of 13 runs from a snapshot, and 0 of 8 that boot (p = 0.0") {
		t.Error(x)
	}
}
