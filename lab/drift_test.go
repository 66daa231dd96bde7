package lab

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lab/kernel/kconfig"
)

// Kconfig makes something else of the same request at another commit: that is
// said when it changes, and is in the journal and in the trial, also after the
// bisect was stopped and goes on.
func TestBisectTellsDrift(t *testing.T) {
	l := testLab(t)
	var said []string
	l.Progress.Line = func(line string) { said = append(said, line) }
	r := newSmallRepo(t)
	r.write("resolved", "CONFIG_AUDIT=y\nCONFIG_NR=64\n")
	good := r.commit("good", "fine")
	r.write("resolved", "# CONFIG_AUDIT is not set\nCONFIG_NR=64\nCONFIG_NEW=y\n")
	r.commit("drifted", "fine")
	r.write("resolved", "CONFIG_AUDIT=y\nCONFIG_NR=64\n# CONFIG_OTHER is not set\n")
	r.commit("back", "fine")
	r.commit("bad", "broken")
	o := r.options(good, "main")
	check := func(b Bisection) {
		t.Helper()
		drift := map[string]int{}
		for _, tested := range b.Tested {
			drift[tested.Commit.Title] = max(drift[tested.Commit.Title], tested.Drift)
			if tested.Drift > 0 {
				trial, err := readTrial(filepath.Join(b.Dir, tested.Dir, trialFile))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(trial.Drift, []kconfig.Change{{Symbol: "AUDIT", Was: "y"}, {Symbol: "NEW", Is: "y"}}) {
					t.Errorf("drift in the trial: %v", trial.Drift)
				}
			}
		}
		if drift["drifted"] != 2 || drift["good"] != 0 || drift["back"] != 0 {
			t.Errorf("drift: %v", drift)
		}
	}
	b, err := l.Bisect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	check(b)
	told := func() string {
		var lines []string
		for _, line := range said {
			if strings.HasPrefix(line, "  config: ") {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	want := "  config: 2 symbols differ from " + short(good) + ": AUDIT y -> n, NEW n -> y\n  config: again that of " + short(good)
	if told() != want {
		t.Errorf("said:\n%s\nwant:\n%s", told(), want)
	}
	if b, err = l.Bisect(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(b)
}
