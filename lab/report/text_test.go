package report

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/lab/bundle"
	"lab/oci"
	"lab/probe"
)

var update = flag.Bool("update", false, "write golden files anew")

func example() (bundle.Manifest, Evidence) {
	const good, bad = "51cc83f024ee51de9da70c17e01ec6de524f5906", "33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb"
	m := bundle.Manifest{
		Lab: "1.0", Platform: "linux/amd64",
		Test:    probe.Spec{Container: "test", Command: []string{"sh", "-c", "su -c true && echo 'it''s fine'"}},
		Machine: bundle.Machine{Accel: "tcg", QEMU: "7.2.22", Memory: 512, CPUs: 1, Cmdline: "quiet"},
		Symptom: bundle.Symptom{Kind: "test", BadMatch: "System error"},
		Images:  []bundle.Image{{Name: "test", Pin: oci.Pin{Reference: "rootfs:app.tar", Digest: "sha256:aa"}}},
		Kernels: []bundle.Kernel{
			{Role: bundle.RoleGood, Commit: good, Title: "audit: a setting", Release: "3.13.0"},
			{Role: bundle.RoleBad, Commit: bad, Title: "audit: listen in all network namespaces", Release: "3.13.0", Compiler: "gcc 4.9"},
		},
		Runs: []bundle.Run{
			{Role: bundle.RoleGood, End: "test", Verdict: "good", Reason: "exit status 0"},
			{Role: bundle.RoleBad, End: "test", Verdict: "bad", Reason: "stderr says: su: System error", Exit: 1},
		},
		Culprit: &bundle.Culprit{Commit: bad, Title: "audit: listen in all network namespaces", Author: "A U Thor <author@example.org>", Date: time.Date(2013, 7, 16, 13, 18, 45, 0, time.UTC)},
	}
	return m, Evidence{
		Good:  Output{Stdout: []byte("OKAY\n")},
		Bad:   Output{Stderr: []byte("su: System error\n"), Syslog: []byte("<86>su: PAM audit_log_acct_message() failed\x1b[31m: Operation not permitted\n")},
		Patch: []byte("diff --git a/kernel/audit.c b/kernel/audit.c\n+\treturn 0;\n"),
		Log:   "git bisect start\n", Tests: 9, Inferred: 2, ByHand: 1, Sure: "confidence 98.1%: it failed 2 of 2 runs, its parent 0 of 3", Range: 24,
	}
}

func TestText(t *testing.T) {
	got := Text(example())
	const file = "testdata/REPORT.txt"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("REPORT.txt changed (-want +got):\n%s", d)
	}
	if !bytes.Contains(got, []byte("\n\n#regzbot introduced: 33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb\n\n")) {
		t.Error("regzbot wants its command in a paragraph of its own")
	}
}

// TestTextOnTop tells of picks and patches.
func TestTextOnTop(t *testing.T) {
	m, e := example()
	m.Patches = []bundle.Patch{
		{Name: "x86: repair", Commit: m.Kernels[0].Commit, Member: "inputs/patches/01-pick.patch"},
		{Name: "printk.patch", Member: "inputs/patches/02-printk.patch"},
		{Name: "other.patch", Member: "inputs/patches/03-other.patch"},
	}
	m.Kernels[0].Applied = []string{"inputs/patches/02-printk.patch"}
	m.Kernels[1].Applied = []string{"inputs/patches/01-pick.patch", "inputs/patches/02-printk.patch"}
	got := string(Text(m, e))
	for _, want := range []string{
		"  with these on top of the commits (inputs/patches/; kernels/…/on-top.patch is what they changed):\n",
		"    pick 51cc83f024ee (\"x86: repair\"): on the bad kernel\n",
		"    patch printk.patch: on the good and the bad kernel\n",
		"    patch other.patch: on neither kernel: there, or not needed\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("without %q:\n%s", want, got)
		}
	}
}

// TestTextOfPackages wants nothing said of commits where ready-made kernels
// were bisected.
func TestTextOfOptions(t *testing.T) {
	m, e := example()
	m.Kernels[0].Commit = m.Kernels[1].Commit
	m.Culprit = &bundle.Culprit{Commit: m.Kernels[1].Commit, Title: "config +CONFIG_AUDIT=y", Options: []string{"CONFIG_AUDIT=y", "# CONFIG_NET is not set"}}
	e.Log, e.Patch = "", nil
	got := string(Text(m, e))
	for _, want := range []string{
		"With these options in its configuration a container test fails on 33faba7fa7f2:\n\n  CONFIG_AUDIT=y\n  # CONFIG_NET is not set\n",
		"With them it is bad: stderr says: su: System error.\nWithout them it is good: exit status 0.", "found in 9 tests of 24 options",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %q", got, want)
		}
	}
	for _, no := range []string{"Fixes:", "#regzbot", "first bad", "author"} {
		if strings.Contains(got, no) {
			t.Errorf("%q is in %s", no, got)
		}
	}
}

func TestTextOfPackages(t *testing.T) {
	m, e := example()
	for i, version := range []string{"6.1-1", "6.1-2"} {
		m.Kernels[i].Commit, m.Kernels[i].Title, m.Kernels[i].Package = "", "linux "+version, &bundle.Package{Name: "linux", Version: version, Digest: "sha256:" + version}
	}
	m.Culprit = &bundle.Culprit{Title: m.Kernels[1].Title, Package: m.Kernels[1].Package}
	m.Machine.Modules = []string{"dummy"}
	e.Patch, e.Log, e.Next = nil, "", []string{"read on"}
	got := string(Text(m, e))
	for _, want := range []string{"With the kernel linux 6.1-2 a container test fails", "With linux 6.1-1 it is good", "package sha256:6.1-2", "9 tests of 25 kernels", "  - read on\n", "modules loaded before the test: dummy"} {
		if !strings.Contains(got, want) {
			t.Errorf("without %q:\n%s", want, got)
		}
	}
	for _, not := range []string{"commit", "regzbot", "Fixes:", "author"} {
		if strings.Contains(got, not) {
			t.Errorf("with %q:\n%s", not, got)
		}
	}
}

// TestTextIsBoundedAndPlain feeds output that is large and hostile.
func TestTextIsBoundedAndPlain(t *testing.T) {
	m, e := example()
	flood := []byte(strings.Repeat("\x1b]0;title\x07"+strings.Repeat("é\xff", 600)+"\r\n", 5000))
	e.Bad = Output{Stdout: flood, Stderr: flood, Syslog: flood}
	e.Good, e.Patch, e.Log = e.Bad, flood, string(flood)
	got := Text(m, e)
	if len(got) > MaxText {
		t.Errorf("%d bytes: too much for a mail", len(got))
	}
	for i, b := range got {
		if b < ' ' && b != '\n' && b != '\t' || b == 0x7f {
			t.Fatalf("byte %d is %#x", i, b)
		}
	}
}
