package lab

import (
	"strings"
	"testing"

	"lab/kernel/console"
)

func TestLastingDiff(t *testing.T) {
	for name, c := range map[string]struct{ then, now, want string }{
		"equal": {"a\n", "a\n", ""},
		"what passes": {
			"<6>[    1.234567] su[12]: at 0xffff888003a01000, pid 7\nJan  2 03:04:05 host su: x\n",
			"<6>[   21.000001] su[345]: at 0xffff888012345000, pid 81\nNov 23 13:14:15 host su: x\n", "",
		},
		"a word": {
			"[    1.000000] audit: error -1\nsame\n", "[    2.000000] audit: error -111\nsame\n",
			"-[TIME] audit: error -1\n+[TIME] audit: error -111\n same\n",
		},
		"no last newline": {"a", "a\n", ""},
		"steers":          {"a\n", "\x1b[31ma\u202e\n", "+ [31ma \n"},
		"small numbers":   {"status 0x1f\n", "status 0x2f\n", "-status 0x1f\n+status 0x2f\n"},
	} {
		got := lastingDiff("stdout", []byte(c.then), []byte(c.now))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	long := lastingDiff("stdout", nil, []byte(strings.Repeat("x\n", maxDiff)))
	if len(long) > maxDiff+100 || !strings.HasSuffix(long, " bytes more]\n") {
		t.Errorf("a long diff has %d bytes and ends %q", len(long), long[len(long)-40:])
	}
}

func TestReports(t *testing.T) {
	oops, warning := console.Report{Kind: console.KindOops, Title: "Oops"}, console.Report{Kind: console.KindWarning, Title: "WARNING: a"}
	if got := reports([]console.Report{warning, oops, warning}, []console.Report{oops}); len(got) != 1 || got[0] != "WARNING: a" {
		t.Errorf("got %q", got)
	}
}

func TestEnoughRuns(t *testing.T) {
	for rate, want := range map[float64]int{0: 1, 1: 1, .99: 1, .95: 2, .5: 7, .2: 21, .05: 90, .001: defaultMaxRuns} {
		if got := enoughRuns(rate); got != want {
			t.Errorf("at a rate of %v: %d runs, want %d", rate, got, want)
		}
	}
}

// TestSafeValue: what of a stranger's configuration gets into a build.
func TestSafeValue(t *testing.T) {
	for value, want := range map[string]bool{
		"y": true, "m": true, "n": true, "-17": true, "0x1000000": true, `"landlock,lockdown,yama"`: true, `""`: true, `"(none)"`: false,
		`"$(shell touch x)"`: false, "$(shell touch x)": false, "\"`id`\"": false, `"/etc/shadow"`: false, `"a\"b"`: false, `"a" #`: false, "y\n": false, `"..\x"`: false,
	} {
		if isSafeValue.MatchString(value) != want {
			t.Errorf("%q: want %v", value, want)
		}
	}
}
