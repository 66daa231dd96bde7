package lab

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lab/lab/report"
)

// mostTail is how much of a stream a matrix reads for its report, in bytes.
const mostTail = 32 << 10

// tell makes the report of what is on record.
func (m *matrix) tell() error {
	for i, c := range m.cells {
		if err := m.tellCell(&m.Cells[i], c); err != nil {
			return err
		}
	}
	m.Tell()
	return nil
}

func (m *matrix) tellCell(told *report.MatrixCell, c *cell) error {
	var shown *Tested // the last bad run, or else the last good one, or else the last
	for _, t := range m.runs(c) {
		switch t.Mark {
		case Good:
			told.Good++
		case Bad:
			told.Bad++
		default:
			told.Skip++
		}
		if shown == nil || rank(t.Mark) >= rank(shown.Mark) {
			shown = t
		}
	}
	if shown == nil {
		told.Verdict, told.Reason = string(Skip), "lab could not test it"
		if c.err != nil {
			told.Reason = oneLine(c.err.Error())
		}
		return nil
	}
	told.Verdict, told.Reason, told.Dir, told.Boot, told.Test = string(shown.Mark), shown.Reason, shown.Dir, shown.Boot, shown.Test
	for _, s := range []struct {
		name string
		text *string
	}{{"stdout", &told.Run.Stdout}, {"stderr", &told.Run.Stderr}, {"syslog", &told.Run.Syslog}, {auditFile, &told.Run.Audit}, {"console.log", &told.Run.Console}} {
		text, err := tail(filepath.Join(m.Dir, shown.Dir, s.name), mostTail)
		if err != nil {
			return err
		}
		*s.text = text
	}
	told.Said = lastSaid(told.Run.Stderr)
	if told.Said == "" {
		told.Said = lastSaid(told.Run.Stdout)
	}
	return nil
}

// rank orders marks by what they tell.
func rank(m Mark) int { return map[Mark]int{Skip: 0, Good: 1, Bad: 2}[m] }

// lastSaid is the last line that says something.
func lastSaid(text string) string {
	text = strings.TrimSpace(text)
	return oneLine(text[strings.LastIndexByte(text, '\n')+1:])
}

// tail reads the last bytes of a file; of one that is not there none.
func tail(name string, most int64) (string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read what a trial saw: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read what a trial saw: %w", err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-most), most))
	if err != nil {
		return "", fmt.Errorf("read what a trial saw: %w", err)
	}
	return string(data), nil
}
