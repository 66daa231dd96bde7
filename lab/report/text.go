package report

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"lab/lab/bundle"
)

// MaxText is how long a report may be, in bytes: kernel mailing lists take mails
// of 100 kB.
const MaxText = 100_000

const wide = 75 // columns of prose

// text is REPORT.txt: plain text of MaxText bytes at most, ready to be pasted into
// a mail.
func text(d Document) []byte {
	return cut([]byte("Subject: "+subject(d)+"\n\n"+body(d)), MaxText)
}

func subject(d Document) string { return "[REGRESSION] " + d.title() }

// body is what a mail says, in the order in which the kernel's
// Documentation/admin-guide/reporting-regressions.rst asks for it. Whatever others
// wrote is indented: nothing in it can be a line that a program looks for.
func body(d Document) string {
	var b bytes.Buffer
	m := d.Manifest
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	p("%s", wrap(d.Summary, "", ""))
	p("")
	switch {
	case bad.Package != nil:
		packages(&b, d)
	case len(d.options()) > 0:
		for _, line := range d.options() {
			p("  %s", line)
		}
		p("\nboth of:   %s  %s\nfound in %s of %s that differed", m.Culprit.Commit, bad.Title, plural(len(d.Steps), "test"), plural(d.Range, "option"))
	default:
		p("last good:  %s  %s", good.Commit, good.Title)
		p("first bad:  %s  %s", bad.Commit, bad.Title)
		if c := m.Culprit; c != nil {
			p("author:     %s, %s", c.Author, c.Date.UTC().Format(time.DateOnly))
			p("")
			p("#regzbot introduced: %s", c.Commit)
		}
	}
	if len(d.Pair) > 0 {
		p("")
		p("THE MERGE")
		p("  The first bad commit is a merge, and each of its parents is good:")
		for _, line := range d.Pair {
			p("    %s", line)
		}
	}
	if d.Mail.Link != "" {
		p("\nThe bundle, with both kernels, their configs, the disk and all logs:\n%s", d.Mail.Link)
	}
	p("")
	p("THE TEST")
	p("  command  %s", command(m))
	if r := d.Runtime(); r != "" {
		p("  runtime  %s", r)
	}
	for _, i := range m.Images {
		name := i.Name + " = "
		if i.Name == "" {
			name = ""
		}
		p("  %-8s %s%s (%s)", imageRole(i), name, i.Reference, i.Digest)
	}
	p("  verdict  %s", symptom(m.Symptom))
	p("")
	section(&b, d.word(goodRun.Verdict), goodRun, d.Good)
	section(&b, d.word(badRun.Verdict), badRun, d.Bad)
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
	again(&b, d)
	bisection(&b, d)
	if c := m.Culprit; c != nil && c.Package == nil && len(c.Options) == 0 {
		p("PROPOSED TRAILERS")
		p("  Fixes: %s (%q)", abbreviate(m.Culprit.Commit), m.Culprit.Title)
		p("  Reported-by: %s", cmp.Or(d.Mail.From, "your name <your address>"))
		if d.Mail.Link != "" {
			p("  Link: %s", d.Mail.Link)
		}
		p("")
	}
	if d.Hunks != "" {
		p("WHAT OF THE COMMIT IS ENOUGH TO BREAK IT")
		indent(&b, d.Hunks, 200)
		p("")
	}
	if d.Patch != "" {
		p("THE COMMIT")
		indent(&b, d.Patch, 400)
	}
	return b.String()
}

// again says how to see it break.
func again(b *bytes.Buffer, d Document) {
	fmt.Fprintln(b, "TO SEE IT BREAK AGAIN")
	fmt.Fprintln(b, "  lab reproduce bundle.tar                       (with lab)")
	fmt.Fprintln(b, "  tar xf bundle.tar && sh reproduce.sh           (with QEMU alone)")
	fmt.Fprintln(b, "  lab reproduce --kernel bzImage bundle.tar      (is it fixed in this kernel?)")
	if d.Bad.Command != "" {
		fmt.Fprintln(b, "  The bad kernel by hand, where the bundle is unpacked:")
		indent(b, d.Bad.Command, 80)
	}
	fmt.Fprintln(b)
}

// bisection tells how it was found.
func bisection(b *bytes.Buffer, d Document) {
	if d.Log == "" {
		return
	}
	inferred, byHand := d.counts()
	fmt.Fprintf(b, "THE BISECTION: %s, %s\n", plural(len(d.Steps), "test"), plural(d.Range, "commit"))
	if inferred > 0 {
		fmt.Fprintln(b, wrap(fmt.Sprintf("%d of the verdicts were inferred: the commit changes nothing that is compiled, and so has the kernel of one that was tested. The first bad commit and its parents were built and booted.", inferred), "  ", "  "))
	}
	if d.Sure != "" {
		fmt.Fprintln(b, wrap(d.Sure, "  ", "    "))
	}
	for _, line := range d.Proof {
		fmt.Fprintln(b, wrap(line, "  ", "    "))
	}
	for _, line := range d.Known {
		fmt.Fprintln(b, wrap("skipped: "+line, "  ", "    "))
	}
	if byHand > 0 {
		fmt.Fprintf(b, "  %d of the verdicts were given by hand: see bisect/tested.jsonl.\n", byHand)
	}
	indent(b, d.Log, 200)
	fmt.Fprintln(b)
}

// onTop tells what the kernels had on top of their commits.
func onTop(b *bytes.Buffer, m bundle.Manifest) {
	if len(m.Patches) == 0 {
		return
	}
	fmt.Fprintln(b, "  with these on top of the commits (inputs/patches/; kernels/…/on-top.patch is what they changed):")
	for _, line := range onTopLines(m) {
		fmt.Fprintf(b, "    %s\n", line)
	}
}

func onTopLines(m bundle.Manifest) []string {
	var list []string
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
		list = append(list, what+": "+where)
	}
	return list
}

// packages tells of ready-made kernels, which a commit is yet to be found
// between.
func packages(b *bytes.Buffer, d Document) {
	good, _ := d.Manifest.Kernel(bundle.RoleGood)
	bad, _ := d.Manifest.Kernel(bundle.RoleBad)
	for _, k := range []struct {
		label string
		bundle.Kernel
	}{{"last good", good}, {"first bad", bad}} {
		fmt.Fprintf(b, "%s:  %s (Linux %s)\n", k.label, k.Title, k.Release)
		if k.Package != nil {
			fmt.Fprintf(b, "            package %s\n", k.Package.Digest)
		}
	}
	fmt.Fprintf(b, "\nfound in %s of %s\n", plural(len(d.Steps), "test"), plural(d.Range+1, "kernel"))
	if len(d.Next) > 0 {
		fmt.Fprintf(b, "\nWHAT TO DO NEXT\n")
		for _, line := range d.Next {
			fmt.Fprintln(b, wrap(line, "  - ", "    "))
		}
	}
}

// cut ends a report that is too long behind a whole line.
func cut(text []byte, most int) []byte {
	const note = "[the rest is in the bundle]\n"
	if len(text) <= most {
		return text
	}
	text = text[:most-len(note)]
	return append(text[:bytes.LastIndexByte(text, '\n')+1], note...)
}

// streams are what a run wrote, by name.
func (r Run) streams() []stream {
	return []stream{{"stdout", r.Stdout}, {"stderr", r.Stderr}, {"syslog", r.Syslog}, {"audit", r.Audit}}
}

type stream struct{ name, text string }

func section(b *bytes.Buffer, word string, r bundle.Run, run Run) {
	fmt.Fprintf(b, "THE %s KERNEL: %s, %s\n", strings.ToUpper(r.Role), word, r.Reason)
	for _, s := range run.streams() {
		if s.text != "" {
			fmt.Fprintf(b, "  %s:\n", s.name)
			indent(b, s.text, 40)
		}
	}
	for i, c := range run.Reports {
		if i == 3 {
			fmt.Fprintf(b, "  [%d more reports on the console]\n", len(run.Reports)-i)
			break
		}
		fmt.Fprintf(b, "  on the console: %s\n", c.Title)
		indent(b, c.Text, 40)
	}
	fmt.Fprintln(b)
}

// indent writes at most so many lines of a plain text.
func indent(b *bytes.Buffer, text string, most int) {
	list := lines(text)
	for i, line := range list {
		if i == most {
			fmt.Fprintf(b, "    [%d more lines in the bundle]\n", len(list)-most)
			return
		}
		fmt.Fprintf(b, "    %s\n", clip(line, 220))
	}
}

// wrap breaks prose into lines of at most wide columns where it can. No line begins
// with a word that could make it a command or a trailer: the prose may quote others.
func wrap(prose, first, rest string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(prose) {
		n := len([]rune(word))
		switch {
		case i == 0:
			b.WriteString(first)
			column = len(first)
		case column+1+n > wide && (rest != "" || beginsLine(word)):
			b.WriteString("\n" + rest)
			column = len(rest)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// beginsLine tells whether a word may be the first of a line: not one of #regzbot's
// commands, nor the name of a trailer, nor a mailbox's From.
func beginsLine(word string) bool {
	r, _ := utf8.DecodeRuneInString(word)
	return (unicode.IsLetter(r) || unicode.IsDigit(r)) && !strings.Contains(word, ":") && word != "From"
}

// imageRole is what an image is in the guest.
func imageRole(i bundle.Image) string {
	if i.Name == "" {
		return "base"
	}
	return "image"
}

// command is the test's, as a line for a shell.
func command(m bundle.Manifest) string { return shellLine(m.Test.Command) }

func shellLine(words []string) string {
	if len(words) == 0 {
		return "the image's own"
	}
	quoted := make([]string, len(words))
	for i, a := range words {
		a = oneLine(a)
		quoted[i] = a
		if a == "" || strings.ContainsAny(a, " \t\n\"'\\$;&|<>()*?") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return clip(strings.Join(quoted, " "), 2*maxLine)
}

func symptom(s bundle.Symptom) string {
	switch {
	case s.Kind == "build":
		return "bad when the kernel does not build"
	case s.Kind == "boot":
		return "bad when the kernel does not boot"
	case s.BadMatch != "":
		return "bad when something matches " + oneLine(s.BadMatch)
	case s.Kind == "crash":
		return "bad when the kernel crashes"
	case s.GoodMatch != "":
		return "good when something matches " + oneLine(s.GoodMatch)
	}
	return "good when the command exits with status 0"
}
