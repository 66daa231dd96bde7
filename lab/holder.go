package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// A Holder is the lab that works on a bisect. The folder's lock file says who it
// is; whether it still is, only the lock itself tells: after a kill or a reboot
// the file stays, and nobody has the lock.
type Holder struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Since   time.Time `json:"since"`
	Testing string    `json:"testing,omitempty"` // the commit, by its hash: of several the last that was begun,
	Beside  []string  `json:"beside,omitempty"`  // and the others
	Began   time.Time `json:"began,omitzero"`    // when that test did
}

func (h Holder) String() string {
	if h.PID == 0 {
		return "another process"
	}
	return fmt.Sprintf("process %d on %s, since %s", h.PID, h.Host, h.Since.Local().Format("2006-01-02 15:04:05"))
}

// hold says in the lock file who has the lock, and which commits it tests. It is
// for people: what cannot be written, on a full disk, stops nothing.
func (j *journal) hold(testing ...string) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if j.holder.PID == 0 {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("ask for this host's name: %w", err)
		}
		j.holder = Holder{PID: os.Getpid(), Host: host, Since: now}
	}
	j.holder.Testing, j.holder.Beside, j.holder.Began = "", nil, time.Time{}
	if len(testing) > 0 {
		last := len(testing) - 1
		j.holder.Testing, j.holder.Beside = testing[last], testing[:last]
		j.holder.Began = now
	}
	data, err := json.Marshal(j.holder)
	if err == nil {
		os.WriteFile(filepath.Join(j.dir, lockFile), append(data, '\n'), 0o600) //nolint:errcheck // see above
	}
	return err
}

// readHolder reads what the lock file says; the zero Holder when it says nothing.
func readHolder(dir string) (h Holder) {
	data, err := os.ReadFile(filepath.Join(dir, lockFile))
	if err != nil || len(data) > 1<<16 || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	h.Host = oneLine(strings.ToValidUTF8(h.Host, "?"))
	return h
}

// running gives the lab that works on the bisect in dir; nil for none.
func running(dir string) (*Holder, error) {
	name := filepath.Join(dir, lockFile)
	if _, err := os.Stat(name); os.IsNotExist(err) {
		return nil, nil
	}
	lock := flock.New(name)
	free, err := lock.TryRLock()
	if err != nil {
		return nil, fmt.Errorf("see who works on %s: %w", dir, err)
	}
	if free {
		return nil, lock.Unlock()
	}
	h := readHolder(dir)
	return &h, nil
}
