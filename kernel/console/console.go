// Package console reads the console of a Linux guest: it keeps it, bounded in
// size, and recognises the kernel's own reports of its troubles while the
// bytes arrive.
//
// A console carries the kernel's messages and whatever userspace prints, and
// nothing on it says which is which. A line counts as the kernel's when it has
// the form of one of printk's, at its start and, if this kernel's first line
// ("Linux version …") had a time stamp, with a time stamp. So a test that
// quotes a panic in its output is not mistaken for one, unless it prints
// printk's time stamp too (a replayed dmesg), writes to /dev/kmsg, or runs on
// a kernel without CONFIG_PRINTK_TIME. A triple fault says nothing at all: the
// machine resets.
package console

import (
	"io"
	"sync"
	"time"
)

// Report is something the kernel said about its own state.
type Report struct {
	Kind  string `json:"kind"`  // one of the Kind constants
	Title string `json:"title"` // one line without addresses, line numbers, times and pids: equal troubles have equal titles
	Text  string `json:"text"`  // the report's lines, without control characters
	Fatal bool   `json:"fatal"` // the kernel does not go on after this
}

// The kinds of reports.
const (
	KindPanic    = "panic"     // Kernel panic - not syncing; an exception without a way back
	KindOops     = "oops"      // bad memory access, general protection fault, any other die()
	KindBug      = "bug"       // kernel BUG at …, other lines that begin with BUG:
	KindWarning  = "warning"   // WARN_ON
	KindKASAN    = "kasan"     // KASAN; as the next three, a checking kernel's find
	KindKFENCE   = "kfence"    //
	KindUBSAN    = "ubsan"     //
	KindKMSAN    = "kmsan"     //
	KindKCSAN    = "kcsan"     //
	KindLockdep  = "lockdep"   // a possible deadlock, locks or RCU used wrongly
	KindLockup   = "lockup"    // a CPU that no longer schedules (soft) or takes interrupts (hard)
	KindHung     = "hung"      // a task that has not run for minutes
	KindRCUStall = "rcu-stall" // a CPU or task that holds up RCU
	KindBoot     = "boot"      // the kernel never began: firmware or decompressor
)

// grace is how long a fatal report may be silent before it counts as whole:
// its last line is not always recognisable.
const grace = 2 * time.Second

// minLog is the least a log keeps.
const minLog = 4 << 10

// Log takes a console's bytes. It is an io.Writer for one goroutine; all other
// methods may be called from any, at any time.
type Log struct {
	mu      sync.Mutex
	half    int    // the capacity of head, and of tail
	head    []byte // the first half bytes
	tail    []byte // a ring of the last half bytes, once head is full
	next    int    // where the ring is written
	total   int64  // bytes written so far
	scanner scanner
	grace   time.Duration
	timer   *time.Timer
	dead    chan struct{}
	isDead  bool
	closed  bool
}

// NewLog makes a log that keeps about limit bytes of the console: its first
// and its last half. Reports are kept besides, within bounds of their own.
func NewLog(limit int) *Log {
	return &Log{half: max(limit, minLog) / 2, grace: grace, dead: make(chan struct{})}
}

// Write takes the next bytes. It never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(p), nil
	}
	l.keep(p)
	l.scanner.write(p)
	l.judge()
	return len(p), nil
}

// Close says that no more bytes are to come: a last line without a line feed
// is looked at, and a fatal report that was still arriving is whole.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.scanner.end()
	l.judge()
	return nil
}

// judge closes dead when the scanner has a whole fatal report, and sees to it
// that one that stays silent gets whole.
func (l *Log) judge() {
	switch {
	case l.isDead:
	case l.scanner.died:
		l.isDead = true
		close(l.dead)
		if l.timer != nil {
			l.timer.Stop()
		}
	case l.scanner.open && l.scanner.current.Fatal && l.timer == nil:
		l.timer = time.AfterFunc(l.grace, l.silent)
	case l.timer != nil:
		l.timer.Reset(l.grace)
	}
}

func (l *Log) silent() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.scanner.finish()
	l.judge()
}

// keep stores p in head, then in the ring of tail.
func (l *Log) keep(p []byte) {
	l.total += int64(len(p))
	n := min(len(p), l.half-len(l.head))
	l.head = append(l.head, p[:n]...)
	p = p[n:]
	if len(p) > l.half {
		p = p[len(p)-l.half:]
	}
	n = min(len(p), l.half-len(l.tail))
	l.tail = append(l.tail, p[:n]...)
	for p = p[n:]; len(p) > 0; p = p[n:] {
		n = copy(l.tail[l.next:], p)
		l.next = (l.next + n) % l.half
	}
}

// Bytes returns what was kept, as it was written: the console's first bytes,
// and, when it was longer than the limit, a line that says how many bytes were
// dropped, and the last ones.
func (l *Log) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := append([]byte(nil), l.head...)
	if dropped := l.total - int64(len(l.head)+len(l.tail)); dropped > 0 {
		b = append(b, droppedLine(dropped)...)
	}
	b = append(b, l.tail[l.next:]...)
	return append(b, l.tail[:l.next]...)
}

// Reports returns the reports so far, in order, one that is still arriving
// included. Beyond maxReports only fatal ones are added.
func (l *Log) Reports() []Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.scanner.all()
}

// Dead is closed when the kernel has reported its death, and that report has
// arrived, or was silent for two seconds. A guest that resets or powers off
// after it may not leave that time: Close closes it too, then.
func (l *Log) Dead() <-chan struct{} { return l.dead }

// Scan reads a whole console, and returns the reports up to a read error.
func Scan(r io.Reader) ([]Report, error) {
	var s scanner
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		s.write(buf[:n])
		if err != nil {
			s.end()
			if err == io.EOF {
				err = nil
			}
			return s.all(), err
		}
	}
}

// Cause picks the report that tells most about how a kernel died or what went
// wrong first: the first fatal one, or, when that only follows from an earlier
// trouble (panic_on_oops, panic_on_warn, an init that an oops killed), that
// one; the first report at all when none is fatal.
func Cause(reports []Report) (Report, bool) {
	for i, r := range reports {
		if !r.Fatal {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			if follows(r, reports[j]) {
				return reports[j], true
			}
		}
		return r, true
	}
	if len(reports) == 0 {
		return Report{}, false
	}
	return reports[0], true
}
