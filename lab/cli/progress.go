package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/term"

	"lab/lab"
)

// A printer writes progress to stderr: lines that stay, and on a terminal one
// live line below them. Where stderr is no terminal the live line becomes a
// plain one, at most every plainEvery.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	term  *os.File // nil where w is no terminal
	width int      // of the terminal; 0 where there is none
	live  string
	drawn time.Time // when the live line last changed
	last  time.Time // when a plain line was last written
}

const plainEvery = 30 * time.Second

func newPrinter(w io.Writer) *printer {
	p := &printer{w: w, last: time.Now()}
	// A dumb terminal cannot erase a line (terminfo's dumb has no el).
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.term = f
		p.measure()
	}
	return p
}

// measure looks how wide the terminal is by now: people drag windows.
func (p *printer) measure() {
	if p.term == nil {
		return
	}
	if width, _, err := term.GetSize(int(p.term.Fd())); err == nil && width > 10 {
		p.width = width
	}
}

func (p *printer) progress() lab.Progress { return lab.Progress{Line: p.line, Live: p.show} }

func (p *printer) line(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Fprintln(p.w, s)
	p.last = time.Now()
	p.draw()
}

func (p *printer) show(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width == 0 {
		if s != "" && time.Since(p.last) >= plainEvery {
			fmt.Fprintln(p.w, "  "+s)
			p.last = time.Now()
		}
		return
	}
	// The first of a step is shown at once; how it goes on, no more often than
	// an eye can follow.
	if s != p.live && (s == "" || p.live == "" || time.Since(p.drawn) >= 50*time.Millisecond) {
		p.clear()
		p.measure()
		p.live, p.drawn = s, time.Now()
		p.draw()
	}
}

func (p *printer) clear() {
	if p.width > 0 && p.live != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func (p *printer) draw() {
	if p.width == 0 || p.live == "" {
		return
	}
	r := []rune(strings.ReplaceAll(p.live, "\n", " "))
	if len(r) > p.width-1 {
		r = r[:p.width-1]
	}
	fmt.Fprint(p.w, string(r))
}

// Write lets logs go through the printer, a line at a time, so that they do
// not tear the live line.
func (p *printer) Write(b []byte) (int, error) {
	p.line(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// plain renders a log entry as its level, where that says something, and its
// message.
type plain struct{}

func (plain) Format(e *logrus.Entry) ([]byte, error) {
	s := e.Message
	if e.Level != logrus.InfoLevel {
		s = e.Level.String() + ": " + s
	}
	for k, v := range e.Data {
		s += fmt.Sprintf(" %s=%v", k, v)
	}
	return []byte(s + "\n"), nil
}

// logTo configures the global logger, through which go-diskfs speaks, once.
func logTo(p *printer, debug bool) {
	logrus.SetFormatter(plain{})
	logrus.SetOutput(p)
	logrus.SetLevel(logrus.ErrorLevel)
	if debug {
		logrus.SetLevel(logrus.DebugLevel)
	}
}
