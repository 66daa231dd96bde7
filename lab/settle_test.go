package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lab/kernel"
)

// chain is a range of commits, each built upon the one before, and what merges add.
func chain(hashes string, merges map[string]string) *lineage {
	var commits []kernel.Commit
	last := ""
	for _, h := range strings.Fields(hashes) {
		c := kernel.Commit{Hash: h, Title: "title " + h}
		if parents, ok := merges[h]; ok {
			c.Parents = strings.Fields(parents)
		} else if last != "" {
			c.Parents = []string{last}
		}
		commits = append(commits, c)
		last = h
	}
	return newLineage(commits)
}

// events makes a journal of words: a:good is a test, a:good=b one inferred from b,
// hand:a:bad,b:skip verdicts by hand, undo:3,4 and end.
func events(words string) (list []record) {
	verdict := func(text string) Tested {
		hash, mark, _ := strings.Cut(text, ":")
		mark, inferred, _ := strings.Cut(mark, "=")
		return Tested{Commit: kernel.Commit{Hash: hash}, Role: RoleStep, Verdict: Verdict{Mark(mark), "so"}, Inferred: inferred}
	}
	list = []record{{Event: eventStart, Format: journalFormat}}
	for _, w := range strings.Fields(words) {
		var r record
		switch kind, rest, _ := strings.Cut(w, ":"); kind {
		case eventEnd:
			r.Event = eventEnd
		case eventHand:
			r.Event = eventHand
			for _, text := range strings.Split(rest, ",") {
				t := verdict(text)
				t.Role, t.ByHand = RoleHand, true
				r.Hand = append(r.Hand, t)
			}
		case eventUndo:
			r.Event = eventUndo
			for _, n := range strings.Split(rest, ",") {
				var line int
				fmt.Sscan(n, &line)
				r.Undo = append(r.Undo, line)
			}
		default:
			t := verdict(w)
			r.Event, r.Tested = eventVerdict, &t
		}
		list = append(list, r)
	}
	for i := range list {
		list[i].line = i + 1
	}
	return list
}

func TestSettle(t *testing.T) {
	l := chain("a b c d e", nil)
	for _, test := range []struct{ name, events, want string }{
		{"tests count", "a:good c:bad b:skip", "a:good c:bad b:skip"},
		{"an end counts", "a:good end", "a:good end"},
		{"an end with something behind it does not", "a:good end b:bad", "a:good b:bad"},
		{"what is taken back does not", "a:good c:bad undo:3", "a:good"},
		{"nor an end before that", "a:good end undo:2", ""},
		{"a verdict by hand overrules a test of before", "c:bad hand:c:good", "c:good!"},
		{"and of after", "hand:c:good c:bad", "c:good!"},
		{"the last by hand counts", "hand:c:good hand:c:skip", "c:skip!"},
		{"what it overruled counts again", "c:bad hand:c:good undo:3", "c:bad"},
		{"good by hand: no bad below", "a:good b:bad d:bad hand:c:good", "a:good d:bad c:good!"},
		{"and its passes stay", "b:bad b:good hand:c:good", "b:good c:good!"},
		{"bad by hand: no good above", "a:good d:good e:bad hand:b:bad", "a:good e:bad b:bad!"},
		{"skip by hand: nothing else", "b:bad d:good hand:c:skip", "b:bad d:good c:skip!"},
		{"nor what was inferred from it", "b:bad d:bad=b hand:b:good", "b:good!"},
		{"in one go, and back in one go", "hand:a:good,d:bad c:bad undo:2", "c:bad"},
		{"of an end outside the range", "x:bad hand:x:good", "x:good!"},
	} {
		var got []string
		for _, r := range settle(events(test.events), l)[1:] {
			if r.Event == eventEnd {
				got = append(got, "end")
				continue
			}
			text := r.Tested.Commit.Hash + ":" + string(r.Tested.Mark)
			if r.Tested.ByHand {
				text += "!"
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %s gives %v, want %s", test.name, test.events, got, test.want)
		}
	}
}

func TestSuspects(t *testing.T) {
	l := chain("a b c d m e", map[string]string{"c": "a", "m": "b d"}) // a-b-m-e and a-c-d-m
	for words, want := range map[string]string{
		"":                    "a b c d m e",
		"b:good":              "c d m e",
		"d:bad":               "a c d",
		"b:good d:good":       "m e",
		"b:good m:bad c:skip": "c d m",
		"b:bad d:bad":         "a",
		"a:good b:bad d:bad":  "a", // one that fails at times
	} {
		var tests []Tested
		for _, r := range events(words)[1:] {
			tests = append(tests, *r.Tested)
		}
		var got []string
		for i, in := range l.suspects(tests) {
			if in {
				got = append(got, l.commits[i].Hash)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q leaves %v, want %s", words, got, want)
		}
	}
}

// TestPicture draws a history with two branches, one cut from the other.
func TestPicture(t *testing.T) {
	l := chain("a b c d e f m n", map[string]string{"a": "G", "c": "a", "e": "b", "m": "f d"}) // G-a-b-e-f-m-n and a-c-d-m
	s := &Saved{
		Begun:   Begun{Axis: "commit", Good: []kernel.Commit{{Hash: "G"}}, Bad: kernel.Commit{Hash: "n"}},
		journal: &journal{lineage: l, records: settle(events("b:good d:bad"), l)},
	}
	draw := func(all bool) string {
		var b strings.Builder
		for _, r := range s.Picture(all) {
			b.WriteString(r.Graph)
			if r.Commit != nil {
				fmt.Fprintf(&b, " %s %s", r.Commit.Hash, r.State)
			}
			if r.Hidden > 0 {
				fmt.Fprintf(&b, " %d", r.Hidden)
			}
			b.WriteString("\n")
		}
		return b.String()
	}
	if got, want := draw(true), `* n (bad)
* m (bad)
|\
* | f (out)
* | e (out)
| * d bad
| * c ?
* | b good
|/
* a (good)
* G good
`; got != want {
		t.Errorf("all:\n%s\nwant:\n%s", got, want)
	}
	if got, want := draw(false), `* n (bad)
: 3
|\
| * d bad
| * c ?
* | b good
: | 1
|/
* G good
`; got != want {
		t.Errorf("shortened:\n%s\nwant:\n%s", got, want)
	}
}

// TestJournalFromOutside appends to a journal that is open, and to one whose last
// line a crash tore.
func TestJournalFromOutside(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, r := range []record{{Event: eventStart, Format: journalFormat}, verdictOf("a", RoleStep)} {
		if err := j.add(r); err != nil {
			t.Fatal(err)
		}
	}
	other, err := loadJournal(dir, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.add(record{Event: eventUndo, Undo: []int{2}}); err != nil {
		t.Fatal(err)
	}
	if err := j.addEnd(record{Event: eventEnd}, 0); err == nil || j.foreign != 1 || j.tested("a", RoleStep) != nil {
		t.Errorf("an end that was overtaken: %v, %d others' events", err, j.foreign)
	}
	// The other one is killed while it writes.
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"event":"ver`)
	f.Close()
	if err := j.add(verdictOf("b", RoleStep)); err != nil {
		t.Fatal(err)
	}
	again, err := loadJournal(dir, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if len(again.events) != 4 || again.tested("b", RoleStep) == nil || !strings.Contains(j.torn, "13 bytes") {
		t.Errorf("%d events, torn %q", len(again.events), j.torn)
	}
}

// A lock file that a lab of before a reboot left says nothing: nobody has the lock.
func TestHolderOfBefore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, lockFile), []byte(`{"pid":1,"host":"before"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := running(dir); err != nil || h != nil {
		t.Errorf("%v, %v", h, err)
	}
	j, err := openJournal(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := running(dir); err != nil || h == nil || h.PID != os.Getpid() {
		t.Errorf("%v, %v", h, err)
	}
	j.Close()
	if h, err := running(dir); err != nil || h != nil {
		t.Errorf("afterwards %v, %v", h, err)
	}
}

// FuzzEvents reads what may stand in a journal. What is read, and written again,
// is the same, and settling it never fails.
func FuzzEvents(f *testing.F) {
	var whole bytes.Buffer
	for _, r := range events("a:good hand:b:bad,c:skip undo:2 d:bad end") {
		line, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		whole.Write(append(line, '\n'))
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-3])
	f.Add([]byte("{\"event\":\"start\",\"format\":2}\n\x00\x00\n"))
	l := chain("a b c d e", nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		list, n, err := parseEvents(data, 0)
		if err != nil {
			return
		}
		if n > len(data) || n > 0 && data[n-1] != '\n' {
			t.Fatalf("%d of %d bytes are whole lines", n, len(data))
		}
		settled := settle(list, l)
		l.marks(settled)
		var out bytes.Buffer
		for _, r := range list {
			line, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(append(line, '\n'))
		}
		again, _, err := parseEvents(out.Bytes(), 0)
		if err != nil || len(again) != len(list) {
			t.Fatalf("%d events, and %d when written again: %v", len(list), len(again), err)
		}
	})
}

// FuzzRange reads what may stand in a range.
func FuzzRange(f *testing.F) {
	f.Add([]byte(`{"hash":"a","title":"x"}` + "\n" + `{"hash":"b","parents":["a"],"title":"y"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		commits, err := parseRange(bytes.NewReader(data))
		if err != nil {
			return
		}
		l := newLineage(commits)
		if n := count(l.suspects(nil)); n < 1 || n > len(commits) {
			t.Fatalf("%d of %d commits are left", n, len(commits))
		}
	})
}
