// Package report turns what a bundle knows into what people read.
package report

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"lab/lab/bundle"
)

// Evidence is what the manifest of a bundle does not hold and a report quotes.
type Evidence struct {
	Good, Bad Output
	Patch     []byte   // git show of the culprit
	Pair      []string // of a culprit that is a merge of good commits: what of them does not go together
	Log       string   // git bisect log
	Tests     int      // commits tested, or said by hand to be good, bad or skipped
	Inferred  int      // those of them that were not built, because they change nothing that is compiled
	ByHand    int      // verdicts that somebody gave
	Next      []string // of ready-made kernels: where to look on
	Known     []string // why commits that were skipped do not build, where that is known
	Proof     []string // what the culprit does when it is reverted on the bad end, and applied on the good one
	Sure      string   // how sure the answer is, in a line; may be empty
	Range     int      // commits that could be the first bad one at the start
}

// Output is what one run of the test wrote.
type Output struct{ Stdout, Stderr, Syslog []byte }

// MaxText is how long a report may be, in bytes: kernel mailing lists take mails
// of 100 kB.
const MaxText = 100_000

// Text is REPORT.txt: plain text of MaxText bytes at most, in the order in which the
// kernel's Documentation/admin-guide/reporting-regressions.rst asks for it,
// ready to be pasted into a mail.
func Text(m bundle.Manifest, e Evidence) []byte {
	var b bytes.Buffer
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	title := bad.Title
	if m.Culprit != nil {
		title = m.Culprit.Title
	}
	p("Subject: [REGRESSION] %s: a container test fails", title)
	p("")
	switch {
	case bad.Package != nil:
		packages(&b, m, e)
	case m.Culprit != nil && len(m.Culprit.Options) > 0:
		options(&b, m, e)
	default:
		p("Since commit %s (%q) a container test fails:", abbreviate(bad.Commit), bad.Title)
		p("%s. With its parent %s it is %s: %s.", badRun.Reason, abbreviate(good.Commit), goodRun.Verdict, goodRun.Reason)
		p("")
		p("last good:  %s  %s", good.Commit, good.Title)
		p("first bad:  %s  %s", bad.Commit, bad.Title)
		if c := m.Culprit; c != nil {
			p("author:     %s, %s", c.Author, c.Date.UTC().Format(time.DateOnly))
			p("")
			p("#regzbot introduced: %s", c.Commit)
		}
	}
	if len(e.Pair) > 0 {
		p("")
		p("THE MERGE")
		p("  The first bad commit is a merge, and each of its parents is good:")
		for _, line := range e.Pair {
			p("  %s", line)
		}
	}
	p("")
	p("THE TEST")
	p("  command  %s", command(m))
	for _, i := range m.Images {
		p("  image    %s = %s (%s)", i.Name, i.Reference, i.Digest)
	}
	p("  verdict  %s", symptom(m.Symptom))
	p("")
	section(&b, "good", goodRun, e.Good)
	section(&b, "bad", badRun, e.Bad)
	p("THE MACHINE")
	p("  QEMU %s, %s, %d CPU, %d MiB, %s", m.Machine.QEMU, m.Machine.Accel, m.Machine.CPUs, m.Machine.Memory, m.Platform)
	if bad.Package == nil {
		p("  kernels built with %s; configs and logs in kernels/", bad.Compiler)
		if t := bad.Toolchain; t != nil && t.Image != "" {
			p("  the compiler is that of the image %s, %s", t.Image, t.Digest)
		}
	}
	onTop(&b, m)
	if len(m.Machine.Modules) > 0 {
		p("  modules loaded before the test: %s, and what they rest on", strings.Join(m.Machine.Modules, ", "))
	}
	if m.Machine.Cmdline != "" {
		p("  kernel command line: %s", m.Machine.Cmdline)
	}
	p("")
	p("TO SEE IT BREAK AGAIN")
	p("  lab reproduce bundle.tar                       (with lab)")
	p("  tar xf bundle.tar && sh reproduce.sh           (with QEMU alone)")
	p("")
	if e.Log != "" {
		p("THE BISECTION: %d tests, %d commits", e.Tests, e.Range)
		if e.Inferred > 0 {
			p("  %d of the verdicts were inferred: the commit changes nothing that is", e.Inferred)
			p("  compiled, and so has the kernel of one that was tested. The first bad")
			p("  commit and its parents were built and booted.")
		}
		if e.Sure != "" {
			p("  %s", e.Sure)
		}
		for _, line := range e.Proof {
			p("  %s", line)
		}
		for _, line := range e.Known {
			p("  skipped: %s", line)
		}
		if e.ByHand > 0 {
			p("  %d of the verdicts were given by hand: see bisect/tested.jsonl.", e.ByHand)
		}
		indent(&b, []byte(e.Log), 200)
		p("")
	}
	if c := m.Culprit; c != nil && c.Package == nil && len(c.Options) == 0 {
		p("PROPOSED TRAILERS")
		p("  Fixes: %s (%q)", abbreviate(m.Culprit.Commit), m.Culprit.Title)
		p("  Reported-by: your name <your address>")
		p("")
	}
	if len(e.Patch) > 0 {
		p("THE COMMIT")
		indent(&b, e.Patch, 400)
	}
	return cut(b.Bytes())
}

// onTop tells what the kernels had on top of their commits.
func onTop(b *bytes.Buffer, m bundle.Manifest) {
	if len(m.Patches) == 0 {
		return
	}
	fmt.Fprintln(b, "  with these on top of the commits (inputs/patches/; kernels/…/on-top.patch is what they changed):")
	for _, p := range m.Patches {
		what := "patch " + p.Name
		if p.Commit != "" {
			what = fmt.Sprintf("pick %s (%q)", abbreviate(p.Commit), p.Name)
		}
		var on []string
		for _, k := range m.Kernels {
			if slices.Contains(k.Applied, p.Member) {
				on = append(on, k.Role)
			}
		}
		where := "on neither kernel: there, or not needed"
		if len(on) > 0 {
			where = "on the " + strings.Join(on, " and the ") + " kernel"
		}
		fmt.Fprintf(b, "    %s: %s\n", what, where)
	}
}

// options tells of two configurations of one commit.
func options(b *bytes.Buffer, m bundle.Manifest, e Evidence) {
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	fmt.Fprintf(b, "With these options in its configuration a container test fails on %s:\n\n", abbreviate(m.Culprit.Commit))
	for _, line := range m.Culprit.Options {
		fmt.Fprintf(b, "  %s\n", line)
	}
	fmt.Fprintf(b, "\nWith them it is %s: %s.\nWithout them it is %s: %s.\n", badRun.Verdict, badRun.Reason, goodRun.Verdict, goodRun.Reason)
	fmt.Fprintf(b, "\nboth of:   %s\nfound in %d tests of %d options that differed\n", m.Culprit.Commit, e.Tests, e.Range)
}

// packages tells of ready-made kernels, which a commit is yet to be found
// between.
func packages(b *bytes.Buffer, m bundle.Manifest, e Evidence) {
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	fmt.Fprintf(b, "With the kernel %s a container test fails:\n", bad.Title)
	fmt.Fprintf(b, "%s. With %s it is %s: %s.\n\n", badRun.Reason, good.Title, goodRun.Verdict, goodRun.Reason)
	for _, k := range []struct {
		label string
		bundle.Kernel
	}{{"last good", good}, {"first bad", bad}} {
		fmt.Fprintf(b, "%s:  %s (Linux %s)\n", k.label, k.Title, k.Release)
		if k.Package != nil {
			fmt.Fprintf(b, "            package %s\n", k.Package.Digest)
		}
	}
	fmt.Fprintf(b, "\nfound in %d tests of %d kernels\n", e.Tests, e.Range+1)
	if len(e.Next) > 0 {
		fmt.Fprintf(b, "\nWHAT TO DO NEXT\n")
		for _, line := range e.Next {
			fmt.Fprintf(b, "  - %s\n", line)
		}
	}
}

// cut ends a report that is too long behind a whole line.
func cut(text []byte) []byte {
	const note = "[the rest is in the bundle]\n"
	if len(text) <= MaxText {
		return text
	}
	text = text[:MaxText-len(note)]
	return append(text[:bytes.LastIndexByte(text, '\n')+1], note...)
}

func section(b *bytes.Buffer, role string, r bundle.Run, o Output) {
	fmt.Fprintf(b, "THE %s KERNEL: %s, %s\n", strings.ToUpper(role), r.Verdict, r.Reason)
	for _, text := range []struct {
		name string
		data []byte
	}{{"stdout", o.Stdout}, {"stderr", o.Stderr}, {"syslog", o.Syslog}} {
		if len(text.data) > 0 {
			fmt.Fprintf(b, "  %s:\n", text.name)
			indent(b, text.data, 40)
		}
	}
	fmt.Fprintln(b)
}

// indent writes at most so many lines of a text that may be anything; what
// could steer a terminal is left out.
func indent(b *bytes.Buffer, data []byte, most int) {
	lines := strings.Split(strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\n"), "\n")
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(b, "    [%d more lines in the bundle]\n", len(lines)-most)
			return
		}
		line = strings.Map(func(r rune) rune {
			if r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0) {
				return -1
			}
			return r
		}, line)
		if r := []rune(line); len(r) > 220 {
			line = string(r[:220]) + "…"
		}
		fmt.Fprintf(b, "    %s\n", line)
	}
}

func command(m bundle.Manifest) string {
	if len(m.Test.Command) == 0 {
		return "the image's own"
	}
	quoted := make([]string, len(m.Test.Command))
	for i, a := range m.Test.Command {
		quoted[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\$;&|<>()*?") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func symptom(s bundle.Symptom) string {
	switch {
	case s.Kind == "build":
		return "bad when the kernel does not build"
	case s.Kind == "boot":
		return "bad when the kernel does not boot"
	case s.BadMatch != "":
		return "bad when something matches " + s.BadMatch
	case s.Kind == "crash":
		return "bad when the kernel crashes"
	case s.GoodMatch != "":
		return "good when something matches " + s.GoodMatch
	}
	return "good when the command exits with status 0"
}

// abbreviate shortens a hash as Fixes: lines do, to 12 digits.
func abbreviate(hash string) string { return hash[:min(12, len(hash))] }
