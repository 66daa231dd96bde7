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

// junit is JUnit's XML, in the form that CI systems have in common: a suite with a
// test case for each test of the search, whose class is what it was for; no two are
// called the same. A bad
// verdict is a failure, a skip is skipped.
func junit(d Document) ([]byte, error) {
	type message struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
	type testcase struct {
		Class   string   `xml:"classname,attr"`
		Name    string   `xml:"name,attr"`
		Time    string   `xml:"time,attr"`
		Failure *message `xml:"failure"`
		Skipped *message `xml:"skipped"`
		Out     string   `xml:"system-out,omitempty"`
	}
	type property struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	type suite struct {
		Name       string     `xml:"name,attr"`
		Tests      int        `xml:"tests,attr"`
		Failures   int        `xml:"failures,attr"`
		Errors     int        `xml:"errors,attr"`
		Skipped    int        `xml:"skipped,attr"`
		Time       string     `xml:"time,attr"`
		Properties []property `xml:"properties>property"`
		Cases      []testcase `xml:"testcase"`
	}
	stamp := func(t time.Duration) string { return fmt.Sprintf("%.3f", t.Seconds()) }
	s := suite{Name: d.title(), Tests: len(d.Steps)}
	good, _ := d.Manifest.Kernel(bundle.RoleGood)
	bad, _ := d.Manifest.Kernel(bundle.RoleBad)
	for _, p := range []property{
		{"summary", d.Summary}, {"last good", strings.TrimSpace(good.Commit + " " + good.Title)}, {"first bad", strings.TrimSpace(bad.Commit + " " + bad.Title)},
		{"test", command(d.Manifest)}, {"qemu", d.Manifest.Machine.QEMU}, {"sure", d.Sure},
	} {
		if p.Value != "" {
			s.Properties = append(s.Properties, p)
		}
	}
	var all time.Duration
	for i, step := range d.Steps {
		took := max(0, step.Build) + max(0, step.Boot) + max(0, step.Test)
		all += took
		c := testcase{Class: "bisect." + step.Role, Name: fmt.Sprintf("%03d %s", i+1, step.name()), Time: stamp(took), Out: step.how()}
		switch step.Verdict {
		case "bad":
			s.Failures++
			c.Failure = &message{Message: step.Reason, Type: d.word("bad")}
		case "good":
		default:
			s.Skipped++
			c.Skipped = &message{Message: step.Reason}
		}
		s.Cases = append(s.Cases, c)
	}
	s.Time = stamp(all)
	data, err := xml.MarshalIndent(struct {
		XMLName  xml.Name `xml:"testsuites"`
		Name     string   `xml:"name,attr"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Errors   int      `xml:"errors,attr"`
		Skipped  int      `xml:"skipped,attr"`
		Time     string   `xml:"time,attr"`
		Suite    suite    `xml:"testsuite"`
	}{xml.Name{}, "lab bisect", s.Tests, s.Failures, 0, s.Skipped, s.Time, s}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode JUnit's XML: %w", err)
	}
	return append(append([]byte(xml.Header), data...), '\n'), nil
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
