package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// journalFormat is the version of journal.jsonl; a journal of another version
// is refused, never guessed at.
const journalFormat = 1

// A record is one line of a journal: an event that must outlive a crash.
type record struct {
	Event string    `json:"event"` // "start", "verdict", "end"
	Time  time.Time `json:"time"`

	// start
	Format int     `json:"format,omitempty"`
	Key    string  `json:"key,omitempty"` // what is bisected: see BisectOptions.key
	Images []Image `json:"images,omitempty"`
	// OnTop are the picks and patches that commits get: hashes and digests.
	OnTop []string `json:"on_top,omitempty"`

	// verdict
	Tested *Tested `json:"tested,omitempty"`

	// end
	Culprit  string   `json:"culprit,omitempty"`
	Suspects []string `json:"suspects,omitempty"`
	Unclear  string   `json:"unclear,omitempty"`
}

// A journal is a bisect's memory: journal.jsonl in a folder of its own, one
// line an event, each on the disk (fsync) before lab goes on. Whoever holds
// it holds the folder's lock.
type journal struct {
	dir     string
	file    *os.File
	lock    *flock.Flock
	records []record
}

// openJournal opens or begins the journal in dir. A last line that a crash cut
// short is dropped: its event did not happen.
func openJournal(dir string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make bisect folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "lock"))
	free, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if !free {
		return nil, fmt.Errorf("another lab is at work on the bisect in %s", dir)
	}
	j := &journal{dir: dir, lock: lock}
	if err := j.load(); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) load() error {
	name := filepath.Join(j.dir, "journal.jsonl")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	j.file = f
	data, err := io.ReadAll(f)
	if err != nil {
		return fmt.Errorf("read journal %s: %w", name, err)
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	if whole < len(data) {
		if err := f.Truncate(int64(whole)); err != nil {
			return fmt.Errorf("drop the torn last line of %s: %w", name, err)
		}
	}
	if _, err := f.Seek(int64(whole), io.SeekStart); err != nil {
		return fmt.Errorf("read journal %s: %w", name, err)
	}
	for n, line := range bytes.Split(bytes.TrimSuffix(data[:whole], []byte("\n")), []byte("\n")) {
		if len(line) == 0 && whole == 0 {
			break
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("read journal %s: line %d: %w; remove the folder to begin again", name, n+1, err)
		}
		j.records = append(j.records, r)
	}
	if len(j.records) > 0 && (j.records[0].Event != "start" || j.records[0].Format != journalFormat) {
		return fmt.Errorf("journal %s is not of format %d; remove the folder to begin again", name, journalFormat)
	}
	return nil
}

// add writes one event and returns when it is on the disk.
func (j *journal) add(r record) error {
	r.Time = time.Now().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write journal %s: %w", j.file.Name(), err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("write journal %s: %w", j.file.Name(), err)
	}
	j.records = append(j.records, r)
	return nil
}

// tested is what was found of a commit so far, or nil. The confirmations and
// the audit at the end are tests of their own.
func (j *journal) tested(commit, role string) *Tested {
	for _, r := range j.records {
		if r.Tested != nil && r.Tested.Commit.Hash == commit && own(r.Tested.Role) == own(role) {
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
		if r.Tested != nil {
			n++
		}
	}
	return n
}

func (j *journal) Close() error {
	var err error
	if j.file != nil {
		err = j.file.Close()
	}
	if e := j.lock.Unlock(); err == nil {
		err = e
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
