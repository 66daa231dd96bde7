package cli

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write golden files anew")

// labDir holds the lab binary that scripts run: a real one, static as the
// released ones are, since it becomes the guest's /init.
var labDir string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(mainWithLab(m))
}

func mainWithLab(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lab-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "lab"), "lab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build lab: %v\n%s", err, out)
		return 1
	}
	labDir = dir
	return m.Run()
}

// TestScript runs what needs no guest. Each script has a home of its own.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup:         func(e *testscript.Env) error { return setupScript(e, e.WorkDir) },
		Cmds:          commands,
	})
}

func setupScript(e *testscript.Env, home string) error {
	e.Setenv("HOME", home)
	e.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
	e.Setenv("XDG_STATE_HOME", filepath.Join(home, ".local/state"))
	e.Setenv("PATH", labDir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	e.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(e.WorkDir, "gitconfig"))
	return os.WriteFile(filepath.Join(e.WorkDir, "gitconfig"), []byte("[user]\n\tname = Lab Test\n\temail = test@lab.invalid\n[init]\n\tdefaultBranch = main\n"), 0o644)
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"code": exitCode,
}

// exitCode is "code N COMMAND...": the command must exit with status N.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d\nstderr: %s", got, want, ts.ReadFile("stderr"))
	}
}
