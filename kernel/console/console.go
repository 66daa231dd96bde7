// Package console reads the console of a Linux guest: it keeps it, bounded in
// size, and recognises the kernel's own reports of its death and troubles
// while the bytes arrive.
package console

import "io"

// Report is something the kernel said about its own state.
type Report struct {
	Kind  string `json:"kind"`  // one of the Kind constants
	Title string `json:"title"` // one line without addresses, times and pids: equal troubles have equal titles
	Text  string `json:"text"`  // the report's lines, cleaned of control characters
	Fatal bool   `json:"fatal"` // the kernel does not go on after this
}

// The kinds of reports.
const (
	KindPanic    = "panic"
	KindOops     = "oops"
	KindBug      = "bug"
	KindWarning  = "warning"
	KindKASAN    = "kasan"
	KindKFENCE   = "kfence"
	KindUBSAN    = "ubsan"
	KindLockup   = "lockup"
	KindHung     = "hung"
	KindRCUStall = "rcu-stall"
	KindLockdep  = "lockdep"
	KindBoot     = "boot" // the kernel never began: firmware or decompressor
)

// Log is an io.Writer that takes a console's bytes.
type Log struct{ dead chan struct{} }

// NewLog makes a log that keeps limit bytes.
func NewLog(limit int) *Log { return &Log{dead: make(chan struct{})} }

// Write takes the next bytes. It never fails.
func (l *Log) Write(p []byte) (int, error) { return len(p), nil }

// Close says that no more bytes are to come.
func (l *Log) Close() error { return nil }

// Bytes returns what was kept.
func (l *Log) Bytes() []byte { return nil }

// Reports returns the reports so far, in order.
func (l *Log) Reports() []Report { return nil }

// Dead is closed at the first fatal report.
func (l *Log) Dead() <-chan struct{} { return l.dead }

// Scan reads a whole console.
func Scan(r io.Reader) ([]Report, error) { return nil, nil }
