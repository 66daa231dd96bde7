package lab

import (
	"strings"
	"testing"

	"lab/kernel"
	"lab/probe"
)

// ended makes the trial of a test that ran to its end.
func ended(exit int, stdout string) Trial {
	return Trial{End: EndTest, Result: probe.Result{Started: true, Complete: true, Exit: exit, Stdout: []byte(stdout)}}
}

func with(t Trial, f func(*Trial)) Trial {
	f(&t)
	return t
}

func TestJudge(t *testing.T) {
	var (
		unbuilt  = Trial{End: EndBuild, Detail: "a.c:1: error: no"}
		unfit    = Trial{End: EndBuild, Detail: "patch a.patch does not apply: a.c:1", Failure: &kernel.Failure{Step: kernel.StepPatch}}
		built    = Trial{End: EndBuilt}
		unbooted = Trial{End: EndBoot, Detail: "panic: no root"}
		setup    = Trial{End: EndSetup, Detail: "no such command"}
		crash    = Trial{End: EndCrash, Detail: "BUG: bad page", Console: []byte("[ 1.0] BUG: bad page\n")}
		timeout  = Trial{End: EndTimeout}
		signal   = with(ended(139, ""), func(t *Trial) { t.Result.Signal = "SIGSEGV" })
		stderr   = with(ended(1, ""), func(t *Trial) { t.Result.Stderr = []byte("su: System error\n") })
		syslog   = with(ended(0, ""), func(t *Trial) { t.Result.Syslog = []byte("PAM failed\n") })
		warned   = with(ended(0, ""), func(t *Trial) { t.Console = []byte("[ 1.0] WARNING: at x\n") })
	)
	for _, c := range []struct {
		name    string
		trial   Trial
		symptom Symptom
		want    Mark
		reason  string // part of it
	}{
		{"exit 0", ended(0, ""), Symptom{}, Good, "exit status 0"},
		{"exit 1", ended(1, ""), Symptom{}, Bad, "exit status 1"},
		{"exit 127", ended(127, ""), Symptom{Kind: SymptomTest}, Bad, "exit status 127"},
		{"exit 125", ended(125, ""), Symptom{}, Skip, "cannot judge"},
		{"signal", signal, Symptom{}, Bad, "SIGSEGV"},
		{"timeout", timeout, Symptom{}, Bad, "ran out"},
		{"unbuilt", unbuilt, Symptom{}, Skip, "a.c:1: error: no"},
		{"built only", built, Symptom{}, Skip, "not booted"},
		{"unbooted", unbooted, Symptom{}, Skip, "no root"},
		{"setup", setup, Symptom{}, Skip, "no such command"},
		{"crash", crash, Symptom{}, Skip, "BUG: bad page"},

		{"bad match in stderr", stderr, Symptom{BadMatch: "System error$"}, Bad, "stderr says: su: System error"},
		{"bad match in syslog, exit 0", syslog, Symptom{BadMatch: "^PAM"}, Bad, "syslog"},
		{"bad match in the console of a crash", crash, Symptom{BadMatch: "bad page"}, Bad, "console"},
		{"failed differently", stderr, Symptom{BadMatch: "Permission"}, Skip, "failed differently"},
		{"timeout, bad match unseen", timeout, Symptom{BadMatch: "x"}, Skip, "failed differently"},
		{"passed, bad match unseen", ended(0, "y"), Symptom{BadMatch: "x"}, Good, "exit status 0"},
		{"good match seen, exit 1", ended(1, "all\nOKAY\n"), Symptom{GoodMatch: "^OKAY$"}, Good, "stdout says: OKAY"},
		{"good match unseen, exit 0", ended(0, "FAILED\n"), Symptom{GoodMatch: "OKAY"}, Bad, "nothing matches OKAY"},
		{"both seen", ended(0, "OKAY FAILED"), Symptom{GoodMatch: "OKAY", BadMatch: "FAILED"}, Bad, "FAILED"},
		{"both unseen", ended(0, ""), Symptom{GoodMatch: "OKAY", BadMatch: "FAILED"}, Skip, "failed differently"},
		{"bad match does not judge what did not boot", with(unbooted, func(t *Trial) { t.Console = []byte("x") }), Symptom{BadMatch: "x"}, Skip, "does not boot"},

		{"hunt build: a patch does not apply", unfit, Symptom{Kind: SymptomBuild}, Skip, "patch a.patch does not apply"},
		{"hunt boot: a patch does not apply", unfit, Symptom{Kind: SymptomBoot}, Skip, "patch a.patch"},
		{"a patch does not apply", unfit, Symptom{}, Skip, "patch a.patch"},
		{"hunt build: unbuilt", unbuilt, Symptom{Kind: SymptomBuild}, Bad, "does not build"},
		{"hunt build: built", built, Symptom{Kind: SymptomBuild}, Good, "builds"},
		{"hunt boot: unbuilt", unbuilt, Symptom{Kind: SymptomBoot}, Skip, "does not build"},
		{"hunt boot: unbooted", unbooted, Symptom{Kind: SymptomBoot}, Bad, "does not boot"},
		{"hunt boot: test failed", ended(1, ""), Symptom{Kind: SymptomBoot}, Good, "reaches userspace"},
		{"hunt crash: unbooted", unbooted, Symptom{Kind: SymptomCrash}, Skip, "does not boot"},
		{"hunt crash: crash", crash, Symptom{Kind: SymptomCrash}, Bad, "crashed: BUG"},
		{"hunt crash: another crash", crash, Symptom{Kind: SymptomCrash, BadMatch: "KASAN"}, Skip, "crashed differently"},
		{"hunt crash: report without death", warned, Symptom{Kind: SymptomCrash, BadMatch: "WARNING"}, Bad, "console"},
		{"hunt crash: test failed", ended(1, ""), Symptom{Kind: SymptomCrash}, Good, "no crash"},
		{"hunt crash: timeout", timeout, Symptom{Kind: SymptomCrash}, Skip, "ran out of time"},

		{"symptom that is none", ended(0, ""), Symptom{Kind: "flood"}, Skip, "flood"},
		{"expression that is none", ended(0, ""), Symptom{BadMatch: "("}, Skip, "bad-match"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Judge(c.trial, c.symptom)
			if v.Mark != c.want || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("Judge = %s: %s; want %s: …%s…", v.Mark, v.Reason, c.want, c.reason)
			}
		})
	}
}

func TestReasonIsOnePrintableLine(t *testing.T) {
	v := Judge(ended(1, "\x1b[31mERR\x07 "+strings.Repeat("x", 1000)+"\nnext"), Symptom{BadMatch: "ERR"})
	if strings.ContainsAny(v.Reason, "\x1b\x07\n") || len(v.Reason) > 300 || !strings.Contains(v.Reason, "ERR") {
		t.Errorf("reason = %q", v.Reason)
	}
}
