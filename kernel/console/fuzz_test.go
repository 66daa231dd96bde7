package console

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func seed(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, 7)
	}
	f.Add([]byte("\x1b]0;x\r\n[    0.000000] Linux version\n[    1.0"), 1)
	f.Add([]byte("====================\nBUG: KASAN: x in y+0x1/0x2\n====================\nBUG: z\n"), 3)
	f.Add([]byte("------------[ cut here ]------------\nWARNING: CPU: 1 PID: 2 at a:3 b+0x\n -- System halted"), 5)
}

// FuzzScan: any bytes give clean, bounded reports.
func FuzzScan(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte, _ int) {
		reports, err := Scan(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			if r.Kind == "" || r.Title == "" || r.Text == "" || strings.ContainsAny(r.Title, "\n\x00\x1b") || strings.ContainsAny(r.Text, "\r\x00\x1b") ||
				!utf8.ValidString(r.Title) || !utf8.ValidString(r.Text) || len(r.Title) > 2*maxLine || len(r.Text) > maxReportBytes+(maxAbove+1)*3*maxLine {
				t.Errorf("%+v", r)
			}
		}
		Cause(reports)
	})
}

// FuzzLog: however the bytes arrive, the log says the same, and keeps its
// bounds and the console's beginning and end.
func FuzzLog(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		if size < 1 {
			size = 1
		}
		l := NewLog(0)
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			l.Write(rest[:n])
			rest = rest[n:]
		}
		l.Close()
		want, _ := Scan(bytes.NewReader(data))
		if diff := cmp.Diff(want, l.Reports()); diff != "" {
			t.Error(diff)
		}
		fatal := false
		for _, r := range want {
			fatal = fatal || r.Fatal
		}
		select {
		case <-l.Dead():
			if !fatal {
				t.Error("dead of nothing")
			}
		default:
			if fatal {
				t.Error("not dead")
			}
		}
		got := l.Bytes()
		if len(data) <= minLog {
			if !bytes.Equal(got, data) {
				t.Error("what fits was not kept")
			}
		} else if len(got) > minLog+80 || !bytes.HasPrefix(got, data[:minLog/2]) || !bytes.HasSuffix(got, data[len(data)-minLog/2:]) {
			t.Error("not the head and the tail")
		}
	})
}
