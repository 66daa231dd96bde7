package demo

import (
	"os"
	"testing"
)

// TestHistoryOfRealSource makes the history on the distribution's kernel.
// LAB_DEMO_DIR keeps it, for a look or for the next run.
func TestHistoryOfRealSource(t *testing.T) {
	if os.Getenv("LAB_E2E") == "" {
		t.Skip("set LAB_E2E=1: boots real kernels")
	}
	needGit(t)
	archive, err := Source()
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("LAB_DEMO_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	repo, err := History(t.Context(), dir, archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkHistory(t, repo)
	again, err := History(t.Context(), dir, archive, func(int64, int64, string) { t.Error("the archive was read again") })
	if err != nil || again != repo {
		t.Errorf("second call: %+v, %v, want %+v", again, err, repo)
	}
}
