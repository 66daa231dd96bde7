package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"lab/lab/bundle"
)

// name is how a step's commit is spoken of.
func (s Step) name() string {
	if strings.HasPrefix(s.Commit, "sha256:") {
		return s.Title
	}
	return abbreviate(s.Commit) + " " + s.Title
}

// JUnit's XML, in the form that CI systems have in common.
type (
	junitMessage struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
		Err     string        `xml:"system-err,omitempty"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		all        time.Duration
	}
)

// property adds one that is not empty.
func (s *junitSuite) property(name, value string) {
	if value != "" {
		s.Properties = append(s.Properties, junitProperty{name, value})
	}
}

// add adds a test case: a bad verdict is a failure, and what is neither bad nor good
// is skipped.
func (s *junitSuite) add(c junitCase, verdict, word, reason string, took time.Duration) {
	switch verdict {
	case "bad":
		s.Failures++
		c.Failure = &junitMessage{Message: reason, Type: word}
	case "good":
	default:
		s.Skipped++
		c.Skipped = &junitMessage{Message: reason}
	}
	c.Time = seconds3(took)
	s.Tests++
	s.all += took
	s.Cases = append(s.Cases, c)
}

func seconds3(t time.Duration) string { return fmt.Sprintf("%.3f", t.Seconds()) }

// encode writes the suite as a file of its own.
func (s *junitSuite) encode(name string) ([]byte, error) {
	s.Time = seconds3(s.all)
	data, err := xml.MarshalIndent(struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Skipped  int        `xml:"skipped,attr"`
		Time     string     `xml:"time,attr"`
		Suite    junitSuite `xml:"testsuite"`
	}{xml.Name{}, name, s.Tests, s.Failures, 0, s.Skipped, s.Time, *s}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode JUnit's XML: %w", err)
	}
	return append(append([]byte(xml.Header), data...), '\n'), nil
}

// junit is a suite with a test case for each test of the search, whose class is what
// it was for; no two are called the same.
func junit(d Document) ([]byte, error) {
	s := junitSuite{Name: d.title()}
	good, _ := d.Manifest.Kernel(bundle.RoleGood)
	bad, _ := d.Manifest.Kernel(bundle.RoleBad)
	s.property("summary", d.Summary)
	s.property("last good", strings.TrimSpace(good.Commit+" "+good.Title))
	s.property("first bad", strings.TrimSpace(bad.Commit+" "+bad.Title))
	s.property("test", command(d.Manifest))
	s.property("qemu", d.Manifest.Machine.QEMU)
	s.property("sure", d.Sure)
	for i, step := range d.Steps {
		c := junitCase{Class: "bisect." + step.Role, Name: fmt.Sprintf("%03d %s", i+1, step.name()), Out: step.how()}
		s.add(c, step.Verdict, d.word("bad"), step.Reason, max(0, step.Build)+max(0, step.Boot)+max(0, step.Test))
	}
	return s.encode("lab bisect")
}

// junit is a suite with a test case for each cell, whose class is matrix.
func (m Matrix) junit() ([]byte, error) {
	s := junitSuite{Name: m.shape()}
	s.property("summary", strings.Join(m.Says, "; "))
	s.property("test", shellLine(m.Test))
	for _, a := range m.Axes {
		if len(a.Values) == 1 {
			s.property(a.Name, a.Values[0].Title)
		}
	}
	most := min(pageOutput, MaxHTML/2/max(1, len(m.Cells))) // of a stream
	for _, c := range m.Cells {
		s.add(junitCase{Class: "matrix", Name: m.title(c), Out: plainText(c.Run.Stdout, most), Err: plainText(c.Run.Stderr, most)}, c.Verdict, c.word(), c.what(), max(0, c.Boot)+max(0, c.Test))
	}
	return s.encode("lab matrix")
}

// ktap is KTAP version 1, as the kernel's Documentation/dev-tools/ktap.rst has it: a
// result for each test of the search, with its evidence in the diagnostic lines
// before it.
func ktap(d Document) []byte {
	var b bytes.Buffer
	// A # begins a directive.
	plain := func(s string) string { return strings.ReplaceAll(s, "#", "") }
	fmt.Fprintf(&b, "KTAP version 1\n1..%d\n", len(d.Steps))
	for i, s := range d.Steps {
		fmt.Fprintf(&b, "# %s: %s: %s\n", plain(s.Role), plain(d.word(s.Verdict)), plain(s.Reason))
		if how := s.how(); how != "" {
			fmt.Fprintf(&b, "# %s\n", plain(how))
		}
		name := plain(s.name())
		switch s.Verdict {
		case "good":
			fmt.Fprintf(&b, "ok %d %s\n", i+1, name)
		case "bad":
			fmt.Fprintf(&b, "not ok %d %s\n", i+1, name)
		default:
			fmt.Fprintf(&b, "ok %d %s # SKIP %s\n", i+1, name, plain(s.Reason))
		}
	}
	return b.Bytes()
}
