package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commandOptions bisects a repository of nothing in particular: state says what a commit
// is, as in the small kernel trees, whose Makefile it has no use for.
func commandOptions(r *smallRepo, good string, c Command) BisectOptions {
	return BisectOptions{
		Good: []string{good}, Bad: "main", Dir: filepath.Join(r.t.TempDir(), "state"),
		Spec: Spec{Kernel: KernelSpec{Repo: r.dir}, Command: &c},
	}
}

// broken is the command that is good where state is fine.
var broken = Command{Shell: "if grep -q broken state; then echo state: it broke >&2; exit 1; fi"}

func TestBisectRun(t *testing.T) {
	r := newSmallRepo(t)
	for i := 1; i < 12; i++ {
		state := "fine"
		if i >= 7 {
			state = "broken"
		}
		r.commit(fmt.Sprintf("change %d", i), state)
	}
	status := r.git("status", "--porcelain", "--ignored")
	o := commandOptions(r, r.commits[0], broken)
	l := testLab(t)
	b, err := l.Bisect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if b.Culprit == nil || b.Culprit.Hash != r.commits[7] || b.Range != 11 || b.Command != broken.Shell {
		t.Fatalf("found %+v of %d, by %q", b.Culprit, b.Range, b.Command)
	}
	replayed(t, r, b.Log, r.commits[7])
	for _, x := range b.Tested {
		if x.End != EndTest || x.Tree == "" || x.Kernel != "" || x.Boot != 0 || x.Build != 0 {
			t.Errorf("%+v", x)
		}
		if x.Mark == Bad && x.Reason != "exit status 1: state: it broke" {
			t.Errorf("bad says %q", x.Reason)
		}
		if said, err := os.ReadFile(filepath.Join(b.Dir, x.Dir, "stderr")); err != nil || (len(said) > 0) != (x.Mark == Bad) {
			t.Errorf("%s: stderr %q, %v", x.Mark, said, err)
		}
	}
	if now := r.git("status", "--porcelain", "--ignored"); now != status {
		t.Errorf("the user's repository is %q, was %q", now, status)
	}
	again, err := l.Bisect(t.Context(), o)
	if err != nil || again.Culprit == nil || again.Culprit.Hash != r.commits[7] || len(again.Tested) != len(b.Tested) {
		t.Errorf("once more: %+v, %v", again, err)
	}
	other := o
	other.Spec.Command = &Command{Shell: "true"}
	if _, err := l.Bisect(t.Context(), other); err == nil || !strings.Contains(err.Error(), "is another one") {
		t.Errorf("another command in the same folder: %v", err)
	}
}

// TestBisectRunSurroundings: what a command gets to see, in either form.
func TestBisectRunSurroundings(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("broken", "broken")
	t.Setenv("GIT_DIR", "/nonexistent")
	t.Setenv("OF_THE_USERS", "here")
	here := t.TempDir()
	for _, c := range []Command{
		{Shell: `set -e; test "$(git rev-parse HEAD)" = "$LAB_COMMIT"; test "$PWD" = "$(git rev-parse --show-toplevel)"; test "$OF_THE_USERS" = here; ! read line; grep -q fine state`},
		{Args: []string{"sh", "-c", `! grep -q "$0" state`, "broken"}},
		{NoCheckout: true, Dir: here, Shell: fmt.Sprintf(`set -e; test "$GIT_DIR" = /nonexistent; test "$PWD" = %s; unset GIT_DIR; git -C %s show $LAB_COMMIT:state | grep -q fine`, here, r.dir)},
	} {
		b, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], c))
		if err != nil || b.Culprit == nil || b.Culprit.Hash != r.commits[1] {
			t.Errorf("%s: %+v, %s, %v", c, b.Culprit, b.Unclear, err)
		}
	}
}

// TestBisectRunSameFiles: commits with the same files are not run again.
func TestBisectRunSameFiles(t *testing.T) {
	r := newSmallRepo(t)
	for range 8 {
		r.git("commit", "-q", "--allow-empty", "-m", "nothing")
	}
	culprit := r.commit("broken", "broken")
	b, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], broken))
	if err != nil || b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("found %+v, %v", b.Culprit, err)
	}
	for _, x := range b.Tested {
		if want := x.Role == RoleStep; (x.Inferred == r.commits[0]) != want || (x.Dir == "") != want {
			t.Errorf("%s %s: inferred from %q, run in %q", x.Role, x.Commit.Title, x.Inferred, x.Dir)
		}
	}
	o := commandOptions(r, r.commits[0], Command{NoCheckout: true, Dir: r.dir, Shell: "git show $LAB_COMMIT:state | grep -q fine"})
	if b, err = testLab(t).Bisect(t.Context(), o); err != nil || b.Culprit == nil || b.Culprit.Hash != culprit {
		t.Fatalf("without files: found %+v, %v", b.Culprit, err)
	}
	for _, x := range b.Tested {
		if x.Inferred != "" {
			t.Errorf("without files, %s was inferred", x.Commit.Title)
		}
	}
}

// TestBisectRunStatus: what each way to end makes of a commit, in git bisect
// run's words.
func TestBisectRunStatus(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("broken", "broken")
	ends := func(how string) Command { return Command{Shell: "grep -q fine state || " + how} }
	for how, want := range map[string]string{
		"exit 1":           "exit status 1",
		"exit 124":         "exit status 124",
		"nosuch":           "exit status 127: /bin/sh: 1: nosuch: not found",
		"exit 126":         "exit status 126",
		"(echo a; exit 3)": "exit status 3: a",
	} {
		b, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], ends(how)))
		if err != nil || b.Culprit == nil || b.Tested[1].Reason != want {
			t.Errorf("%s: %+v, %v; want %q", how, b.Tested, err, want)
		}
	}
	b, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], ends("exit 125")))
	if err != nil || b.Culprit != nil || !strings.Contains(b.Unclear, "is not bad but skip: exit status 125") {
		t.Errorf("exit 125: %+v, %v", b, err)
	}
	for how, want := range map[string]string{
		"exit 128": "exited with status 128", "exit 255": "exited with status 255", "kill -9 $$": "was ended by a signal (killed)",
	} {
		o := commandOptions(r, r.commits[0], ends(how))
		_, err := testLab(t).Bisect(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), r.commits[1][:12]) {
			t.Errorf("%s: %v", how, err)
		}
		data, err := os.ReadFile(filepath.Join(o.Dir, "journal.jsonl"))
		if err != nil || bytes.Count(data, []byte(`"verdict":`)) != 1 {
			t.Errorf("%s: the journal has %s, %v", how, data, err)
		}
	}
	// On the good end, a command that is not there is the user's slip.
	for _, c := range []Command{{Shell: "nosuch"}, {Args: []string{"nosuch"}}, {Args: []string{"./state"}}} {
		_, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], c))
		if err == nil || !strings.Contains(err.Error(), "cannot be run") {
			t.Errorf("%s: %v", c, err)
		}
	}
}

// TestBisectRunMatches: what is bad may be told by what the command says.
func TestBisectRunMatches(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("another bug", "other")
	r.commit("broken", "broken")
	o := commandOptions(r, r.commits[0], Command{Shell: "cat state; grep -q fine state"})
	o.Spec.Symptom.BadMatch = "^broken$"
	b, err := testLab(t).Bisect(t.Context(), o)
	if err != nil || len(b.Suspects) != 2 || !strings.Contains(b.Tested[2].Reason, "failed differently: exit status 1: other") {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestBisectRunEnds: neither a command that hangs nor what it has started
// outlives its time, or lab's.
func TestBisectRunEnds(t *testing.T) {
	r := newSmallRepo(t)
	r.commit("hangs", "broken")
	fifo := filepath.Join(t.TempDir(), "held")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hang := Command{Shell: "grep -q fine state || { exec 9> " + fifo + "; sleep 1000 & wait; }"}
	// A reader of the fifo comes to its end when nobody holds the other one.
	held := make(chan error)
	watch := func() {
		data, err := os.ReadFile(fifo)
		if err == nil && len(data) > 0 {
			err = fmt.Errorf("read %q", data)
		}
		held <- err
	}
	go watch()
	timed := hang
	timed.Timeout = time.Second
	b, err := testLab(t).Bisect(t.Context(), commandOptions(r, r.commits[0], timed))
	if err != nil || b.Culprit == nil || b.Tested[1].Reason != "the test ran out of its time" || b.Tested[1].End != EndTimeout {
		t.Errorf("%+v, %v", b, err)
	}
	if err := <-held; err != nil { // waits for what the command has started
		t.Error(err)
	}

	gone := errors.New("the user has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	loud := hang
	loud.Shell = strings.Replace(hang.Shell, "wait;", "echo hanging; wait;", 1)
	go watch()
	l := testLab(t)
	l.Progress.Live = func(s string) {
		if strings.HasSuffix(s, ": hanging") {
			cancel(gone)
		}
	}
	if _, err := l.Bisect(ctx, commandOptions(r, r.commits[0], loud)); !errors.Is(err, gone) {
		t.Errorf("interrupted: %v", err)
	}
	if err := <-held; err != nil {
		t.Error(err)
	}
}

func TestOutput(t *testing.T) {
	var lines []string
	o := output{line: func(s string) { lines = append(lines, s) }}
	for i := range 400_000 {
		fmt.Fprintf(&o, "line %d\n", i)
	}
	b := o.bytes()
	if len(lines) != 400_000 || len(b) > 2*half+100 || !bytes.HasPrefix(b, []byte("line 0\nline 1\n")) || !bytes.HasSuffix(b, []byte("\nline 399999\n")) ||
		!bytes.Contains(b, []byte(fmt.Sprintf("[lab: %d bytes are left out here]", o.left))) {
		t.Errorf("%d lines, %d bytes, %d left out", len(lines), len(b), o.left)
	}
	if again := o.bytes(); !bytes.Equal(again, b) {
		t.Error("asked twice, it says something else")
	}
	small := output{line: func(string) {}}
	fmt.Fprint(&small, "all\nof it")
	if string(small.bytes()) != "all\nof it" {
		t.Errorf("%q", small.bytes())
	}
}

func TestCommandString(t *testing.T) {
	for want, c := range map[string]Command{
		"make && ./test":                  {Shell: "make && ./test"},
		`make 'a b' '' 'it'\''s' -j2 x=y`: {Args: []string{"make", "a b", "", "it's", "-j2", "x=y"}},
	} {
		if got := c.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, c := range []Command{{}, {Shell: " "}, {Args: []string{""}}, {Shell: "a", Args: []string{"b"}}, {Shell: "a", Timeout: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}
