package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel"
)

func verdictOf(hash, role string) record {
	return record{Event: "verdict", Tested: &Tested{Commit: kernel.Commit{Hash: hash}, Role: role, Verdict: Verdict{Good, "exit status 0"}}}
}

func TestJournalGoesOnAfterATornLine(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []record{{Event: "start", Format: journalFormat, Key: "k"}, verdictOf("a", RoleStep), verdictOf("b", RoleConfirm)} {
		if err := j.add(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "journal.jsonl")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lastLine := len(lines[len(lines)-2])

	// A crash may cut the last line anywhere: what is before it stands.
	for cut := 1; cut < lastLine; cut++ {
		if err := os.WriteFile(name, whole[:len(whole)-cut], 0o644); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(t.Context(), dir)
		if err != nil {
			t.Fatalf("cut %d bytes: %v", cut, err)
		}
		if j.count() != 1 || j.tested("a", RoleStep) == nil || j.tested("b", RoleConfirm) != nil {
			t.Fatalf("cut %d bytes: %d records", cut, len(j.records))
		}
		if err := j.add(verdictOf("b", RoleConfirm)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := openJournal(t.Context(), dir); err != nil || again.count() != 2 {
			t.Fatalf("cut %d bytes, then added: %v", cut, err)
		} else if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestJournalTellsStepsFromConfirmations(t *testing.T) {
	j := &journal{records: []record{verdictOf("a", RoleEnd), verdictOf("b", RoleConfirm)}}
	for _, c := range []struct {
		hash, role string
		found      bool
	}{{"a", RoleStep, true}, {"a", RoleConfirm, false}, {"b", RoleStep, false}, {"b", RoleConfirm, true}} {
		if got := j.tested(c.hash, c.role) != nil; got != c.found {
			t.Errorf("tested(%s, %s) = %v, want %v", c.hash, c.role, got, c.found)
		}
	}
}

func TestJournalRefuses(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"garbage":        {"not json\n", "line 1"},
		"another format": {`{"event":"start","format":99}` + "\n", "format"},
		"no start":       {`{"event":"verdict"}` + "\n", "format"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(c.content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := openJournal(t.Context(), dir); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v does not name %s and %q", name, err, dir, c.want)
		}
		if data, _ := os.ReadFile(filepath.Join(dir, "journal.jsonl")); string(data) != c.content {
			t.Errorf("%s: the journal was changed to %q", name, data)
		}
	}
}

func TestJournalIsLocked(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := openJournal(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another lab") {
		t.Errorf("second open: %v", err)
	}
}
