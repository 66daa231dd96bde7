package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/lab"
	"lab/lab/debiantest"
)

// TestBisectContainer finds which of two settings of a container breaks a test.
func TestBisectContainer(t *testing.T) {
	needE2E(t)
	t.Parallel()
	stdout, _ := runLab(t, t.TempDir(), ExitGood,
		"bisect", "--container-good", "cgroup=2", "--container-bad", "cgroup=1,seccomp=unconfined", "--userns",
		"--kernel", debiantest.Kernel(t), "--image", "rootfs:"+busyboxRoot(t), "--",
		"sh", "-c", "while read name value; do test $name != Seccomp: || exit $((value == 0)); done </proc/self/status",
	)
	for _, want := range []string{
		"the verdict flips with: +seccomp=unconfined\n", "the good setting with it, tested again, is bad: exit status 1", "the bad setting without it is good: exit status 0",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("lab bisect says %s\nwithout %q", stdout, want)
		}
	}
}

// TestBisectCmdline looks for two boot options, of six differences, that break a
// test only together.
func TestBisectCmdline(t *testing.T) {
	needE2E(t)
	t.Parallel()
	home := t.TempDir()
	args := []string{
		"bisect", "--cmdline-good", "lab.a=1 lab.b nosmt", "--cmdline-bad", "lab.a=2 lab.b lab.c lab.d=x lab.e lab.f",
		"--kernel", debiantest.Kernel(t), "--image", "rootfs:" + busyboxRoot(t), "--json", "--",
		"sh", "-c", "! { grep -qw lab.a=2 /proc/cmdline && grep -qw lab.c /proc/cmdline; }",
	}
	stdout, _ := runLab(t, home, ExitGood, args...)
	var b lab.Bisection
	if err := json.Unmarshal([]byte(stdout), &b); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	want := []lab.Difference{
		{Kind: "cmdline", Name: "lab.a", Good: "lab.a=1", Bad: "lab.a=2"},
		{Kind: "cmdline", Name: "lab.c", Bad: "lab.c"},
	}
	if b.Axis != "setting" || b.Range != 6 || b.Flip == nil || !slices.Equal(b.Flip.Minimal, want) || b.Unclear != "" {
		t.Fatalf("found %+v, %s", b.Flip, b.Unclear)
	}
	boots := 0
	for _, x := range b.Tested {
		if x.Boot > 0 {
			boots++
		}
	}
	if boots > 12 || boots != len(b.Tested) {
		t.Errorf("%d boots of %d tests", boots, len(b.Tested))
	}
	// Once more, from the journal, and for people.
	stdout, stderr := runLab(t, home, ExitGood, slices.DeleteFunc(args, func(a string) bool { return a == "--json" })...)
	if strings.Contains(stderr, "booted in") {
		t.Errorf("booted again: %s", stderr)
	}
	for _, want := range []string{
		"the verdict flips with these 2 together, of 6 differences:\n  lab.a=2 in the place of lab.a=1\n  +lab.c\n",
		"the good setting with it, tested again, is bad: exit status 1", "the bad setting without it is good: exit status 0", ", 6 differences; state in ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("lab bisect says %s\nwithout %q", stdout, want)
		}
	}
	stdout, _ = runLab(t, home, ExitGood, "bisect", "status")
	if !strings.Contains(stdout, "the verdict flips with: cmdline lab.a=1->lab.a=2 +lab.c\n") {
		t.Errorf("the status is %s", stdout)
	}
}

// testConfig looks for the config option, of five, that breaks a test, beginning
// with the demo's kernel.
func testConfig(t *testing.T, home string, d demoResult) {
	bad := filepath.Join(t.TempDir(), "bad.config")
	symbols := "CONFIG_CRC4=y\nCONFIG_CRC7=y\nCONFIG_CRC8=y\nCONFIG_MISC_FILESYSTEMS=y\nCONFIG_ROMFS_FS=y\n"
	if err := os.WriteFile(bad, []byte(symbols), 0o644); err != nil {
		t.Fatal(err)
	}
	stdout, stderr := runLab(t, home, ExitGood, "bisect", "--repo", demoRepo(home), "--commit", d.Bisection.Good[0].Hash,
		"--config", "tiny", "--config-bad", bad, "--memory", "512", "--image", "rootfs:"+busyboxRoot(t), "--bundle", "config.tar", "--json", "--",
		"sh", "-c", "! grep -qw romfs /proc/filesystems")
	var b lab.Bisection
	if err := json.Unmarshal([]byte(stdout), &b); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if b.Flip == nil || b.Culprit == nil || b.Culprit.Title != "config +CONFIG_MISC_FILESYSTEMS=y +CONFIG_ROMFS_FS=y" {
		t.Fatalf("found %+v, %s", b.Flip, b.Unclear)
	}
	if n := b.Flip.Needed; len(n) != 1 || n[0].Name != "MISC_FILESYSTEMS" || n[0].Title != "Miscellaneous filesystems" {
		t.Errorf("needed is %+v", n)
	}
	if n := built(b); n > 7 {
		t.Errorf("%d kernels were built for 5 options", n)
	}
	if stdout, _ := runLab(t, home, ExitGood, "reproduce", "config.tar"); !strings.HasSuffix(stdout, "\nsame\n") {
		t.Errorf("reproduce says %s", stdout)
	}
	t.Logf("%d tests, %d built, %s\n%s", len(b.Tested), built(b), b.Elapsed, stderr)
}
