package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"lab/kernel"
)

// journalFormat is the version of journal.jsonl; a journal of another version
// is refused, never guessed at.
const journalFormat = 2

const (
	journalFile = "journal.jsonl"
	lockFile    = "lock"
	maxJournal  = 1 << 30 // bytes; a verdict is about one KiB
)

// The events of a journal.
const (
	eventStart   = "start"   // the first: what is bisected
	eventVerdict = "verdict" // of one test
	eventHand    = "hand"    // verdicts that somebody gave
	eventUndo    = "undo"    // events that are taken back
	eventProof   = "proof"   // of one test of the answer's change alone: it says nothing of any commit
	eventEnd     = "end"     // the answer
)

// A record is one line of a journal: an event that must outlive a crash.
type record struct {
	Event string    `json:"event"`
	Time  time.Time `json:"time"`

	// start
	Format int     `json:"format,omitempty"`
	Key    string  `json:"key,omitempty"` // what is bisected: see bisection.key
	Images []Image `json:"images,omitempty"`
	// OnTop are the picks and patches that commits get: hashes and digests.
	OnTop []string `json:"on_top,omitempty"`
	Begun *Begun   `json:"begun,omitempty"`

	// verdict
	Tested *Tested `json:"tested,omitempty"`

	// proof
	Proof *Tested `json:"proof,omitempty"`

	// hand
	Hand   []Tested `json:"hand,omitempty"`
	Replay string   `json:"replay,omitempty"` // digest of the git bisect log that they are from

	// undo: the lines, from 1, of the events that are taken back
	Undo []int `json:"undo,omitempty"`

	// end
	Culprit  string   `json:"culprit,omitempty"`
	Suspects []string `json:"suspects,omitempty"`
	Unclear  string   `json:"unclear,omitempty"`

	line int // where it stands, from 1
}

// check refuses what this lab does not understand.
func (r record) check(line int) error {
	switch {
	case line == 1 && (r.Event != eventStart || r.Format != journalFormat):
		return fmt.Errorf("the journal is not of format %d", journalFormat)
	case line == 1:
		return nil
	case r.Event == eventVerdict && r.Tested == nil, r.Event == eventProof && r.Proof == nil, r.Event == eventHand && len(r.Hand) == 0, r.Event == eventUndo && len(r.Undo) == 0:
		return fmt.Errorf("a %s without content", r.Event)
	}
	for _, n := range r.Undo {
		if n <= 1 || n >= line {
			return fmt.Errorf("an undo of line %d", n)
		}
	}
	switch r.Event {
	case eventVerdict, eventProof, eventHand, eventUndo, eventEnd:
		return nil
	}
	return fmt.Errorf("the event %q is not known: a newer lab wrote it", r.Event)
}

// A journal is a bisect's memory: journal.jsonl in a folder of its own, one
// line an event, each on the disk (fsync) before anybody acts on it. Nothing is
// ever removed from it; what takes something back is an event too.
//
// Two locks keep it whole. The bisect that runs holds the folder's, from its
// beginning to its end, so that there is but one. And whoever appends a line
// holds the journal's own, for as long as it takes to read what others appended
// and to write behind it. So a verdict given from another terminal is a line
// like any other, and the bisect reads it before it decides on its next step.
// Both are flock(2)'s: they end with the process that holds them, however it
// ends, and with the machine.
type journal struct {
	dir     string
	file    *os.File
	lock    *flock.Flock // nil for who only reads, or adds to it from outside
	events  []record     // all there are
	records []record     // those that count: see settle
	size    int64        // bytes that were read
	lineage *lineage     // of the range; nil while it is not known
	foreign int          // how many events others appended while this one was open
	torn    string       // what was dropped at its end
	looking bool         // it is read only
	holder  Holder       // what the lock says
}

// openJournal opens or begins the journal in dir, for a bisect that runs.
func openJournal(ctx context.Context, dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make bisect folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	// Who asks whether a bisect runs has this lock for an instant.
	wait, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	free, err := lock.TryLockContext(wait, 10*time.Millisecond)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if !free {
		return nil, fmt.Errorf("another lab is at work on the bisect in %s: %s; see lab bisect status --dir %s", dir, readHolder(dir), dir)
	}
	j, err := loadJournal(dir, os.O_RDWR|os.O_CREATE)
	if err != nil {
		lock.Close()
		return nil, err
	}
	j.lock = lock
	if err := j.hold(); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// loadJournal opens the journal in dir as somebody beside the bisect that may
// run: with os.O_RDONLY to look, with os.O_RDWR to add to it.
func loadJournal(dir string, flags int) (*journal, error) {
	name := filepath.Join(dir, journalFile)
	f, err := os.OpenFile(name, flags, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &journal{dir: dir, file: f, looking: flags == os.O_RDONLY}
	if err := j.locked(j.read); err != nil {
		f.Close()
		return nil, err
	}
	j.foreign = 0
	return j, nil
}

// locked runs do while nobody else reads or appends.
func (j *journal) locked(do func() error) error {
	for {
		err := unix.Flock(int(j.file.Fd()), unix.LOCK_EX)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock %s: %w", j.file.Name(), err)
		}
		break
	}
	defer unix.Flock(int(j.file.Fd()), unix.LOCK_UN) //nolint:errcheck // it ends with the file at the latest
	return do()
}

// read takes in what was appended since. A last line that a crash cut short is
// cut off: its event did not happen. The journal is locked.
func (j *journal) read() error {
	name := j.file.Name()
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	switch {
	case info.Size() < j.size:
		return fmt.Errorf("read journal %s: somebody cut it short while it was in use", name)
	case info.Size() > maxJournal:
		return fmt.Errorf("read journal %s: %d bytes is more than a bisect writes", name, info.Size())
	case info.Size() == j.size:
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(j.file, j.size, info.Size()-j.size))
	if err != nil {
		return fmt.Errorf("read journal %s: %w", name, err)
	}
	events, whole, err := parseEvents(data, len(j.events))
	if err != nil {
		return fmt.Errorf("read journal %s: %w", name, err)
	}
	if whole < len(data) && !j.looking {
		j.torn = fmt.Sprintf("a crash left %d bytes of an unfinished line at the end of %s: dropped", len(data)-whole, name)
		if err := j.file.Truncate(j.size + int64(whole)); err != nil {
			return fmt.Errorf("drop the torn last line of %s: %w", name, err)
		}
	}
	j.size += int64(whole)
	j.foreign += len(events)
	j.events = append(j.events, events...)
	j.settle()
	return nil
}

// parseEvents reads lines that stand behind others, and gives how many of the
// bytes are whole lines. What is not, at the very end, is no error: a crash
// leaves it so, without its newline or, where only some of the disk's sectors
// were written, with it.
func parseEvents(data []byte, before int) (events []record, whole int, err error) {
	for whole < len(data) {
		end := bytes.IndexByte(data[whole:], '\n')
		if end < 0 {
			break
		}
		var r record
		n := before + len(events) + 1
		if err := json.Unmarshal(data[whole:whole+end], &r); err != nil {
			if whole+end+1 == len(data) && n > 1 && bytes.IndexByte(data[whole:whole+end], 0) >= 0 {
				break
			}
			return nil, 0, damaged(n, err)
		}
		if err := r.check(n); err != nil {
			return nil, 0, damaged(n, err)
		}
		r.line = n
		events = append(events, r)
		whole += end + 1
	}
	return events, whole, nil
}

func damaged(line int, err error) error {
	if line == 1 {
		return fmt.Errorf("line 1: %w; remove the folder to begin again: the kernels stay in the cache", err)
	}
	return fmt.Errorf("line %d: %w; the %d before it are whole: delete this one and those behind it (sed -i '%d,$d'), and the same command goes on from there", line, err, line-1, line)
}

// settle finds out which events count by now.
func (j *journal) settle() { j.records = settle(j.events, j.lineage) }

// refresh reads what others appended.
func (j *journal) refresh() error { return j.locked(j.read) }

// add writes one event and returns when it is on the disk.
func (j *journal) add(r record) error {
	return j.update(func() (record, error) { return r, nil })
}

// errOvertaken is returned in place of an end that others' events came before.
var errOvertaken = errors.New("the journal went on meanwhile")

// addEnd writes the answer, unless others appended something since the journal
// had n of their events.
func (j *journal) addEnd(r record, n int) error {
	return j.update(func() (record, error) {
		if j.foreign != n {
			return r, errOvertaken
		}
		return r, nil
	})
}

// update writes the event that make gives, which sees all that is on record
// and is not called when it cannot be read.
func (j *journal) update(make func() (record, error)) error {
	return j.locked(func() error {
		if err := j.read(); err != nil {
			return err
		}
		r, err := make()
		if err != nil {
			return err
		}
		return j.append(r)
	})
}

// append writes a line behind the others. One that did not get onto the disk
// whole, because the disk is full, is taken off again.
func (j *journal) append(r record) error {
	r.Time = time.Now().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	line = append(line, '\n')
	_, err = j.file.WriteAt(line, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil && len(j.events) == 0 {
		err = syncDir(j.dir)
	}
	if err != nil {
		err = fmt.Errorf("write journal %s: %w", j.file.Name(), err)
		return errors.Join(err, j.file.Truncate(j.size))
	}
	j.size += int64(len(line))
	r.line = len(j.events) + 1
	j.events = append(j.events, r)
	j.settle()
	return nil
}

// syncDir has a new file's name on the disk too: see fsync(2).
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// tested is what was found of a commit so far, or nil. The confirmations and
// the audit at the end are tests of their own; a verdict given by hand stands
// for all of them.
func (j *journal) tested(commit, role string) *Tested {
	for _, r := range j.records {
		if r.Tested != nil && r.Tested.Commit.Hash == commit && (r.Tested.ByHand || own(r.Tested.Role) == own(role)) {
			return r.Tested
		}
	}
	return nil
}

// own is the role of a test that is made in any case, and empty for those that
// stand for each other.
func own(role string) string {
	if role == RoleConfirm || role == RoleAudit || role == RoleAgain {
		return role
	}
	return ""
}

// count says how many tests are on record.
func (j *journal) count() int {
	n := 0
	for _, r := range j.records {
		if r.Tested != nil && r.Tested.Role != RoleHand {
			n++
		}
	}
	return n
}

// trialDir names a folder for what a trial saw, which no other trial has had.
func (j *journal) trialDir(c kernel.Commit) string {
	return filepath.Join("trials", fmt.Sprintf("%03d-%s", len(j.events), short(c.Hash)))
}

func (j *journal) Close() error {
	err := j.file.Close()
	if j.lock != nil {
		err = errors.Join(err, j.lock.Unlock())
	}
	return err
}

// title is that of a commit that was tested.
func (j *journal) title(hash string) string {
	for _, r := range j.records {
		if r.Tested != nil && r.Tested.Commit.Hash == hash {
			return r.Tested.Commit.Title
		}
	}
	return short(hash)
}
