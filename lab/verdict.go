package lab

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"lab/kernel"
)

// Mark is what a verdict says of a kernel, in git bisect's words.
type Mark string

// The marks.
const (
	Good Mark = "good" // the symptom is not there
	Bad  Mark = "bad"  // the symptom is there
	Skip Mark = "skip" // this kernel cannot be judged
)

// A Verdict is a mark and the evidence for it in one line of plain words.
type Verdict struct {
	Mark   Mark   `json:"verdict"`
	Reason string `json:"reason"`
}

// Symptom kinds: what is hunted for.
const (
	SymptomTest  = "test"  // the container's test fails (the default)
	SymptomBuild = "build" // the kernel does not build
	SymptomBoot  = "boot"  // the kernel does not reach userspace
	SymptomCrash = "crash" // the kernel dies while the test runs
	SymptomAsk   = "ask"   // whoever is asked says so: lab only builds
)

// A Symptom says which kind of failure is hunted for. The zero value hunts a
// test that exits with a status other than 0.
//
// GoodMatch and BadMatch are regular expressions (Go's RE2 syntax, with ^ and
// $ matching at lines) searched in the test's stdout, stderr and syslog and in
// the kernel's console. With BadMatch only a failure that shows it is bad: a
// test that fails otherwise failed differently, and is skipped.
type Symptom struct {
	Kind      string `json:"kind,omitempty"`
	GoodMatch string `json:"good_match,omitempty"`
	BadMatch  string `json:"bad_match,omitempty"`
}

// Validate names the field that cannot be used.
func (s Symptom) Validate() error {
	switch s.Kind {
	case "", SymptomTest, SymptomBuild, SymptomBoot, SymptomCrash, SymptomAsk:
	default:
		return fmt.Errorf("symptom %q is not one of build, boot, crash, test", s.Kind)
	}
	for name, expr := range map[string]string{"good-match": s.GoodMatch, "bad-match": s.BadMatch} {
		if _, err := compile(expr); err != nil {
			return fmt.Errorf("parse %s: %w", name, err)
		}
	}
	if (s.GoodMatch != "" || s.BadMatch != "") && (s.Kind == SymptomBuild || s.Kind == SymptomBoot || s.Kind == SymptomAsk) {
		return fmt.Errorf("good-match and bad-match judge a test or a crash, not symptom %q", s.Kind)
	}
	return nil
}

func compile(expr string) (*regexp.Regexp, error) { return regexp.Compile("(?m)" + expr) }

// Judge decides what a trial says about its kernel. It is the only place that
// does: pure, and total over every way a trial can end. The symptom must be
// valid; one that is not judges nothing and gives a skip.
func Judge(t Trial, s Symptom) Verdict {
	if err := s.Validate(); err != nil {
		return Verdict{Skip, err.Error()}
	}
	switch s.Kind {
	case SymptomBuild:
		return judgeBuild(t)
	case SymptomBoot:
		return judgeBoot(t)
	case SymptomAsk:
		return unjudged(t)
	}
	switch t.End {
	case EndBuild, EndBuilt, EndBoot, EndSetup:
		return unjudged(t)
	}
	if s.BadMatch != "" {
		if line, where, ok := t.find(s.BadMatch); ok {
			return Verdict{Bad, matched(where, line)}
		}
	}
	if s.Kind == SymptomCrash {
		return judgeCrash(t, s)
	}
	return judgeTest(t, s)
}

func judgeBuild(t Trial) Verdict {
	switch {
	case t.End == EndBuild && t.unmade():
		return Verdict{Skip, t.Detail}
	case t.End == EndBuild:
		return Verdict{Bad, "does not build: " + t.Detail}
	}
	return Verdict{Good, "builds"}
}

// unmade tells of a build that never began, because a pick or a patch does not
// apply, or Kconfig does not allow a set of options. That says nothing about the
// commit.
func (t Trial) unmade() bool {
	return t.Failure != nil && (t.Failure.Step == kernel.StepPatch || t.Failure.Step == stepSet)
}

// unbuilt is the verdict on a kernel that there is not.
func unbuilt(t Trial) Verdict {
	if t.unmade() {
		return Verdict{Skip, t.Detail}
	}
	return Verdict{Skip, "does not build: " + t.Detail}
}

func judgeBoot(t Trial) Verdict {
	switch t.End {
	case EndBuild:
		return unbuilt(t)
	case EndBoot:
		return Verdict{Bad, "does not boot: " + t.Detail}
	}
	return Verdict{Good, "reaches userspace"}
}

// judgeCrash judges a test that ran and showed no BadMatch.
func judgeCrash(t Trial, s Symptom) Verdict {
	switch t.End {
	case EndCrash:
		if s.BadMatch != "" {
			return Verdict{Skip, "crashed differently: " + t.Detail}
		}
		return Verdict{Bad, "crashed: " + t.Detail}
	case EndTimeout:
		return Verdict{Skip, "no crash, but the test ran out of time"}
	}
	return Verdict{Good, "no crash; the test ended with " + t.status()}
}

// judgeTest judges a test that ran and showed no BadMatch.
func judgeTest(t Trial, s Symptom) Verdict {
	if t.End == EndCrash {
		return Verdict{Skip, "the kernel died during the test (to hunt that: --symptom crash): " + t.Detail}
	}
	if s.GoodMatch != "" {
		if line, where, ok := t.find(s.GoodMatch); ok {
			return Verdict{Good, matched(where, line)}
		}
	}
	passed := t.End == EndTest && t.Result.Exit == 0 && t.Result.Signal == "" && s.GoodMatch == ""
	switch {
	case passed:
		return Verdict{Good, "exit status 0"}
	case t.End == EndTest && t.Result.Exit == 125 && t.Result.Signal == "":
		return Verdict{Skip, "exit status 125: the test says that it cannot judge this " + t.what()}
	case s.BadMatch != "":
		return Verdict{Skip, "failed differently: " + t.status() + ", but nothing matches " + s.BadMatch}
	case s.GoodMatch != "":
		return Verdict{Bad, t.status() + ", and nothing matches " + s.GoodMatch}
	}
	return Verdict{Bad, t.status()}
}

// unjudged is the verdict on a kernel whose test never ran.
func unjudged(t Trial) Verdict {
	switch t.End {
	case EndBuild:
		return unbuilt(t)
	case EndBoot:
		return Verdict{Skip, "does not boot: " + t.Detail}
	case EndSetup:
		return Verdict{Skip, "the test could not be started: " + t.Detail}
	}
	return Verdict{Skip, "built, but not booted"}
}

// what was tried.
func (t Trial) what() string {
	if t.Kernel.Digest == "" {
		return "commit"
	}
	return "kernel"
}

// status says in words how the test's command ended.
func (t Trial) status() string {
	switch {
	case t.End == EndTimeout:
		return "the test ran out of its time"
	case t.Result.Signal != "":
		return "killed by " + t.Result.Signal
	}
	if t.End == EndTest && t.Detail != "" {
		return fmt.Sprintf("exit status %d: %s", t.Result.Exit, t.Detail)
	}
	return fmt.Sprintf("exit status %d", t.Result.Exit)
}

// find searches what the trial saw for expr, and gives the line that matched
// and where it stands.
func (t Trial) find(expr string) (line, where string, ok bool) {
	re, err := compile(expr)
	if err != nil {
		return "", "", false
	}
	for _, text := range []struct {
		where string
		data  []byte
	}{{"stdout", t.Result.Stdout}, {"stderr", t.Result.Stderr}, {"syslog", t.Result.Syslog}, {"console", t.Console}} {
		at := re.FindIndex(text.data)
		if at == nil {
			continue
		}
		start := strings.LastIndexByte(string(text.data[:at[0]]), '\n') + 1
		line, _, _ := strings.Cut(string(text.data[start:]), "\n")
		return oneLine(line), text.where, true
	}
	return "", "", false
}

func matched(where, line string) string { return where + " says: " + line }

// printable puts spaces in the place of what steers a terminal or turns the
// direction of writing.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
}

// oneLine makes guest text fit to be printed: control characters become
// spaces, what is long is cut.
func oneLine(s string) string {
	return clip(strings.TrimSpace(printable(s)), 201)
}

// clip cuts a text that has more characters than it may.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}
