package lab

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"lab/lab/calls"
	"lab/probe"
)

// A RunDiff says in what two runs of a test differ, A and B.
type RunDiff struct {
	A string `json:"a"` // what they are called
	B string `json:"b"`
	// RunsA and RunsB are the folders that the runs are kept in. The first ones are
	// compared; the others tell what differs from run to run.
	RunsA []string `json:"runs_a,omitempty"`
	RunsB []string `json:"runs_b,omitempty"`
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
	// How many calls and lines were left out of the fields above as noise: they differ,
	// or are there at times only, in the runs of A, or of B, by themselves.
	NoiseCalls int      `json:"noise_calls,omitempty"`
	NoiseLines int      `json:"noise_lines,omitempty"`
	Notes      []string `json:"notes,omitempty"` // what puts the comparison in doubt
}

// A RunChange is one thing that is different about the ends of two runs.
type RunChange struct {
	What string `json:"what"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// runs are those of one side of a comparison: the first is compared.
type runs struct {
	name string
	list []savedRun
}

// A savedRun is a trial, and the folder or file that it is kept in.
type savedRun struct {
	dir string
	Trial
}

// diffRuns goes from what is seen at once to what explains it.
func diffRuns(a, b runs) RunDiff {
	d := RunDiff{A: printable(a.name), B: printable(b.name), Outcome: Different}
	d.pick(&a, &b)
	x, y := a.list[0].Trial, b.list[0].Trial
	d.RunsA, d.RunsB = a.dirs(), b.dirs()
	d.end("where it ended", x.End, y.End)
	d.end("the exit status", exitOf(x), exitOf(y))
	d.end("the signal", x.Result.Signal, y.Result.Signal)
	if x.End == EndCrash && y.End == EndCrash {
		d.end("the crash", cause(x.Reports), cause(y.Reports))
	}
	text := func(name string, of func(probe.Result) []byte) string {
		return runDiff(name, d.steady(a, of), d.steady(b, of))
	}
	d.Syslog = text("syslog", func(r probe.Result) []byte { return r.Syslog })
	switch {
	case keptAudit(x) && keptAudit(y):
		d.Audit = text(auditFile, func(r probe.Result) []byte { return r.Audit })
	case keptAudit(x) && y.Result.Container != nil:
		d.Notes = append(d.Notes, "the audit records of A are not compared: the kernel of B has none (CONFIG_AUDIT)")
	case keptAudit(y) && x.Result.Container != nil:
		d.Notes = append(d.Notes, "the audit records of B are not compared: the kernel of A has none (CONFIG_AUDIT)")
	}
	d.OnlyA, d.OnlyB = reports(x.Reports, y.Reports), reports(y.Reports, x.Reports)
	for _, text := range []string{
		text("stdout", func(r probe.Result) []byte { return r.Stdout }),
		text("stderr", func(r probe.Result) []byte { return r.Stderr }),
	} {
		if text != "" {
			d.Output = append(d.Output, text)
		}
	}
	if ta, tb := a.traces(), b.traces(); len(ta) > 0 && len(tb) > 0 {
		d.Call, d.NoiseCalls = calls.Compare(ta, tb)
	} else {
		d.Traced = "no system calls to compare: those of a run with --trace are"
	}
	d.First = d.first()
	return d
}

func (r runs) dirs() (list []string) {
	for _, run := range r.list {
		if run.dir != "" {
			list = append(list, run.dir)
		}
	}
	return list
}

// traces are those of the runs; none where the first has none.
func (r runs) traces() (list [][]byte) {
	for i, run := range r.list {
		if len(run.Result.Trace) > 0 {
			list = append(list, run.Result.Trace)
		} else if i == 0 {
			break
		}
	}
	return list
}

// pick puts in front what is compared: the first two runs, or two that end differently
// where there are any. Runs of a side that ended in another way are no measure of what
// differs by chance, and are left out.
func (d *RunDiff) pick(a, b *runs) {
	ai, bi := 0, 0
	for i := range len(a.list) * len(b.list) {
		if x, y := i%len(a.list), i/len(a.list); !alike(a.list[x], b.list[y]) {
			ai, bi = x, y
			break
		}
	}
	d.keep("A", a, ai)
	d.keep("B", b, bi)
}

// keep puts a run in front of those that ended as it did, and leaves out the others.
func (d *RunDiff) keep(name string, r *runs, at int) {
	first, all := r.list[at], len(r.list)
	rest := slices.DeleteFunc(slices.Delete(slices.Clone(r.list), at, at+1), func(o savedRun) bool { return !alike(o, first) })
	r.list = append([]savedRun{first}, rest...)
	if n := len(r.list); n < all {
		d.Notes = append(d.Notes, fmt.Sprintf("the runs of %s do not all end alike: %d of %d end as the one that is compared", name, n, all))
	}
}

// alike tells of two runs that they ended in the same way.
func alike(x, y savedRun) bool {
	return x.End == y.End && exitOf(x.Trial) == exitOf(y.Trial) && x.Result.Signal == y.Result.Signal
}

// steady is a text of the first run without the lines that another run of the same
// side has not.
func (d *RunDiff) steady(r runs, of func(probe.Result) []byte) []byte {
	text := lasting(of(r.list[0].Result))
	for _, t := range r.list[1:] {
		has := map[string]bool{}
		for line := range bytes.Lines(lasting(of(t.Result))) {
			has[string(line)] = true
		}
		var kept []byte
		for line := range bytes.Lines(text) {
			if has[string(line)] {
				kept = append(kept, line...)
			} else {
				d.NoiseLines++
			}
		}
		text = kept
	}
	return text
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
	if d.Call != nil {
		says = append(says, callSays(d.Call))
	}
	if len(says) == 0 {
		d.Outcome = Same
		return "nothing differs"
	}
	return strings.Join(says, "; ")
}

// callSays is what a sentence says of the call that differs.
func callSays(c *calls.Difference) string {
	what, of := printable(c.Name), ""
	if c.Of != "" {
		what += " of " + clip(printable(c.Of), 60)
	}
	if c.Program != "" {
		of = " of " + printable(c.Program)
	}
	switch {
	case c.Answer && c.A.Answer == c.B.Answer:
		return fmt.Sprintf("the first system call%s that is answered differently is %s", of, what)
	case c.Answer:
		return fmt.Sprintf("the first system call%s that is answered differently is %s: %s in A, %s in B", of, what, printable(c.A.Answer), printable(c.B.Answer))
	case c.A.Call != "":
		return fmt.Sprintf("no system call is answered differently, and the first%s that A alone makes is %s", of, what)
	}
	return fmt.Sprintf("no system call is answered differently, and the first%s that B alone makes is %s", of, what)
}

// Text is the comparison for people. On a terminal it has colours and a width, to
// which the calls around the one that matters are cut; 0 is any width.
func (d RunDiff) Text(colours bool, width int) string {
	var b strings.Builder
	ink := func(code, text string) string {
		if !colours {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(&b, "A is %s\nB is %s\n\n%s\n", d.A, d.B, ink("1", d.First+"."))
	part := func(title string) { fmt.Fprintf(&b, "\n%s:\n", title) }
	hunks := func(text string) {
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "-"):
				line = ink("31", line)
			case strings.HasPrefix(line, "+"):
				line = ink("32", line)
			}
			b.WriteString(line + "\n")
		}
	}
	if len(d.Ends) > 0 {
		part("outcome")
		for _, e := range d.Ends {
			fmt.Fprintf(&b, "  %s: %s in A, %s in B\n", e.What, cmp.Or(e.A, "none"), cmp.Or(e.B, "none"))
		}
	}
	if d.Syslog != "" {
		part("syslog")
		hunks(d.Syslog)
	}
	if d.Audit != "" {
		part("audit records")
		hunks(d.Audit)
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
		hunks(strings.Join(d.Output, ""))
	}
	paragraph := func(s calls.Side) {
		for i, text := range s.Around {
			if text = printable(text); s.Call != "" && i == s.At {
				b.WriteString(ink("1", "> "+text) + "\n")
				continue
			}
			if width > 10 {
				text = clip(text, width-2)
			}
			b.WriteString("  " + text + "\n")
		}
	}
	switch c := d.Call; {
	case c != nil:
		part("system calls of A")
		paragraph(c.A)
		part("system calls of B")
		paragraph(c.B)
	case d.Traced != "":
		fmt.Fprintf(&b, "\n%s\n", d.Traced)
	}
	var noise []string
	if d.NoiseCalls > 0 {
		noise = append(noise, plural(d.NoiseCalls, "system call"))
	}
	if d.NoiseLines > 0 {
		noise = append(noise, plural(d.NoiseLines, "line")+" of text")
	}
	if len(noise) > 0 {
		fmt.Fprintf(&b, "\nleft out, for they differ from run to run of A or of B: %s\n", strings.Join(noise, ", "))
	}
	for _, n := range d.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", n)
	}
	return b.String()
}
