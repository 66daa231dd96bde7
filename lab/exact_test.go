package lab

import (
	"strings"
	"testing"
	"time"

	"lab/probe"
)

func TestFirstDifference(t *testing.T) {
	for _, c := range []struct {
		a, b string
		line int
	}{
		{"", "", 0}, {"a\nb\n", "a\nb\n", 0}, {"a\nb\n", "a\nc\n", 2}, {"a\n", "a\nb", 2}, {"a", "", 1}, {"a", "a\n", 1}, {"x\na\n", "a\n", 1},
	} {
		if got := firstDifference([]byte(c.a), []byte(c.b)); got != c.line {
			t.Errorf("%q and %q: line %d, want %d", c.a, c.b, got, c.line)
		}
	}
	if got := lineOf([]byte("a\n\x1b[31mb\n"), 2); strings.Contains(got, "\x1b") || !strings.Contains(got, "b") {
		t.Errorf("a line is shown as %s", got)
	}
	if got := lineOf([]byte("a"), 3); got != "(it ends before)" {
		t.Errorf("a line that is not there is shown as %s", got)
	}
}

// TestExactDigest: all that a guest says is in it, and nothing of the host's.
func TestExactDigest(t *testing.T) {
	said := func(change func(*Trial)) string {
		x := Trial{End: EndTest, Console: []byte("c"), Result: probe.Result{Stdout: []byte("o"), Stderr: []byte("e"), Syslog: []byte("l")}}
		change(&x)
		return exactDigest(x)
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*Trial){
		"nothing":  func(*Trial) {},
		"console":  func(x *Trial) { x.Console = []byte("d") },
		"stdout":   func(x *Trial) { x.Result.Stdout = nil },
		"moved":    func(x *Trial) { x.Result.Stdout, x.Result.Stderr = []byte("oe"), nil },
		"syslog":   func(x *Trial) { x.Result.Syslog = []byte("m") },
		"exit":     func(x *Trial) { x.Result.Exit = 1 },
		"end":      func(x *Trial) { x.End = EndCrash },
		"time out": func(x *Trial) { x.Result.TimedOut = true },
	} {
		d := said(change)
		if other, ok := seen[d]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[d] = name
	}
	if d := said(func(x *Trial) { x.Boot, x.Test = time.Second, time.Minute }); seen[d] != "nothing" {
		t.Error("the host's time is in the digest")
	}
}

func TestValidateExact(t *testing.T) {
	for want, change := range map[string]func(*Spec){
		"":                            func(*Spec) {},
		"exact machine takes tcg":     func(s *Spec) { s.Machine.Accel = "kvm" },
		"has one processor, not 2":    func(s *Spec) { s.Machine.CPUs = 2 },
		"begins at a given time":      func(s *Spec) { s.Test.Epoch = time.Time{} },
		"of your own cannot be exact": func(s *Spec) { s.Command = &Command{} },
	} {
		s := Spec{Machine: MachineSpec{Exact: true}, Test: probe.Spec{Epoch: time.Unix(1, 0)}}
		change(&s)
		if err := s.validateExact(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
