package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lab/lab/bundle"
	"lab/lab/calls"
)

// traceFile is what Trial.Save and bundles call a trace of the system calls.
const traceFile = "trace"

// maxTrace is how much is read of a trace, in bytes.
const maxTrace = 64 << 20

// A RunDiff says in what two runs of a test differ, A and B.
type RunDiff struct {
	A string `json:"a"` // what they are called
	B string `json:"b"`
	// First says in a sentence what is the first of what differs, in the order of
	// the fields below.
	First   string            `json:"first"`
	Outcome string            `json:"outcome"` // Same or Different
	Ends    []RunChange       `json:"ends,omitempty"`
	Syslog  string            `json:"syslog,omitempty"`    // a unified diff without times and the like
	Audit   string            `json:"audit,omitempty"`     // the same of the audit records, where both runs have them
	OnlyA   []string          `json:"reports_a,omitempty"` // titles of reports that the console of A alone has
	OnlyB   []string          `json:"reports_b,omitempty"`
	Output  []string          `json:"output,omitempty"` // diffs of stdout and stderr
	Traced  string            `json:"traced,omitempty"` // why the system calls were not compared
	Call    *calls.Difference `json:"call,omitempty"`
}

// A RunChange is one thing that is different about the ends of two runs.
type RunChange struct {
	What string `json:"what"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// A savedRun is what is left of a run.
type savedRun struct {
	name  string
	trial Trial
	trace []byte
}

// DiffRuns compares two runs that were saved: each a folder of lab run --out, or a
// file of lab run --json.
func (l *Lab) DiffRuns(a, b string) (RunDiff, error) {
	was, err := openRun(a)
	if err != nil {
		return RunDiff{}, err
	}
	is, err := openRun(b)
	if err != nil {
		return RunDiff{}, err
	}
	return diffRuns(was, is), nil
}

// DiffEnds verifies a bundle, and compares its good run with its bad one.
func (l *Lab) DiffEnds(ctx context.Context, from BundleSource) (RunDiff, error) {
	b, err := l.openBundle(ctx, from, true)
	if err != nil {
		return RunDiff{}, err
	}
	defer b.Close()
	var runs [2]savedRun
	for i, role := range []string{bundle.RoleGood, bundle.RoleBad} {
		r, ok := b.Manifest.Run(role)
		if !ok {
			return RunDiff{}, fmt.Errorf("compare runs of %s: it has no %s run", from, role)
		}
		runs[i].name = role
		if runs[i].trial, err = recorded(b.Bundle, r); err != nil {
			return RunDiff{}, err
		}
		if runs[i].trace, err = member(b.Bundle, r.Dir+"/"+traceFile, maxTrace); err != nil {
			return RunDiff{}, err
		}
	}
	return diffRuns(runs[0], runs[1]), nil
}

// openRun reads a folder that Trial.Save has written, or the JSON of lab run.
func openRun(name string) (savedRun, error) {
	r := savedRun{name: name}
	info, err := os.Stat(name)
	if err != nil {
		return r, fmt.Errorf("open run: %w", err)
	}
	if !info.IsDir() {
		data, err := readSome(name, maxResult)
		if err != nil {
			return r, err
		}
		var result struct{ Trial *Trial }
		if err := json.Unmarshal(data, &result); err != nil || result.Trial == nil {
			return r, fmt.Errorf("open run %s: it is neither a folder of lab run --out nor what lab run --json prints", name)
		}
		r.trial = *result.Trial
		return r, nil
	}
	data, err := readSome(filepath.Join(name, trialFile), maxResult)
	if err != nil {
		return r, err
	}
	if data == nil {
		return r, fmt.Errorf("open run %s: it has no %s: lab run --out writes one", name, trialFile)
	}
	if err := json.Unmarshal(data, &r.trial); err != nil {
		return r, fmt.Errorf("open run %s: %s: %w", name, trialFile, err)
	}
	result := &r.trial.Result
	for file, text := range map[string]*[]byte{"stdout": &result.Stdout, "stderr": &result.Stderr, "syslog": &result.Syslog, auditFile: &result.Audit, traceFile: &r.trace} {
		if *text, err = readSome(filepath.Join(name, file), maxTrace); err != nil {
			return r, err
		}
	}
	return r, nil
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

// diffRuns goes from what is seen at once to what explains it.
func diffRuns(a, b savedRun) RunDiff {
	d := RunDiff{A: printable(a.name), B: printable(b.name), Outcome: Different}
	x, y := a.trial, b.trial
	d.end("where it ended", x.End, y.End)
	d.end("the exit status", exitOf(x), exitOf(y))
	d.end("the signal", x.Result.Signal, y.Result.Signal)
	if x.End == EndCrash && y.End == EndCrash {
		d.end("the crash", cause(x.Reports), cause(y.Reports))
	}
	d.Syslog = runDiff("syslog", x.Result.Syslog, y.Result.Syslog)
	if keptAudit(x) && keptAudit(y) {
		d.Audit = runDiff(auditFile, x.Result.Audit, y.Result.Audit)
	}
	d.OnlyA, d.OnlyB = reports(x.Reports, y.Reports), reports(y.Reports, x.Reports)
	for _, text := range []string{runDiff("stdout", x.Result.Stdout, y.Result.Stdout), runDiff("stderr", x.Result.Stderr, y.Result.Stderr)} {
		if text != "" {
			d.Output = append(d.Output, text)
		}
	}
	switch {
	case len(a.trace) > 0 && len(b.trace) > 0:
		d.Call = calls.Compare(a.trace, b.trace)
	default:
		d.Traced = "no system calls to compare: they are in a run that was traced, and in a file trace of its folder"
	}
	d.First = d.first()
	return d
}

func (d *RunDiff) end(what string, a, b any) {
	if a != b {
		d.Ends = append(d.Ends, RunChange{what, printable(fmt.Sprint(a)), printable(fmt.Sprint(b))})
	}
}

// keptAudit says whether a run would have audit records, if there were any.
func keptAudit(t Trial) bool { return t.Result.Container != nil && t.Result.Container.Audit }

// runDiff is lastingDiff of the texts of two runs.
func runDiff(name string, a, b []byte) string {
	d := lastingDiff(name, a, b)
	if _, rest, ok := strings.Cut(d, "\n@@"); ok {
		return "--- A/" + name + "\n+++ B/" + name + "\n@@" + rest
	}
	return d
}

// first says what differs first, and calls the runs the same when nothing does.
func (d *RunDiff) first() string {
	var says []string
	switch {
	case len(d.Ends) > 0:
		e := d.Ends[0]
		says = append(says, fmt.Sprintf("%s is %s in A and %s in B", e.What, cmp.Or(e.A, "none"), cmp.Or(e.B, "none")))
	case d.Syslog != "":
		says = append(says, "the syslog differs")
	case d.Audit != "":
		says = append(says, "the audit records differ")
	case len(d.OnlyA) > 0:
		says = append(says, "the console of A alone has: "+d.OnlyA[0])
	case len(d.OnlyB) > 0:
		says = append(says, "the console of B alone has: "+d.OnlyB[0])
	case len(d.Output) > 0:
		says = append(says, "the output differs")
	}
	if c := d.Call; c != nil {
		name, _, _ := strings.Cut(cmp.Or(c.A.Call, c.B.Call), "(")
		of := ""
		if c.Program != "" {
			of = " of " + printable(c.Program)
		}
		switch {
		case c.Answer:
			says = append(says, fmt.Sprintf("the first system call%s that is answered differently is %s", of, printable(name)))
		case c.A.Call != "":
			says = append(says, fmt.Sprintf("no system call is answered differently, and A alone calls %s%s", printable(name), of))
		default:
			says = append(says, fmt.Sprintf("no system call is answered differently, and B alone calls %s%s", printable(name), of))
		}
	}
	if len(says) == 0 {
		d.Outcome = Same
		return "nothing differs"
	}
	return strings.Join(says, "; ")
}

// Text is the comparison for people.
func (d RunDiff) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "A is %s\nB is %s\n\n%s.\n", d.A, d.B, d.First)
	part := func(title string) { fmt.Fprintf(&b, "\n%s:\n", title) }
	if len(d.Ends) > 0 {
		part("outcome")
		for _, e := range d.Ends {
			fmt.Fprintf(&b, "  %s: %s in A, %s in B\n", e.What, cmp.Or(e.A, "none"), cmp.Or(e.B, "none"))
		}
	}
	if d.Syslog != "" {
		part("syslog")
		b.WriteString(d.Syslog)
	}
	if d.Audit != "" {
		part("audit records")
		b.WriteString(d.Audit)
	}
	if len(d.OnlyA)+len(d.OnlyB) > 0 {
		part("console")
		for _, text := range d.OnlyA {
			fmt.Fprintf(&b, "  A alone: %s\n", text)
		}
		for _, text := range d.OnlyB {
			fmt.Fprintf(&b, "  B alone: %s\n", text)
		}
	}
	if len(d.Output) > 0 {
		part("output")
		b.WriteString(strings.Join(d.Output, ""))
	}
	switch c := d.Call; {
	case c != nil:
		part("system calls of A")
		paragraph(&b, c.A)
		part("system calls of B")
		paragraph(&b, c.B)
	case d.Traced != "":
		fmt.Fprintf(&b, "\n%s\n", d.Traced)
	}
	return b.String()
}

// paragraph writes calls, the one that differs marked.
func paragraph(b *strings.Builder, s calls.Side) {
	for i, text := range s.Around {
		mark := "  "
		if s.Call != "" && i == s.At {
			mark = "> "
		}
		b.WriteString(mark + printable(text) + "\n")
	}
}
