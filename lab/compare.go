package lab

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"

	"github.com/rogpeppe/go-internal/diff"

	"lab/kernel/console"
)

// maxDiff is how much of a diff is kept, in bytes.
const maxDiff = 8 << 10

// compare says what differs between a rerun and its record. What decides is the
// verdict, how the test ended and what the kernel died of; the rest is shown.
func (r *rerunner) compare(run *Rerun) error {
	before, err := readTrial(r.bundle.Path(path.Join(run.Recorded.Dir, trialFile)))
	if err != nil {
		return err
	}
	run.Outcome = Same
	differs := func(what string, then, now any) {
		if then != now {
			run.Differences = append(run.Differences, fmt.Sprintf("%s was %v and is %v", what, then, now))
			run.Outcome = Different
		}
	}
	differs("the verdict", run.Recorded.Verdict, string(run.Mark))
	differs("where it ended", run.Recorded.End, string(run.Trial.End))
	differs("the exit status", run.Recorded.Exit, exitOf(run.Trial))
	differs("the signal", before.Result.Signal, run.Trial.Result.Signal)
	if run.Trial.End == EndCrash && before.End == EndCrash {
		differs("the crash", cause(before.Reports), cause(run.Trial.Reports))
	}
	if r.bundle.Manifest.Machine.Exact {
		if err := r.compareExact(before, run); err != nil {
			return err
		}
	}
	if run.Outcome == Different && run.Mark == Skip {
		run.Outcome = CannotRun
	}
	for _, text := range reports(before.Reports, run.Trial.Reports) {
		run.Differences = append(run.Differences, "the console then, and not now, had: "+text)
	}
	for _, text := range reports(run.Trial.Reports, before.Reports) {
		run.Differences = append(run.Differences, "the console now, and not then, has: "+text)
	}
	for _, said := range outputs(run.Trial) {
		then, err := os.ReadFile(r.bundle.Path(path.Join(run.Recorded.Dir, said.name)))
		if err != nil {
			continue // a run that did not get to the test has no output
		}
		if d := lastingDiff(said.name, then, said.data); d != "" {
			run.Differences = append(run.Differences, said.name+" differs")
			run.Diffs = append(run.Diffs, d)
		}
	}
	return nil
}

// said is one thing that a test writes to.
type said struct {
	name string
	data []byte
}

// auditFile is what Trial.Save and bundles call the audit records. Older bundles have
// none, and their agents send none.
const auditFile = "audit"

func outputs(t Trial) []said {
	return []said{{"stdout", t.Result.Stdout}, {"stderr", t.Result.Stderr}, {"syslog", t.Result.Syslog}, {auditFile, t.Result.Audit}}
}

func cause(reports []console.Report) string {
	c, _ := console.Cause(reports)
	return oneLine(c.Title)
}

// reports gives the titles of a console's reports that are not among another's.
func reports(of, others []console.Report) []string {
	var titles []string
	for _, r := range of {
		title := oneLine(r.Title)
		if !slices.ContainsFunc(others, func(o console.Report) bool { return oneLine(o.Title) == title }) && !slices.Contains(titles, title) {
			titles = append(titles, title)
		}
	}
	return titles
}

// lastingDiff is the unified diff of two texts of a guest; empty where they differ in
// nothing but what changes from run to run.
func lastingDiff(name string, then, now []byte) string {
	if bytes.Equal(then, now) {
		return ""
	}
	d := diff.Diff("recorded/"+name, lasting(then), "here/"+name, lasting(now))
	if len(d) > maxDiff {
		d = fmt.Appendf(d[:maxDiff:maxDiff], "\n[%d bytes more]\n", len(d)-maxDiff)
	}
	return string(d)
}

// lasting puts words in the place of what changes from run to run, and makes a
// guest's text fit to be printed.
func lasting(text []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(text) {
		for _, u := range passing {
			line = u.is.ReplaceAll(line, []byte(u.called))
		}
		b.WriteString(printable(string(bytes.TrimRight(line, "\r\n"))))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// What changes from run to run: the times of printk and syslog, addresses as %px,
// %p and crashes print them, the numbers of audit records, and process numbers as syslog
// and the kernel do.
var passing = []struct {
	is     *regexp.Regexp
	called string
}{
	{regexp.MustCompile(`^(<[0-9]+>)?\[ *[0-9]+\.[0-9]{6}\]`), "$1[TIME]"},
	{regexp.MustCompile(`\b[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}\b`), "TIME"},
	{regexp.MustCompile(`\b[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?\b`), "TIME"},
	{regexp.MustCompile(`\b0x[0-9a-f]{6,16}\b`), "ADDRESS"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "ADDRESS"},
	{regexp.MustCompile(`\b([A-Za-z_./-]+)\[[0-9]+\]`), "$1[PID]"},
	{regexp.MustCompile(`\baudit\([0-9]+\.[0-9]+:[0-9]+\)`), "audit(TIME:SERIAL)"},
	{regexp.MustCompile(`\bppid=[0-9]+`), "ppid=N"},
	{regexp.MustCompile(`(?i)\bpid([ =:]+)[0-9]+`), "PID${1}N"},
}
