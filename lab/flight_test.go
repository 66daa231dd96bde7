package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

func fifos(t *testing.T, n int) (names []string) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		names = append(names, filepath.Join(dir, fmt.Sprint("fifo", i)))
		if err := syscall.Mkfifo(names[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// TestBisectAtTheSameTime: the two ends, and then the answer and its parent, wait
// for each other, and so come to an end only where both are tested at once.
func TestBisectAtTheSameTime(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("broken", "broken")
	f := fifos(t, 2)
	meet := Command{Shell: fmt.Sprintf("if grep -q fine state; then echo a > %s; read b < %s; else read a < %[1]s; echo b > %[2]s; exit 1; fi", f[0], f[1])}
	o := commandOptions(r, r.commits[0], meet)
	o.Jobs, o.Steady = 2, true
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[1] || len(b.Tested) != 4 {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestBisectMany: whatever the culprit and however many at a time, the answer is
// the same, and nothing is tested twice.
func TestBisectMany(t *testing.T) {
	for _, culprit := range []int{1, 8, 13} {
		r := newSmallRepo(t)
		for i := 1; i < 14; i++ {
			state := fmt.Sprint("fine ", i)
			if i >= culprit {
				state = fmt.Sprint("broken ", i)
			}
			r.commit(fmt.Sprintf("change %d", i), state)
		}
		for jobs := 2; jobs < 5; jobs++ {
			for _, steady := range []bool{true, false} {
				o := commandOptions(r, r.commits[0], broken)
				o.Jobs, o.Steady = jobs, steady
				b, err := testLab(t).Bisect(t.Context(), o)
				if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[culprit] {
					t.Fatalf("culprit %d, %d at a time: %+v, %v", culprit, jobs, b.Culprit, err)
				}
				replayed(t, r, b.Log, r.commits[culprit])
				seen := map[string]bool{}
				for _, x := range b.Tested {
					key := x.Role + x.Commit.Hash
					if x.Role != RoleAgain && seen[key] {
						t.Errorf("%s was tested twice", x.Commit.Title)
					}
					seen[key] = true
				}
			}
		}
	}
}

// TestBisectInVain: a test that a verdict has left in vain is ended, and the
// processes it has started with it.
func TestBisectInVain(t *testing.T) {
	r := newSmallRepo(t)
	for i := 1; i < 16; i++ {
		state := fmt.Sprint("broken ", i)
		switch {
		case i < 3:
			state = fmt.Sprint("fine ", i)
		case i > 8 && i < 15:
			state = fmt.Sprint("hangs ", i)
		}
		r.commit(fmt.Sprintf("change %d", i), state)
	}
	f := fifos(t, 2)
	// The middle is not bad before something hangs.
	hang := Command{Shell: fmt.Sprintf("case $(cat state) in hangs*) exec 9> %s; sleep 1000 & echo . > %s; wait;; 'broken 7') read x < %[2]s; exit 1;; broken*) exit 1;; esac", f[0], f[1])}
	o := commandOptions(r, r.commits[0], hang)
	o.Jobs, o.Steady = 3, true
	held := make(chan error)
	go func() {
		data, err := os.ReadFile(f[0])
		if err == nil && len(data) > 0 {
			err = fmt.Errorf("read %q", data)
		}
		held <- err
	}()
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[3] {
		t.Fatalf("%+v, %v", b, err)
	}
	if err := <-held; err != nil { // waits for all that hangs
		t.Error(err)
	}
	if slices.ContainsFunc(b.Tested, func(x Tested) bool { return x.End == EndTimeout || x.Test > 1e12 }) {
		t.Errorf("what hangs has a verdict: %+v", b.Tested)
	}
}

// TestBisectMissingCommand: a command that is not there is the user's slip,
// whichever end says so first, and no verdict.
func TestBisectMissingCommand(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("broken", "broken")
	f := fifos(t, 1)
	// The bad end first.
	o := commandOptions(r, r.commits[0], Command{Shell: fmt.Sprintf("grep -q fine state && read x < %s; nosuch", f[0])})
	o.Jobs = 2
	if _, err := testLab(t).Bisect(t.Context(), o); err == nil {
		t.Error("there is no error")
	}
	j, err := loadJournal(o.Dir, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.count() != 0 {
		t.Errorf("%d verdicts of a command that is not there", j.count())
	}
}

// TestParentFirst: of an answer and its parent that are tested at the same time,
// either may be done when lab is killed.
func TestParentFirst(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("broken", "broken")
	o := commandOptions(r, r.commits[0], broken)
	o.Steady = true
	l := testLab(t)
	if _, err := l.Bisect(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(o.Dir, journalFile)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) != 7 || !bytes.Contains(lines[4], []byte(`"confirms":"`+r.commits[1])) {
		t.Fatalf("the journal is %s", data)
	}
	// The start, both ends, and the parent.
	if err := os.WriteFile(name, bytes.Join([][]byte{lines[0], lines[1], lines[2], lines[4]}, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := l.Bisect(t.Context(), o)
	if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[1] || len(b.Tested) != 4 {
		t.Errorf("%+v, %v", b, err)
	}
}
