package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/lab/bundle"
	"lab/lab/report"
)

// patched gives a bundle a culprit's patch and a graph.
func patched(m *bundle.Manifest, files map[string]string) {
	m.Culprit.Author, m.Culprit.Patch = "A U Thor <author@example.org>", "bisect/culprit.patch"
	files[m.Culprit.Patch] = "Subject: [PATCH] audit\n\nSigned-off-by: C O Mmitter <committer@example.org>\n---\ndiff --git a/kernel/audit.c b/kernel/audit.c\n--- a/kernel/audit.c\n+++ b/kernel/audit.c\n"
	files["bisect/graph.jsonl"] = `{"hash":"` + strings.Repeat("b", 40) + `","title":"bad","state":"first bad","parents":[1]}` + "\n" + `{"hash":"` + strings.Repeat("a", 40) + `","title":"good","state":"good"}` + "\n"
	files["result.json"] = `{"range": 3, "tested": [{"commit": {"hash": "` + strings.Repeat("b", 40) + `", "title": "bad"}, "role": "end", "verdict": "bad", "reason": "exit status 1", "boot_ns": 1500000000}], "later": true}` + "\n"
}

func TestReport(t *testing.T) {
	file, cache := tinyBundle(t, patched), t.TempDir()
	for form, want := range map[string]string{
		"text": "Subject: [REGRESSION] audit: listen in all network namespaces: a container test fails\n", "md": "# Regression: `audit: listen",
		"html": "<!DOCTYPE html>\n", "json": "{\n  \"format\": 1,", "junit": "<?xml version=", "ktap": "KTAP version 1\n1..1\n# end: bad: exit status 1\n", "email": "To: \"A U Thor\" <author@example.org>\nCc: regressions@lists.linux.dev,\n\t\"C O Mmitter\" <committer@example.org>\nSubject: [REGRESSION]",
	} {
		for _, args := range [][]string{{"report", "--format", form, file}, {"report", file, "-f", form}, {"report", "--format=" + form, "--", file}, {"-q", "report", file, "--format=" + form}} {
			code, stdout, stderr := labTest(t, cache, args...)
			if code != 0 || !strings.HasPrefix(stdout, want) {
				t.Errorf("%v: exit status %d\n%.300s\n%s", args, code, stdout, stderr)
			}
		}
	}
	out := filepath.Join(t.TempDir(), "report.html")
	if code, stdout, stderr := labTest(t, cache, "report", file, "--format", "html", "-o", out); code != 0 || stdout != "" {
		t.Errorf("exit status %d\n%s%s", code, stdout, stderr)
	}
	page, err := os.ReadFile(out)
	if err != nil || !strings.Contains(string(page), `<a href="#step-1"><text class="title"`) || !strings.Contains(string(page), `<span class="first">sum: bad`) {
		t.Errorf("%v\n%s", err, page)
	}
	code, stdout, _ := labTest(t, cache, "report", "--json", file)
	var d report.Document
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 0 || len(d.Graph) != 2 || d.Range != 3 || d.Bad.Stdout != "sum: bad" {
		t.Errorf("exit status %d, %v, %+v", code, err, d)
	}
}

func TestReportUsage(t *testing.T) {
	file, cache := tinyBundle(t, nil), t.TempDir()
	for want, args := range map[string][]string{
		"one bundle is wanted":                      {},
		`"pdf" is none of text, md,`:                {file, "--format", "pdf"},
		"--from goes with --format email":           {file, "--from", "A <a@example.org>"},
		"is no mail address":                        {file, "--format", "email", "--from", "A\nBcc: <a@example.org"},
		"flag provided but not defined: -unknown":   {file, "--unknown"},
		"a checked out kernel tree is wanted":       {file, "--format", "email", "--repo", cache},
		"is no address of a file":                   {file, "--format", "email", "--link", "http://x/ y"},
		"one bundle is wanted: lab report bundle.t": {file, file, "--json"},
	} {
		status := ExitUsage
		if strings.Contains(want, "tree is wanted") || strings.Contains(want, "address of a file") {
			status = ExitFailure
			file := tinyBundle(t, patched)
			args = append([]string{file}, args[1:]...)
		}
		if code, stdout, stderr := labTest(t, cache, append([]string{"report"}, args...)...); code != status || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%v: exit status %d, want %d and %q\n%s%s", args, code, status, want, stdout, stderr)
		}
	}
}

// TestReportMaintainers asks a tree's script, which gets the patch and is in the tree.
func TestReportMaintainers(t *testing.T) {
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `-f "scripts/get_maintainer.pl" or die; my $patch = join "", <STDIN>;
$patch =~ m{^\+\+\+ b/kernel/audit.c$}m or die "no patch\n";
grep { $_ eq "--nogit-fallback" } @ARGV or die;
print "M Aintainer <maintainer\@example.org> (supporter:AUDIT)\nlinux-audit\@example.org (open list:AUDIT)\n";
`
	if err := os.WriteFile(filepath.Join(tree, "scripts/get_maintainer.pl"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := labTest(t, t.TempDir(), "report", tinyBundle(t, patched), "--format", "email", "--repo", tree, "--from", "R <r@example.org>", "--link", "https://example.org/b.tar")
	for _, want := range []string{"From: \"R\" <r@example.org>\nTo: ", ",\n\t\"M Aintainer\" <maintainer@example.org>\nCc: ", ",\n\tlinux-audit@example.org\nSubject: ", "\n  Reported-by: R <r@example.org>\n", "\nhttps://example.org/b.tar\n"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit status %d, without %q\n%s%s", code, want, stdout, stderr)
		}
	}
}

// TestHostileReports are of bundles that are whole, and whose members lie.
func TestHostileReports(t *testing.T) {
	cache := t.TempDir()
	for want, edit := range map[string]func(m *bundle.Manifest, files map[string]string){
		"read result.json: ":                func(_ *bundle.Manifest, f map[string]string) { f["result.json"] = "{" },
		"read runs/bad-1/trial.json: ":      func(_ *bundle.Manifest, f map[string]string) { f["runs/bad-1/trial.json"] = "[]" },
		"read bisect/graph.jsonl: line 1: ": func(_ *bundle.Manifest, f map[string]string) { f["bisect/graph.jsonl"] = "1\n" },
		"bisect/graph.jsonl: bufio":         func(_ *bundle.Manifest, f map[string]string) { f["bisect/graph.jsonl"] = strings.Repeat("1", 2<<20) },
	} {
		file := tinyBundle(t, edit)
		if code, stdout, stderr := labTest(t, cache, "report", file); code != ExitFailure || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("exit status %d, want %q\n%s%s", code, want, stdout, stderr)
		}
	}
	file := tinyBundle(t, func(_ *bundle.Manifest, f map[string]string) {
		f["result.json"] = `{"range": -1, "culprit": {"hash": "x"}, "rate": {"mean": 1e300}, "runs": [{"commit": {"hash": "", "title": "\u001b[31m\u202e"}, "bad": -1}, {}], "p_value": -7, "tested": [{}, {"verdict": "\u0007", "role": "\n"}], "terms": {"good": "\u202e"}}`
		f["runs/bad-1/stdout"] = "\x1b]0;t\x07\xff\u202eevil"
		f["runs/bad-1/trial.json"] = `{"reports": [{"kind": "\u001b", "title": "\u0000", "text": "\u0000\n"}], "boot_ns": -1}`
	})
	for _, form := range report.Forms {
		code, stdout, stderr := labTest(t, cache, "report", file, "--format", form)
		if at := strings.IndexFunc(stdout, func(r rune) bool {
			return r < ' ' && r != '\n' && r != '\t' || slices.Contains([]rune{0x7f, 0x9b, 0x202e}, r)
		}); code != 0 || at >= 0 {
			t.Errorf("%s: exit status %d, a hostile character at %d\n%s", form, code, at, stderr)
		}
	}
	// A bundle that is damaged is refused, as everywhere.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := labTest(t, cache, "report", file); code != ExitFailure || !strings.HasPrefix(stderr, "lab: refuse bundle "+file) {
		t.Errorf("exit status %d\n%s", code, stderr)
	}
}
