package report

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lab/kernel/console"
	"lab/lab/bundle"
	"lab/oci"
	"lab/probe"
)

var update = flag.Bool("update", false, "write golden files anew")

const (
	goodHash = "51cc83f024ee51de9da70c17e01ec6de524f5906"
	badHash  = "33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb"
)

const examplePatch = `From 33faba7fa7f2288d2f8aaea95958b2c97bf9ebfb Mon Sep 17 00:00:00 2001
From: A U Thor <author@example.org>
Date: Tue, 16 Jul 2013 13:18:45 -0400
Subject: [PATCH] audit: listen in all network namespaces

Create one socket in each.

Signed-off-by: A U Thor <author@example.org>
Signed-off-by: "Committer, C O" <committer@example.org>
Reviewed-by: R Eviewer <reviewer@example.org>
---
 kernel/audit.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/kernel/audit.c b/kernel/audit.c
--- a/kernel/audit.c
+++ b/kernel/audit.c
@@ -1,3 +1,3 @@ static int audit_init(void)
 	int i;
-	return 1;
+	return 0 < 1 && "a";
Signed-off-by: in the diff <diff@example.org>
`

const exampleConsole = "[    0.000000] Linux version 3.13.0 (lab@lab)\r\n" +
	"[    0.100000] Run /init as init process\r\n" +
	"[    0.200000] ------------[ cut here ]------------\r\n" +
	"[    0.200001] WARNING: CPU: 0 PID: 42 at kernel/audit.c:17 audit_log+0x12/0x34()\r\n" +
	"[    0.200002] Call Trace:\r\n" +
	"[    0.200003]  [<ffffffff8100cafe>] audit_log+0x12/0x34\r\n" +
	"[    0.200004] ---[ end trace 1234567890abcdef ]---\r\n" +
	"[    0.300000] reboot: Power down\r\n"

// example has something of everything.
func example() Document {
	m := bundle.Manifest{
		Lab: "1.0", Platform: "linux/amd64",
		Test:    probe.Spec{Container: "test", Runtime: "crun", Command: []string{"sh", "-c", "su -c true && echo 'it''s fine'"}},
		Machine: bundle.Machine{Accel: "tcg", QEMU: "7.2.22", Memory: 512, CPUs: 1, Cmdline: "quiet"},
		Symptom: bundle.Symptom{Kind: "test", BadMatch: "System error"},
		Images:  []bundle.Image{{Name: "test", Pin: oci.Pin{Reference: "rootfs:app.tar", Digest: "sha256:aa"}}, {Pin: oci.Pin{Reference: "rootfs:base.tar", Digest: "sha256:bb"}}},
		Kernels: []bundle.Kernel{
			{Role: bundle.RoleGood, Commit: goodHash, Title: "audit: a setting", Release: "3.13.0", Compiler: "gcc 4.9"},
			{Role: bundle.RoleBad, Commit: badHash, Title: "audit: listen in all network namespaces", Release: "3.13.0", Compiler: "gcc 4.9"},
		},
		Runs: []bundle.Run{
			{Role: bundle.RoleGood, End: "test", Verdict: "good", Reason: "exit status 0"},
			{Role: bundle.RoleBad, End: "test", Verdict: "bad", Reason: "stderr says: su: System error", Exit: 1},
		},
		Culprit: &bundle.Culprit{Commit: badHash, Title: "audit: listen in all network namespaces", Author: "A U Thor <author@example.org>", Date: time.Date(2013, 7, 16, 13, 18, 45, 0, time.UTC)},
		Host:    bundle.Host{System: "Debian GNU/Linux 12", Kernel: "6.1.0", CPU: "a CPU"},
	}
	quiet, _, _ := strings.Cut(exampleConsole, "[    0.2")
	reports, err := console.Scan(strings.NewReader(exampleConsole))
	if err != nil {
		panic(err)
	}
	hash := func(c string) string { return strings.Repeat(c, 40) }
	step := func(commit, title, role, verdict, reason string, left int) Step {
		return Step{Commit: commit, Title: title, Role: role, Verdict: verdict, Reason: reason, Left: left, Build: 90 * time.Second, Boot: 1500 * time.Millisecond, Test: 300 * time.Millisecond}
	}
	steps := []Step{
		step(hash("a"), "audit: begin", "end", "good", "exit status 0", 24),
		step(hash("f"), "audit: end", "end", "bad", "stderr says: su: System error", 24),
		step(hash("c"), "net: does not build", "step", "skip", "does not build: net/core.c:1: error: no # here", 24),
		step(hash("d"), "Merge branch 'net'", "step", "bad", "stderr says: su: System error", 12),
		step(goodHash, "audit: a setting", "step", "good", "exit status 0", 3),
		step(badHash, "audit: listen in all network namespaces", "confirm", "bad", "stderr says: su: System error", 1),
		step(goodHash, "audit: a setting", "again", "good", "exit status 0", 1),
	}
	steps[4].Inferred, steps[4].Unbuilt = hash("a"), true
	steps[6].ByHand = true
	return Document{
		Manifest: m,
		Good:     Run{Stdout: "begins\nOKAY\n", Console: quiet, Command: "gzip -dc inputs/disk.img.gz >disk.img\nqemu-system-x86_64 \\\n  -kernel kernels/good/bzImage\n"},
		Bad: Run{
			Stdout: "begins\n", Stderr: "su: System error\n", Syslog: "<86>su: PAM audit_log_acct_message() failed\x1b[31m: Operation not permitted\n",
			Engine:  "crun version 1.8.1; seccomp default; control groups 2 by cgroupfs; capabilities CHOWN, KILL",
			Console: exampleConsole, Reports: reports, Command: "gzip -dc inputs/disk.img.gz >disk.img\nqemu-system-x86_64 \\\n  -kernel kernels/bad/bzImage\n",
		},
		Patch: examplePatch, Log: "git bisect start\n", Steps: steps, Range: 24,
		Sure: "confidence 98.1%: it failed 2 of 2 runs, its parent 0 of 3", Confidence: .981, PValue: .1,
		Runs:  []Count{{badHash, "audit: listen in all network namespaces", 2, 0}, {goodHash, "audit: a setting", 0, 3}},
		Hunks: "--- a/kernel/audit.c\n+++ b/kernel/audit.c\n@@ -1 +1 @@\n-\treturn 1;\n+\treturn 0;\n",
		Pair:  []string{"two commits that it brings together do not go together:", "  " + goodHash + " audit: a setting"},
		Proof: []string{"reverted on ffffffffffff (\"audit: end\"): good: exit status 0"},
		Known: []string{"1 commit: pie: an option of gcc, repaired by a commit"},
		Graph: []Node{
			{Hash: hash("f"), Title: "audit: end", State: "bad", End: true, Parents: []int{1}, Hidden: 11},
			{Hash: hash("d"), Title: "Merge branch 'net'", State: "bad", Parents: []int{3, 2}},
			{Hash: hash("c"), Title: "net: does not build", State: "skip", Parents: []int{5}, Hidden: 3, Suspects: 1},
			{Hash: badHash, Title: "audit: listen in all network namespaces", State: StateFirst, Parents: []int{4}},
			{Hash: goodHash, Title: "audit: a setting", State: "good", ByHand: true, Parents: []int{5}},
			{Hash: hash("a"), Title: "audit: begin", State: "good", End: true},
		},
	}
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
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
		t.Errorf("%s changed (-want +got):\n%s", name, d)
	}
}

func render(t testing.TB, d Document, form string) string {
	t.Helper()
	data, err := Render(d, form)
	if err != nil {
		t.Fatalf("%s: %v", form, err)
	}
	return string(data)
}

// The forms are pinned: people and programs read them.
var goldens = map[string]string{
	FormText: "REPORT.txt", FormMarkdown: "report.md", FormHTML: "report.html", FormJSON: "report.json",
	FormJUnit: "junit.xml", FormKTAP: "report.ktap", FormEmail: "mail",
}

func TestForms(t *testing.T) {
	for _, form := range Forms {
		t.Run(form, func(t *testing.T) {
			d := example()
			d.Mail = Mail{
				From: "Re Porter <reporter@example.org>", Link: "https://example.org/bundle.tar",
				Maintainers: "M Aintainer <maintainer@example.org> (supporter:AUDIT SUBSYSTEM)\nA U Thor <Author@example.org> (reviewer:X)\naudit@example.org (moderated list:AUDIT SUBSYSTEM)\n",
			}
			if form != FormEmail {
				d.Mail = Mail{}
			}
			got := render(t, d, form)
			if form == FormJSON { // what a manifest has is pinned elsewhere
				m, err := json.MarshalIndent(d.Plain().Manifest, "  ", "  ")
				if err != nil {
					t.Fatal(err)
				}
				if m := string(escape(m)); strings.Count(got, m) == 1 {
					got = strings.Replace(got, m, "{}", 1)
				}
			}
			golden(t, goldens[form], []byte(got))
		})
	}
	if _, err := Render(example(), "pdf"); err == nil || !strings.Contains(err.Error(), `report form "pdf" is none of email, html`) {
		t.Error(err)
	}
	var svg strings.Builder
	if err := SVG(&svg, example().Graph, "commit", nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "graph.svg", []byte(svg.String()))
}

// hostile is a document of somebody who means harm, as far as the manifest's own
// rules let them.
func hostile(evil string) Document {
	d := example()
	flood := strings.Repeat("\x1b]0;title\x07</pre><script>alert(1)</script>```` @team \u202e"+strings.Repeat("é\xff&", 600)+"\r\n", 150)
	evil += "</title></style><script>alert(1)</script>\"'><img src=x onerror=alert(1)>`` @team [x](javascript:x) | #1 \u202e\u2066\x1b[2J\x00\xff\r\nBcc: victim@example.org\r\n\r\n"
	d.Manifest.Test.Command = []string{evil}
	for i := range d.Manifest.Kernels {
		d.Manifest.Kernels[i].Title = evil
	}
	d.Manifest.Culprit.Title, d.Manifest.Culprit.Author = evil, evil+"<victim@example.org>, <x@example.org>"
	d.Manifest.Machine.Cmdline = "</code><script>"
	d.Manifest.Symptom.BadMatch = evil
	for i := range d.Manifest.Runs {
		d.Manifest.Runs[i].Reason = evil
	}
	d.Manifest.Images[0].Reference = evil
	d.Manifest.Host = bundle.Host{System: evil, Kernel: evil, CPU: evil}
	d.Good = Run{Stdout: flood, Stderr: flood, Syslog: flood, Console: flood, Command: flood}
	d.Bad = d.Good
	d.Bad.Stdout += "x"
	for range 120 {
		d.Bad.Reports = append(d.Bad.Reports, console.Report{Kind: evil, Title: evil, Text: flood[:5000]})
	}
	d.Patch = "Signed-off-by: " + evil + "\n" + examplePatch + flood
	d.Log, d.Sure = flood, evil
	d.Hunks, d.Pair = flood, []string{evil, flood, flood}
	d.Proof = []string{flood, evil}
	d.Known, d.Next = []string{evil, flood}, []string{evil, flood}
	d.Words = map[string]string{"good": evil, "bad": evil, evil: evil}
	for range 200 {
		d.Steps = append(d.Steps, Step{Commit: evil, Title: evil, Role: evil, Verdict: evil, Reason: flood[:4000], Inferred: evil, Left: -7, Build: -1})
		d.Graph = append(d.Graph, Node{Hash: evil, Title: evil, State: evil, Parents: []int{-1, 0, 3, 1 << 40, 5, 5, len(d.Graph) + 1, len(d.Graph) + 7, len(d.Graph) + 30}, Hidden: -1, Suspects: 1 << 40})
	}
	d.Runs = append(d.Runs, Count{evil, evil, -1, 1 << 40})
	d.Mail.Maintainers = flood + evil
	return d
}

// TestHostile renders what is large and hostile: nothing in it steers a terminal,
// and every form is bounded.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("long, with one goroutine")
	}
	for _, evil := range []string{"", strings.Repeat("\"&", 2000)} {
		testHostile(t, hostile(evil))
	}
}

func testHostile(t *testing.T, d Document) {
	d = d.Plain() // once for all
	t.Helper()
	for form, most := range map[string]int{FormText: MaxText, FormEmail: MaxText, FormHTML: MaxHTML, FormMarkdown: maxIssue, FormJSON: 64 << 20, FormJUnit: 16 << 20, FormKTAP: 8 << 20} {
		got := render(t, d, form)
		if len(got) > most {
			t.Errorf("%s has %d bytes, more than %d", form, len(got), most)
		}
		for i, r := range got {
			if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u2066' {
				t.Errorf("%s: the character at %d is %U", form, i, r)
				break
			}
		}
	}
}
