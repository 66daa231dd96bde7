package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lab/lab"
	"lab/lab/demo"
)

// BenchmarkBisect has lab bisect and git bisect run, with lab run, search the
// same 120 commits on the distribution's kernel, of which 12 touch what is
// compiled. Both begin with the good end built in the same work tree, and
// with none of the other kernels. ratio is lab's time over git's.
//
//	LAB_E2E=1 go test ./lab/cli -run - -bench 'Bisect$' -benchtime 1x -timeout 1h
func BenchmarkBisect(b *testing.B) {
	needE2E(b)
	archive, err := demo.Source()
	if err != nil {
		b.Fatal(err)
	}
	home := b.TempDir()
	history, err := demo.History(b.Context(), home, archive, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := vainRange(b, filepath.Join(home, "range"), history)
	ref := serve(b, probeImage(b))
	trial := []string{"--config", "tiny", "--image", ref, "--cap-drop", "AUDIT_WRITE", "--memory", "512", "--accel", "tcg"}
	// warm leaves the work tree at the good end, and no other kernel.
	warm := func() {
		b.Helper()
		if err := os.RemoveAll(filepath.Join(home, ".cache/lab/kernels")); err != nil {
			b.Fatal(err)
		}
		runLab(b, home, ExitGood, slices.Concat([]string{"run", "--repo", r.dir, "--commit", history.Good}, trial)...)
	}
	start := time.Now()
	warm()
	b.Logf("the good end, from nothing: %.0f s", time.Since(start).Seconds())

	for b.Loop() {
		start := time.Now()
		stdout, stderr := runLab(b, home, ExitGood, slices.Concat([]string{"bisect", "--repo", r.dir, "--good", history.Good, "--bad", r.bad,
			"--dir", b.TempDir(), "--json"}, trial)...)
		ours := time.Since(start)
		var found lab.Bisection
		if err := json.Unmarshal([]byte(stdout), &found); err != nil {
			b.Fatal(err)
		}
		if found.Culprit == nil || found.Culprit.Hash != r.culprit {
			b.Fatalf("lab found %+v, planted %s", found.Culprit, r.culprit)
		}
		booted, inferred, prepared := 0, 0, 0
		for _, t := range found.Tested {
			if t.Boot > 0 {
				booted++
			}
			if t.Prepared != "" {
				prepared++
			}
			if t.Unbuilt {
				inferred++
			}
		}
		b.Logf("lab bisect: %d tests, %d commits, %d of them inert\n%s", len(found.Tested), found.Range, found.Inert, stderr)

		warm()
		start = time.Now()
		r.git("bisect", "start", "--no-checkout", r.bad, history.Good)
		run := exec.Command("git", slices.Concat([]string{"bisect", "run", "lab", "run", "--repo", ".", "--commit", "BISECT_HEAD"}, trial)...)
		run.Dir, run.Env = r.dir, slices.Concat(labCmd(home).Env, []string{"PATH=" + labDir + ":" + os.Getenv("PATH")})
		out, err := run.CombinedOutput()
		gits := time.Since(start)
		if err != nil || !bytes.Contains(out, []byte(r.culprit+" is the first bad commit")) {
			b.Fatalf("git bisect run: %v\n%s", err, out)
		}
		tested := strings.Count(r.git("bisect", "log"), "\ngit bisect ") - 1
		r.git("bisect", "reset", r.bad)

		b.ReportMetric(ours.Seconds(), "lab-s")
		b.ReportMetric(gits.Seconds(), "git-s")
		b.ReportMetric(ours.Seconds()/gits.Seconds(), "ratio")
		b.ReportMetric(float64(built(found)), "lab-builds")
		b.ReportMetric(float64(booted), "lab-boots")
		b.ReportMetric(float64(prepared), "prepared")
		b.ReportMetric(float64(inferred), "inferred")
		b.ReportMetric(float64(tested), "git-builds")
	}
}

// longRange is a bare repository with a range of commits in it.
type longRange struct {
	b            testing.TB
	dir          string
	bad, culprit string
}

func (r longRange) git(args ...string) string { r.b.Helper(); return r.stdin("", args...) }

func (r longRange) stdin(in string, args ...string) string {
	r.b.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.b.Fatalf("git %s: %v\n%.2000s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// vainRange puts 120 commits on the demo's good one. Every tenth changes the
// kernel; the ninth of those is the demo's culprit. The others change drivers,
// documentation and architectures that the kernel is not made of.
func vainRange(b testing.TB, dir string, history demo.Repo) longRange {
	b.Helper()
	if out, err := exec.Command("git", "clone", "-q", "--bare", "--shared", history.Dir, dir).CombinedOutput(); err != nil {
		b.Fatalf("git clone: %v\n%s", err, out)
	}
	r := longRange{b: b, dir: dir}
	compiled := []string{"kernel/panic.c", "kernel/fork.c", "mm/mmap.c", "fs/namei.c", "net/socket.c", "kernel/sys.c"}
	var vain []string
	for _, name := range strings.Fields(r.git("ls-tree", "-r", "--name-only", history.Good,
		"drivers/gpu/drm/radeon/", "drivers/infiniband/hw/", "sound/pci/", "Documentation/admin-guide/", "arch/arm64/kernel/")) {
		if strings.HasSuffix(name, ".c") || strings.HasSuffix(name, ".rst") || strings.HasSuffix(name, ".h") {
			vain = append(vain, name)
		}
	}
	texts := map[string]string{}
	var s strings.Builder
	for i := 1; i <= 120; i++ {
		name := vain[i*37%len(vain)]
		if i%10 == 7 {
			name = compiled[i/10%len(compiled)]
		}
		if i == 87 {
			name = "kernel/audit.c"
		}
		if _, known := texts[name]; !known {
			texts[name] = r.git("cat-file", "blob", history.Good+":"+name)
		}
		switch {
		case i == 87:
			texts[name] = r.git("cat-file", "blob", history.Culprit+":"+name)
		case i%10 == 7:
			texts[name] += fmt.Sprintf("\nconst char lab_was_here_%d[] = \"%d\";\n", i, i)
		default:
			texts[name] += fmt.Sprintf("\n/* change %d */\n", i)
		}
		title := fmt.Sprintf("change %d: %s", i, name)
		fmt.Fprintf(&s, "commit refs/heads/range\nmark :%d\ncommitter lab <lab@lab.invalid> %d +0000\ndata %d\n%s\n", i, 1_700_000_000+i*60, len(title), title)
		if i == 1 {
			fmt.Fprintf(&s, "from %s\n", history.Good)
		}
		fmt.Fprintf(&s, "M 100644 inline %s\ndata %d\n%s\n", name, len(texts[name]), texts[name])
	}
	r.stdin(s.String(), "fast-import", "--quiet")
	r.bad = strings.TrimSpace(r.git("rev-parse", "refs/heads/range"))
	r.culprit = strings.TrimSpace(r.git("rev-parse", "refs/heads/range~33"))
	return r
}
