package console

import "strings"

const (
	// maxReports is how many reports are kept; a kernel that warns in a loop
	// repeats itself.
	maxReports = 100

	// A report ends at these sizes at the latest.
	maxReportLines = 300
	maxReportBytes = 64 << 10

	// A report also ends when the kernel was silent for so many seconds.
	maxGap = 5

	// So many lines may stand between "cut here" and the report: WARN's text.
	maxAbove = 8
)

// scanner finds reports in a console as it arrives. The zero value is ready.
//
// A report begins with a line that a pattern of match.go knows. It takes the
// kernel's lines that follow up to a line that ends such reports ("---[ end
// trace"), a line that has no place in one once the call trace was seen, a
// pause, or the beginning of another.
type scanner struct {
	raw     []byte // the line so far
	reports []Report
	died    bool     // a fatal report is whole
	stamps  bool     // this kernel stamps its lines
	last    string   // the line before, for "System halted"
	above   []string // the lines from a ruler on, which may belong to the next report

	open    bool
	current Report
	pattern *pattern
	text    strings.Builder
	lines   int
	traced  bool // its call trace has begun
	time    float64
}

// write takes the next bytes. Carriage returns end lines as well, and empty
// lines do not count.
func (s *scanner) write(p []byte) {
	for len(p) > 0 {
		i := 0
		for i < len(p) && p[i] != '\n' && p[i] != '\r' {
			i++
		}
		s.raw = append(s.raw, p[:min(i, maxLine-len(s.raw))]...)
		if i == len(p) {
			return
		}
		p = p[i+1:]
		s.endLine()
	}
}

// end takes the last line, and finishes an open report.
func (s *scanner) end() {
	s.endLine()
	s.finish()
}

func (s *scanner) endLine() {
	if len(s.raw) == 0 {
		return
	}
	l := parseLine(s.raw)
	s.raw = s.raw[:0]
	if strings.TrimSpace(l.text) == "" {
		return
	}
	s.line(l)
	s.last = l.message
}

func (s *scanner) line(l line) {
	if strings.HasPrefix(l.message, "Linux version ") {
		s.stamps = l.stamped
	}
	if s.stamps && !l.stamped {
		return // userspace's
	}
	if s.open && l.stamped && l.time > s.time+maxGap {
		s.finish()
	}
	if l.stamped {
		s.time = l.time
	}

	p, title := match(l.message, s.last)
	if p != nil && p.follows && s.open && !s.traced {
		p = nil // "Oops: 0002 [#1]" below the BUG that says why
	}
	if p != nil && p.kind == KindPanic && p.ends && s.known(KindPanic) {
		p = nil // the last line of a panic that is known
	}
	if p != nil {
		s.finish()
		s.begin(p, title)
	} else if s.open && s.traced && !body(l.message) {
		s.finish()
	}

	if p == nil && ruler(l.message) {
		if s.open && s.pattern.ruled && s.lines > 1 && strings.HasPrefix(l.message, row) {
			s.add(l)
			s.finish()
			return
		}
		s.finish()
		s.above = append(s.above[:0], l.text)
		return
	}
	if !s.open {
		if n := len(s.above); n == maxAbove {
			s.above = nil
		} else if n > 0 {
			s.above = append(s.above, l.text)
		}
		return
	}
	s.add(l)
	switch {
	case p != nil && p.ends, ended(l.message),
		s.lines >= maxReportLines, s.text.Len() >= maxReportBytes:
		s.finish()
	}
}

// known tells whether a report of this kind was seen.
func (s *scanner) known(kind string) bool {
	if s.open && s.current.Kind == kind {
		return true
	}
	for _, r := range s.reports {
		if r.Kind == kind {
			return true
		}
	}
	return false
}

func (s *scanner) begin(p *pattern, title string) {
	s.open, s.pattern, s.traced, s.lines = true, p, false, 0
	s.current = Report{Kind: p.kind, Title: title, Fatal: p.fatal}
	s.text.Reset()
	for _, text := range s.above {
		s.text.WriteString(text + "\n")
	}
	s.above = nil
}

func (s *scanner) add(l line) {
	s.text.WriteString(l.text + "\n")
	s.lines++
	if strings.HasPrefix(l.message, "Call Trace:") || strings.HasPrefix(l.message, "Call trace:") {
		s.traced = true
	}
}

// finish makes the open report one of the reports.
func (s *scanner) finish() {
	if !s.open {
		return
	}
	r := s.report()
	s.open = false
	if r.Fatal {
		s.died = true
	}
	if len(s.reports) < maxReports || r.Fatal && len(s.reports) < 2*maxReports {
		s.reports = append(s.reports, r)
	}
}

// report is the open report as far as it got.
func (s *scanner) report() Report {
	r := s.current
	r.Text = s.text.String()
	r.Title = s.pattern.complete(r.Title, r.Text)
	return r
}

func (s *scanner) all() []Report {
	all := append([]Report(nil), s.reports...)
	if s.open {
		all = append(all, s.report())
	}
	return all
}
