package lab

import (
	"strings"
	"testing"

	"lab/probe"
)

// side makes the runs of a side from their exit statuses and what they wrote.
func side(name string, exits []int, said ...string) runs {
	r := runs{name: name}
	for i, exit := range exits {
		r.list = append(r.list, savedRun{said[i], Trial{End: EndTest, Result: probe.Result{Exit: exit, Stdout: []byte(said[i])}}})
	}
	return r
}

func TestDiffPicks(t *testing.T) {
	for name, test := range map[string]struct {
		a, b  runs
		first string
		runsB string // those that count, by what they wrote
		noise int
		notes int
	}{
		"the same":             {side("a", []int{0}, "x\n"), side("b", []int{0}, "x\n"), "nothing differs", "x", 0, 0},
		"output":               {side("a", []int{0}, "x\n"), side("b", []int{0}, "y\n"), "the output differs", "y", 0, 0},
		"output at times":      {side("a", []int{0, 0}, "x\n1\n", "x\n2\n"), side("b", []int{0, 0}, "x\n3\n", "x\n4\n"), "nothing differs", "x 3 x 4", 2, 0},
		"output, and at times": {side("a", []int{0, 0}, "x\n1\n", "x\n2\n"), side("b", []int{0, 0}, "y\n3\n", "y\n4\n"), "the output differs", "y 3 y 4", 2, 0},
		"bad at times":         {side("a", []int{0, 0}, "x\n", "x\n"), side("b", []int{0, 1}, "x\n", "y\n"), "the exit status is 0 in A and 1 in B; the output differs", "y", 0, 1},
	} {
		d := diffRuns(test.a, test.b)
		if first, _, _ := strings.Cut(d.First, ";"); first != strings.Split(test.first, ";")[0] {
			t.Errorf("%s: %s", name, d.First)
		}
		if (len(d.Output) > 0) != strings.Contains(test.first, "output") {
			t.Errorf("%s: output %q", name, d.Output)
		}
		if got := strings.Join(strings.Fields(strings.Join(d.RunsB, " ")), " "); got != test.runsB || d.NoiseLines != test.noise || len(d.Notes) != test.notes {
			t.Errorf("%s: runs %q, %d lines left out, %d notes", name, got, d.NoiseLines, len(d.Notes))
		}
	}
}

// TestDiffAudit: records are compared where both kernels make them, and missed where one
// of two does not.
func TestDiffAudit(t *testing.T) {
	audited := func(records string) runs {
		r := side("x", []int{0}, "")
		r.list[0].Result.Container, r.list[0].Result.Audit = &probe.Container{Audit: true}, []byte(records)
		return r
	}
	none := side("y", []int{0}, "")
	if d := diffRuns(audited("type=AVC\n"), none); d.Audit != "" || d.Notes != nil { // of a lab that did not say
		t.Errorf("%q, %q", d.Audit, d.Notes)
	}
	none.list[0].Result.Container = &probe.Container{}
	for _, d := range []RunDiff{diffRuns(audited("type=AVC\n"), none), diffRuns(none, audited("type=AVC\n"))} {
		if d.Audit != "" || len(d.Notes) != 1 || !strings.Contains(d.Notes[0], "CONFIG_AUDIT") {
			t.Errorf("%q, %q", d.Audit, d.Notes)
		}
	}
	if d := diffRuns(audited("type=AVC\n"), audited("")); !strings.Contains(d.Audit, "-type=AVC") || d.Notes != nil || d.First != "the audit records differ" {
		t.Errorf("%q, %q, %s", d.Audit, d.Notes, d.First)
	}
}

func TestDiffText(t *testing.T) {
	d := diffRuns(side("one", []int{0, 0}, "x\n1\n", "x\n2\n"), side("two", []int{7, 7}, "y\n", "y\n"))
	want := "A is one\nB is two\n\nthe exit status is 0 in A and 7 in B.\n\noutcome:\n  the exit status: 0 in A, 7 in B\n\noutput:\n" +
		"--- A/stdout\n+++ B/stdout\n@@ -1,1 +1,1 @@\n-x\n+y\n\nno system calls to compare: those of a run with --trace are\n\n" +
		"left out, for they differ from run to run of A or of B: 1 line of text\n"
	if got := d.Text(false, 0); got != want {
		t.Errorf("got:\n%s", got)
	}
	if got := d.Text(true, 80); !strings.Contains(got, "\x1b[31m-x\x1b[0m\n\x1b[32m+y\x1b[0m\n") {
		t.Errorf("%q", got)
	}
}
