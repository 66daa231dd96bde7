// Package report turns what a bundle knows into what people and their programs
// read: plain text, a mail, Markdown, a page of HTML, JSON, JUnit's XML and KTAP.
//
// Whatever it is given may come from a bundle of a stranger. [Document.Plain] makes
// plain text of bounded length of it, and each form escapes that in its own way.
package report

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"lab/kernel/console"
	"lab/lab/bundle"
)

// A Document is what there is to tell of a bisection. As JSON it is a report by
// itself.
type Document struct {
	Format   int             `json:"format"`   // DocumentFormat
	Summary  string          `json:"summary"`  // what broke, in a sentence or two
	Manifest bundle.Manifest `json:"manifest"` // the bundle's, without its members
	Good     Run             `json:"good"`     // the run of the good kernel that a reproduction repeats,
	Bad      Run             `json:"bad"`      // and that of the bad one
	Steps    []Step          `json:"steps"`    // every verdict of the search, in the order in which it was found
	Range    int             `json:"range"`    // commits that could be the first bad one at the start
	// Sure says how sure the answer is, in a line; it may be empty. Confidence is that
	// as a probability, and PValue how likely chance alone would have made the counts of
	// Runs differ so much; 0 is not known.
	Sure       string   `json:"sure,omitempty"`
	Confidence float64  `json:"confidence,omitempty"`
	PValue     float64  `json:"p_value,omitempty"`
	Runs       []Count  `json:"runs,omitempty"`  // of the first bad one and what is before it
	Proof      []string `json:"proof,omitempty"` // what the culprit does when it is reverted on the bad end, and applied on the good one
	Known      []string `json:"known,omitempty"` // why commits that were skipped do not build, where that is known
	Next       []string `json:"next,omitempty"`  // of ready-made kernels: where to look on
	Graph      []Node   `json:"graph,omitempty"` // the commits with their verdicts, the newest first
	Log        string   `json:"log,omitempty"`   // for git bisect replay
	Patch      string   `json:"patch,omitempty"` // of the culprit, as a mail
	Hunks      string   `json:"hunks,omitempty"` // what of it is enough, as a diff on top of its parent
	Pair       []string `json:"pair,omitempty"`  // of a culprit that is a merge of good commits: what of them does not go together
	// Words are the bisect's own for good and bad, where they are not these.
	Words map[string]string `json:"words,omitempty"`
	// Mail is for the form Email alone.
	Mail Mail `json:"-"`
}

// Runtime is what ran the containers, where lab did not.
func (d Document) Runtime() string {
	return cmp.Or(d.Bad.Engine, d.Manifest.Test.Runtime)
}

// DocumentFormat is the version of the JSON.
const DocumentFormat = 1

// A Run is what one boot of the test wrote, and how to do it again by hand.
type Run struct {
	Stdout    string           `json:"stdout,omitempty"`
	Stderr    string           `json:"stderr,omitempty"`
	Syslog    string           `json:"syslog,omitempty"`
	Audit     string           `json:"audit,omitempty"`
	Truncated bool             `json:"truncated,omitempty"` // the test wrote more than was kept
	Console   string           `json:"console,omitempty"`
	Reports   []console.Report `json:"reports,omitempty"` // oopses, warnings and the like on the console
	Engine    string           `json:"engine,omitempty"`  // what made the container, and with what, where lab did not
	Boot      time.Duration    `json:"boot_ns"`
	Test      time.Duration    `json:"test_ns"`
	Command   string           `json:"command,omitempty"` // boots it where the bundle is unpacked
}

// A Step is a verdict on a commit, or on what stands for one.
type Step struct {
	Commit   string        `json:"commit"`
	Title    string        `json:"title"`
	Role     string        `json:"role"`    // end, step, confirm, again, audit, hand
	Verdict  string        `json:"verdict"` // good, bad, skip
	Reason   string        `json:"reason"`
	Inferred string        `json:"inferred,omitempty"` // the commit whose verdict was taken over,
	Unbuilt  bool          `json:"unbuilt,omitempty"`  // without even a build
	ByHand   bool          `json:"by_hand,omitempty"`
	Left     int           `json:"left"` // commits that could be the first bad one when it was chosen
	Build    time.Duration `json:"build_ns"`
	Boot     time.Duration `json:"boot_ns"`
	Test     time.Duration `json:"test_ns"`
}

// A Count is how often a commit failed and passed.
type Count struct {
	Commit string `json:"commit"`
	Title  string `json:"title"`
	Bad    int    `json:"bad"`
	Good   int    `json:"good"`
}

// Sum is how many runs there were.
func (c Count) Sum() int { return c.Bad + c.Good }

// The longest a document has its parts. What is longer ends with a line that says
// how much is left out.
const (
	maxOutput  = 256 << 10 // bytes of stdout, stderr, syslog
	maxConsole = 1 << 20   // and of a console
	maxPatch   = 1 << 20
	maxLog     = 256 << 10
	maxList    = 10_000 // steps, nodes
	maxReports = 100
	maxFew     = 20  // of what there are few
	maxLine    = 300 // runes of what is one line
)

// Plain is the document with nothing in it that steers a terminal, turns the
// direction of writing or is not UTF-8, and with all that is long made shorter.
func (d Document) Plain() Document {
	d.Format = DocumentFormat
	d.Manifest = d.Manifest.Plain()
	d.Manifest.Members = nil
	for i := range d.Manifest.Kernels {
		d.Manifest.Kernels[i].Title = clip(d.Manifest.Kernels[i].Title, maxLine)
	}
	for i := range d.Manifest.Runs {
		d.Manifest.Runs[i].Reason = clip(d.Manifest.Runs[i].Reason, maxLine)
	}
	if c := d.Manifest.Culprit; c != nil { // Plain has made it a copy
		c.Title, c.Author = clip(c.Title, maxLine), clip(c.Author, maxLine)
	}
	plainRun := func(r Run) Run {
		r.Stdout, r.Stderr, r.Syslog = plainText(r.Stdout, maxOutput), plainText(r.Stderr, maxOutput), plainText(r.Syslog, maxOutput)
		r.Engine = oneLine(r.Engine)
		r.Audit = plainText(r.Audit, maxOutput)
		r.Console = plainText(r.Console, maxConsole)
		r.Command = plainText(r.Command, maxLog)
		r.Reports = each(r.Reports, maxReports, func(c console.Report) console.Report {
			return console.Report{Kind: oneLine(c.Kind), Title: oneLine(c.Title), Text: plainText(c.Text, maxOutput), Fatal: c.Fatal}
		})
		return r
	}
	d.Good, d.Bad = plainRun(d.Good), plainRun(d.Bad)
	d.Steps = each(d.Steps, maxList, func(s Step) Step {
		s.Commit, s.Title, s.Role, s.Verdict = oneLine(s.Commit), oneLine(s.Title), oneLine(s.Role), oneLine(s.Verdict)
		s.Reason, s.Inferred = oneLine(s.Reason), oneLine(s.Inferred)
		return s
	})
	d.Runs = each(d.Runs, maxFew, func(c Count) Count {
		c.Commit, c.Title = oneLine(c.Commit), oneLine(c.Title)
		return c
	})
	d.Proof = each(d.Proof, maxFew, oneLine)
	d.Known, d.Next = each(d.Known, maxFew, oneLine), each(d.Next, maxFew, oneLine)
	d.Graph = plainGraph(d.Graph)
	d.Hunks = plainText(d.Hunks, maxPatch)
	d.Pair = each(d.Pair, 100, func(line string) string { return clip(plainText(line, 8*maxLine), maxLine) })
	d.Sure, d.Log, d.Patch = oneLine(d.Sure), plainText(d.Log, maxLog), plainText(d.Patch, maxPatch)
	words := map[string]string{}
	for _, mark := range []string{"good", "bad"} {
		if w := clip(oneLine(d.Words[mark]), 32); w != "" && w != mark {
			words[mark] = w
		}
	}
	if d.Words = words; len(words) == 0 {
		d.Words = nil
	}
	d.Summary = d.summary()
	return d
}

// options are, where configurations were bisected, the lines of one that make it
// bad.
func (d Document) options() []string {
	if c := d.Manifest.Culprit; c != nil {
		return each(c.Options, 100, oneLine)
	}
	return nil
}

// since says from when on it is broken: the words before ", a container test fails".
func (d Document) since() string {
	bad, _ := d.Manifest.Kernel(bundle.RoleBad)
	title := clip(bad.Title, 120)
	switch list := d.options(); {
	case len(list) == 1:
		return "With " + clip(list[0], 120) + " in the configuration"
	case len(list) > 1:
		return fmt.Sprintf("With %s and %s in the configuration", clip(list[0], 120), plural(len(list)-1, "more option"))
	case bad.Package != nil || bad.Commit == "":
		return "With the kernel " + title
	}
	return "Since “" + title + "”"
}

// summary says what broke.
func (d Document) summary() string {
	m := d.Manifest
	good, _ := m.Kernel(bundle.RoleGood)
	bad, _ := m.Kernel(bundle.RoleBad)
	goodRun, _ := m.Run(bundle.RoleGood)
	badRun, _ := m.Run(bundle.RoleBad)
	subject, before := fmt.Sprintf("Since commit %s (%q)", abbreviate(bad.Commit), bad.Title), "With its parent "+abbreviate(good.Commit)
	switch {
	case len(d.options()) > 0:
		subject, before = fmt.Sprintf("%s of commit %s (%q)", d.since(), abbreviate(bad.Commit), bad.Title), "Without"
	case bad.Package != nil || bad.Commit == "":
		subject, before = "With the kernel "+bad.Title, "With "+good.Title
	}
	return fmt.Sprintf("%s %s: %s. %s it is %s: %s.", subject, symptomWords(m.Symptom), badRun.Reason, before, d.word(goodRun.Verdict), goodRun.Reason)
}

// title is what a mail or an issue about it would be called.
func (d Document) title() string {
	bad, _ := d.Manifest.Kernel(bundle.RoleBad)
	title := bad.Title
	if c := d.Manifest.Culprit; c != nil && c.Title != "" {
		title = c.Title
	}
	return title + ": " + symptomWords(d.Manifest.Symptom)
}

func symptomWords(s bundle.Symptom) string {
	switch s.Kind {
	case "boot":
		return "the kernel does not boot"
	case "build":
		return "the kernel does not build"
	case "crash":
		return "the kernel crashes in a container test"
	}
	return "a container test fails"
}

// word is what the bisect calls a verdict.
func (d Document) word(verdict string) string {
	if w := d.Words[verdict]; w != "" {
		return w
	}
	return clip(verdict, 32)
}

// counts says how many of the verdicts were inferred without a build, and given by
// hand.
func (d Document) counts() (inferred, byHand int) {
	for _, s := range d.Steps {
		if s.Unbuilt {
			inferred++
		}
		if s.ByHand {
			byHand++
		}
	}
	return inferred, byHand
}

// how says in a few words how a verdict came about.
func (s Step) how() string {
	same := abbreviate(strings.TrimPrefix(s.Inferred, "sha256:"))
	switch {
	case s.Unbuilt:
		return "same binary as " + same + ": neither built nor booted"
	case s.Inferred != "":
		return "same bytes as " + same + ": not booted again"
	case s.ByHand && s.Boot == 0:
		return "said by hand"
	case s.ByHand:
		return "booted in " + seconds(s.Boot) + ", judged by hand"
	}
	var parts []string
	for _, p := range []struct {
		what string
		time.Duration
	}{{"built", s.Build}, {"booted", s.Boot}, {"tested", s.Test}} {
		if p.Duration >= 100*time.Millisecond {
			parts = append(parts, p.what+" in "+seconds(p.Duration))
		}
	}
	return strings.Join(parts, ", ")
}

// why says what a step was for.
func (s Step) why() string {
	switch s.Role {
	case "end":
		return "an end, verified first"
	case "step":
		return "chosen by the search"
	case "confirm":
		return "the answer, tested again"
	case "again":
		return "run once more"
	case "audit":
		return "inferred before, now built and booted"
	case "hand":
		return "a verdict by hand"
	}
	return clip(s.Role, 32)
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// abbreviate shortens a hash as Fixes: lines do, to 12 digits.
func abbreviate(hash string) string { return strings.ToValidUTF8(hash[:min(12, len(hash))], "") }

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
