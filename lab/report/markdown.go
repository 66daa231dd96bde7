package report

import (
	"fmt"
	"html"
	"strings"
	"time"

	"lab/lab/bundle"
)

// maxIssue is how long an issue may be: GitHub takes 65,536 characters.
const maxIssue = 65_000

// markdown is for a bug tracker: GitHub's Markdown. Whatever others wrote stands in
// code, where nothing is a link, a mention or a reference.
func markdown(d Document) []byte {
	var b strings.Builder
	m := d.Manifest
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	p("# Regression: %s\n", code(d.title()))
	if list := d.options(); len(list) > 0 {
		p("With these options in the configuration of commit %s (%s) %s: %s.\nWithout them it is %s: %s.\n", code(abbreviate(bad.Commit)), code(bad.Title), symptomWords(m.Symptom), code(badRun.Reason), code(d.word(goodRun.Verdict)), code(goodRun.Reason))
		fence(&b, "", strings.Join(list, "\n"), 100)
	} else if bad.Package != nil || bad.Commit == "" {
		p("With the kernel %s %s: %s.\nWith %s it is %s: %s.\n", code(bad.Title), symptomWords(m.Symptom), code(badRun.Reason), code(good.Title), code(d.word(goodRun.Verdict)), code(goodRun.Reason))
	} else {
		p("Since commit %s (%s) %s: %s.\nWith its parent %s it is %s: %s.\n", code(abbreviate(bad.Commit)), code(bad.Title), symptomWords(m.Symptom), code(badRun.Reason), code(abbreviate(good.Commit)), code(d.word(goodRun.Verdict)), code(goodRun.Reason))
	}
	p("| | |\n|---|---|")
	for _, k := range []struct {
		what string
		bundle.Kernel
	}{{"last good", good}, {"first bad", bad}} {
		switch {
		case k.Package != nil:
			p("| %s | %s, Linux %s, package %s |", k.what, cell(k.Title), cell(k.Release), cell(k.Package.Digest))
		default:
			p("| %s | %s %s |", k.what, cell(k.Commit), cell(k.Title))
		}
	}
	if c := m.Culprit; c != nil && c.Author != "" {
		p("| author | %s, %s |", cell(c.Author), c.Date.UTC().Format(time.DateOnly))
	}
	p("| test | %s |", cell(command(m)))
	if r := d.Runtime(); r != "" {
		p("| runtime | %s |", cell(r))
	}
	for _, i := range m.Images {
		p("| %s | %s %s |", imageRole(i), cell(i.Reference), cell(i.Digest))
	}
	p("| verdict | %s |", cell(symptom(m.Symptom)))
	p("| machine | QEMU %s, %s, %d CPU, %d MiB, %s |", cell(m.Machine.QEMU), m.Machine.Accel, m.Machine.CPUs, m.Machine.Memory, cell(m.Platform))
	if m.Machine.Cmdline != "" {
		p("| command line | %s |", cell(m.Machine.Cmdline))
	}
	if bad.Compiler != "" {
		p("| compiler | %s |", cell(bad.Compiler))
	}
	for _, line := range onTopLines(m) {
		p("| on top | %s |", cell(line))
	}
	if d.Sure != "" {
		p("| sure | %s |", cell(d.Sure))
	}
	for _, line := range d.Proof {
		p("| proof | %s |", cell(line))
	}
	if len(d.Pair) > 0 {
		p("\nIt is a merge, and each of its parents is good:\n")
		fence(&b, "", strings.Join(d.Pair, "\n"), 100)
	}
	if d.Hunks != "" {
		p("\nWhat of it is enough to break it:\n")
		fence(&b, "diff", d.Hunks, 100)
	}
	p("\n## What it does\n")
	for _, k := range []struct {
		run bundle.Run
		Run
	}{{goodRun, d.Good}, {badRun, d.Bad}} {
		p("**%s kernel**: %s\n", k.run.Role, code(d.word(k.run.Verdict)+", "+k.run.Reason))
		for _, s := range k.streams() {
			if s.text != "" {
				p("%s:\n", s.name)
				fence(&b, "", s.text, 40)
			}
		}
		for _, c := range k.Reports[:min(3, len(k.Reports))] {
			details(&b, "on the console:", c.Title, "", c.Text, 80)
		}
	}
	p("## See it break again\n")
	fence(&b, "sh", "lab reproduce bundle.tar                   # with lab\ntar xf bundle.tar && sh reproduce.sh       # with QEMU alone\nlab reproduce --kernel bzImage bundle.tar  # is it fixed in this kernel?", 10)
	if d.Bad.Command != "" {
		details(&b, "the bad kernel by hand, where the bundle is unpacked", "", "sh", d.Bad.Command, 80)
	}
	if len(d.Next) > 0 {
		p("## What to do next\n")
		for _, line := range d.Next {
			p("- %s", code(line))
		}
		p("")
	}
	p("## How it was found\n")
	p("%s, %s in the range.\n", plural(len(d.Steps), "test"), plural(d.Range, "commit"))
	if len(d.Steps) > 0 {
		p("| | verdict | commit | evidence |\n|---:|---|---|---|")
		for i, s := range d.Steps {
			if i == 100 {
				p("| | | | %d more in the bundle |", len(d.Steps)-i)
				break
			}
			p("| %d | %s | %s %s | %s |", i+1, mdWord(d.word(s.Verdict)), cell(abbreviate(s.Commit)), cell(clip(s.Title, 80)), cell(clip(s.Reason, 120)))
		}
		p("")
	}
	for _, line := range d.Known {
		p("Skipped: %s\n", code(line))
	}
	if d.Log != "" {
		details(&b, "git bisect log", "", "", d.Log, 200)
	}
	if d.Patch != "" {
		details(&b, "the commit", "", "diff", d.Patch, 400)
	}
	text := b.String()
	if len(text) > maxIssue { // the last part is the longest
		text = string(cut([]byte(text), maxIssue-100))
		text += "\n" + strings.Repeat("`", longestRun(text)+1) + "\n"
	}
	return []byte(text)
}

// mdWord is a verdict, which may be a word of the user's.
func mdWord(word string) string {
	if word == "bad" {
		return "**bad**"
	}
	return code(word)
}

// code makes a code span of a line: between more backticks than there are in it.
func code(line string) string {
	if line == "" {
		return ""
	}
	ticks := strings.Repeat("`", longestRun(line)+1)
	if strings.HasPrefix(line, "`") || strings.HasSuffix(line, "`") {
		line = " " + line + " "
	}
	return ticks + line + ticks
}

// cell is code in a table, where even there a bar ends the cell.
func cell(line string) string { return code(strings.ReplaceAll(line, "|", `\|`)) }

// fence makes a block of code.
func fence(b *strings.Builder, language, text string, most int) {
	list := lines(text)
	left := len(list) - min(len(list), most)
	list = each(list, most, func(line string) string { return clip(line, 220) })
	text = strings.Join(list, "\n")
	marks := strings.Repeat("`", max(3, longestRun(text)+1))
	fmt.Fprintf(b, "%s%s\n%s\n", marks, language, text)
	if left > 0 {
		fmt.Fprintf(b, "[%d more lines in the bundle]\n", left)
	}
	fmt.Fprintf(b, "%s\n\n", marks)
}

// details is a block of code that is shown on demand, below words of ours and one
// line of others'.
func details(b *strings.Builder, title, theirs, language, text string, most int) {
	if theirs != "" {
		title += " <code>" + html.EscapeString(theirs) + "</code>"
	}
	fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", title)
	fence(b, language, text, most)
	b.WriteString("</details>\n\n")
}

// longestRun is the length of the longest run of backticks.
func longestRun(s string) int {
	longest, n := 0, 0
	for i := range len(s) {
		if n++; s[i] != '`' {
			n = 0
		}
		longest = max(longest, n)
	}
	return longest
}
